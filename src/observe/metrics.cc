#include "kvbm/metrics.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>

#include "base/mutex.h"
#include "observe/metric_names.h"

namespace kvbm {
namespace {

class MemoryCounter final : public Counter {
 public:
  void add(std::uint64_t amount) override { value_.fetch_add(amount, std::memory_order_relaxed); }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

class MemoryGauge final : public Gauge {
 public:
  void set(double value) override { value_.store(value, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class MemoryHistogram final : public Histogram {
 public:
  void observe(double value) override {
    MutexLock lock(mutex_);
    sum_ += value;
    ++count_;
  }
  std::pair<double, std::uint64_t> value() const {
    MutexLock lock(mutex_);
    return {sum_, count_};
  }

 private:
  mutable Mutex mutex_;
  double sum_ KVBM_GUARDED_BY(mutex_) = 0;
  std::uint64_t count_ KVBM_GUARDED_BY(mutex_) = 0;
};

}  // namespace

struct MemoryRegistry::State {
  mutable Mutex mutex;
  std::vector<std::function<Sample()>> readers KVBM_GUARDED_BY(mutex);
  // Collectors have a mutex of their own, which is held while they run.
  Mutex collectors_mutex;
  std::map<std::size_t, std::function<void()>> collectors KVBM_GUARDED_BY(collectors_mutex);
  std::size_t next_collector KVBM_GUARDED_BY(collectors_mutex) = 0;

  template <class Metric, class Read>
  std::shared_ptr<Metric> make(const MetricName& name, Read read) {
    auto metric = std::make_shared<Metric>();
    MutexLock lock(mutex);
    readers.push_back([metric, name, read] {
      Sample sample{name.name, name.tier, 0, 0};
      read(*metric, sample);
      return sample;
    });
    return metric;
  }
};

MemoryRegistry::MemoryRegistry() : state_(std::make_shared<State>()) {}
MemoryRegistry::~MemoryRegistry() = default;

std::shared_ptr<Counter> MemoryRegistry::counter(const MetricName& name) {
  return state_->make<MemoryCounter>(name, [](const MemoryCounter& metric, Sample& sample) {
    sample.value = static_cast<double>(metric.value());
  });
}

std::shared_ptr<Gauge> MemoryRegistry::gauge(const MetricName& name) {
  return state_->make<MemoryGauge>(
      name, [](const MemoryGauge& metric, Sample& sample) { sample.value = metric.value(); });
}

std::shared_ptr<Histogram> MemoryRegistry::histogram(const MetricName& name,
                                                     std::span<const double>) {
  return state_->make<MemoryHistogram>(name, [](const MemoryHistogram& metric, Sample& sample) {
    std::tie(sample.value, sample.count) = metric.value();
  });
}

std::shared_ptr<void> MemoryRegistry::add_collector(std::function<void()> collect) {
  std::size_t id = 0;
  {
    MutexLock lock(state_->collectors_mutex);
    id = state_->next_collector++;
    state_->collectors.emplace(id, std::move(collect));
  }
  return std::shared_ptr<void>(state_.get(), [state = state_, id](void*) {
    MutexLock lock(state->collectors_mutex);
    state->collectors.erase(id);
  });
}

std::vector<MemoryRegistry::Sample> MemoryRegistry::samples() const {
  {
    MutexLock lock(state_->collectors_mutex);
    for (const auto& [id, collect] : state_->collectors) collect();
  }
  std::vector<Sample> samples;
  MutexLock lock(state_->mutex);
  for (const auto& read : state_->readers) samples.push_back(read());
  return samples;
}

BlockManagerMetrics BlockManagerMetrics::create(Registry& registry, const std::string& tier) {
  // From a tenth of a microsecond, about one block's work, to ten milliseconds.
  constexpr double kBounds[] = {1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2};
  const auto counter = [&](const char* name, const char* help) {
    return registry.counter({name, help, tier});
  };
  const auto gauge = [&](const char* name, const char* help) {
    return registry.gauge({name, help, tier});
  };
  const auto histogram = [&](const char* name, const char* help) {
    return registry.histogram({name, help, tier}, kBounds);
  };
  namespace names = metric_names;
  return {
      .pool_metrics = {.total_blocks = gauge(names::kTotalBlocks, "Blocks of the pool"),
                       .available_blocks =
                           gauge(names::kAvailableBlocks, "Free and evictable blocks"),
                       .allocation_duration =
                           histogram(names::kAllocationSeconds, "One allocation call, sampled"),
                       .registration_duration =
                           histogram(names::kRegistrationSeconds, "One registration call, sampled"),
                       .match_duration =
                           histogram(names::kMatchSeconds, "One match call, sampled")},
      .allocation_counter = counter(names::kAllocations, "Blocks allocated"),
      .registration_counter = counter(names::kRegistrations, "Blocks registered"),
      .match_counter = counter(names::kMatches, "Blocks found by matches"),
      .eviction_counter = counter(names::kEvictions, "Registered blocks evicted"),
  };
}

}  // namespace kvbm
