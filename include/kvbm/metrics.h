// Counters, gauges and histograms of the library, through an interface that an exporter adapts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace kvbm {

// Thread-safe, cheap, must not throw or call back into the library.
class Counter {
 public:
  virtual ~Counter() = default;
  virtual void add(std::uint64_t amount) = 0;
};
class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void set(double value) = 0;
};
class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void observe(double value) = 0;
};

struct MetricName {
  std::string name;  // "kvbm_allocations_total"
  std::string help;
  std::string tier;  // value of the label "tier"; empty: no label
};

// Makes the metrics of one process; asked once per metric and label. Never returns null.
class Registry {
 public:
  virtual ~Registry() = default;
  virtual std::shared_ptr<Counter> counter(const MetricName& name) = 0;
  virtual std::shared_ptr<Gauge> gauge(const MetricName& name) = 0;
  // `bounds`: upper bounds of the buckets, ascending, in the metric's unit.
  virtual std::shared_ptr<Histogram> histogram(const MetricName& name,
                                               std::span<const double> bounds) = 0;
  // Calls `collect` before each reading, until what is returned is destroyed, which waits for a
  // call that runs. Null: this registry cannot; then the metrics are brought up to date by every
  // operation instead, which costs each some time. `collect` changes metrics, and makes none.
  virtual std::shared_ptr<void> add_collector(std::function<void()> /*collect*/) { return nullptr; }
};

// Keeps the numbers in memory, for programs without an exporter and for tests.
class MemoryRegistry final : public Registry {
 public:
  struct Sample {
    std::string name;
    std::string tier;
    double value;         // a counter's or gauge's value, a histogram's sum
    std::uint64_t count;  // a histogram's observations, else 0
  };
  MemoryRegistry();
  ~MemoryRegistry() override;
  std::shared_ptr<Counter> counter(const MetricName& name) override;
  std::shared_ptr<Gauge> gauge(const MetricName& name) override;
  std::shared_ptr<Histogram> histogram(const MetricName& name,
                                       std::span<const double> bounds) override;
  std::shared_ptr<void> add_collector(std::function<void()> collect) override;
  // Every metric, in the order in which they were made.
  std::vector<Sample> samples() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// One pool's sizes and durations. Durations are in seconds and sampled, one operation in 64, so
// that reading the clock does not show in the operations' own cost.
struct PoolMetrics {
  std::shared_ptr<Gauge> total_blocks;
  std::shared_ptr<Gauge> available_blocks;
  std::shared_ptr<Histogram> allocation_duration;
  std::shared_ptr<Histogram> registration_duration;
  std::shared_ptr<Histogram> match_duration;
};

// One pool's counters, in blocks; what the tier engine does in the pool counts as well. Brought up
// to date when the registry is read, if it has collectors, else by every call of the pool; and by
// BlockPool::stats().
struct BlockManagerMetrics {
  PoolMetrics pool_metrics;
  std::shared_ptr<Counter> allocation_counter;
  std::shared_ptr<Counter> registration_counter;
  std::shared_ptr<Counter> match_counter;
  std::shared_ptr<Counter> eviction_counter;

  // Registers every metric of one pool. Names: src/observe/metric_names.h.
  static BlockManagerMetrics create(Registry& registry, const std::string& tier);
};

}  // namespace kvbm
