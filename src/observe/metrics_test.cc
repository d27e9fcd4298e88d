#include "kvbm/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>

#include "observe/metric_names.h"

namespace kvbm {
namespace {

TEST(MemoryRegistryTest, KeepsNumbersInTheOrderOfTheirMaking) {
  MemoryRegistry registry;
  const auto counter = registry.counter({"c_total", "help", "device"});
  const auto gauge = registry.gauge({"g", "help", ""});
  const double bounds[] = {1, 2};
  const auto histogram = registry.histogram({"h_seconds", "help", "disk"}, bounds);
  counter->add(2);
  counter->add(3);
  gauge->set(7.5);
  gauge->set(1.25);
  histogram->observe(0.5);
  histogram->observe(4);

  const auto samples = registry.samples();
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[0].name, "c_total");
  EXPECT_EQ(samples[0].tier, "device");
  EXPECT_EQ(samples[0].value, 5);
  EXPECT_EQ(samples[0].count, 0u);
  EXPECT_EQ(samples[1].name, "g");
  EXPECT_EQ(samples[1].tier, "");
  EXPECT_EQ(samples[1].value, 1.25);
  EXPECT_EQ(samples[2].value, 4.5) << "a histogram's sum";
  EXPECT_EQ(samples[2].count, 2u);
}

TEST(MemoryRegistryTest, MetricsOutliveTheirRegistry) {
  std::shared_ptr<Counter> counter;
  {
    MemoryRegistry registry;
    counter = registry.counter({"c_total", "", ""});
  }
  counter->add(1);  // ASan is the judge
}

TEST(MemoryRegistryTest, NoCountIsLostBetweenThreads) {
  MemoryRegistry registry;
  const auto counter = registry.counter({"c_total", "", ""});
  const auto histogram = registry.histogram({"h", "", ""}, {});
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i) {
          counter->add(1);
          histogram->observe(2);
        }
      });
    }
  }
  EXPECT_EQ(registry.samples()[0].value, 4000);
  EXPECT_EQ(registry.samples()[1].value, 8000);
  EXPECT_EQ(registry.samples()[1].count, 4000u);
}

// An exporter's view: what it is asked for.
class Asked final : public Registry {
 public:
  std::shared_ptr<Counter> counter(const MetricName& name) override {
    note(name);
    return memory_.counter(name);
  }
  std::shared_ptr<Gauge> gauge(const MetricName& name) override {
    note(name);
    return memory_.gauge(name);
  }
  std::shared_ptr<Histogram> histogram(const MetricName& name,
                                       std::span<const double> bounds) override {
    note(name);
    EXPECT_FALSE(bounds.empty());
    EXPECT_TRUE(std::ranges::is_sorted(bounds));
    return memory_.histogram(name, bounds);
  }
  std::multiset<std::string> names;

 private:
  void note(const MetricName& name) {
    EXPECT_FALSE(name.help.empty()) << name.name;
    names.insert(name.tier + " " + name.name);
  }
  MemoryRegistry memory_;
};

TEST(BlockManagerMetricsTest, AsksForEveryMetricOnceWithItsTier) {
  Asked asked;
  const BlockManagerMetrics metrics = BlockManagerMetrics::create(asked, "host");
  EXPECT_TRUE(metrics.pool_metrics.total_blocks && metrics.pool_metrics.available_blocks &&
              metrics.pool_metrics.allocation_duration &&
              metrics.pool_metrics.registration_duration && metrics.pool_metrics.match_duration &&
              metrics.allocation_counter && metrics.registration_counter && metrics.match_counter &&
              metrics.eviction_counter);
  namespace names = metric_names;
  std::multiset<std::string> expected;
  for (const char* name :
       {names::kAllocations, names::kRegistrations, names::kMatches, names::kEvictions,
        names::kTotalBlocks, names::kAvailableBlocks, names::kAllocationSeconds,
        names::kRegistrationSeconds, names::kMatchSeconds}) {
    expected.insert(std::string("host ") + name);
  }
  EXPECT_EQ(asked.names, expected);
}

}  // namespace
}  // namespace kvbm
