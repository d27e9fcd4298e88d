// What a disk tier that survives tells a registry of metrics.
#include <vector>

#include "observe/metric_names.h"
#include "tiers/disk_tier.h"

namespace kvbm::detail {
namespace {

// What of the stats, under which name.
struct Told {
  const char* name;
  const char* help;
  double (*value)(const DiskStats& stats);
};

#define KVBM_STAT(field) [](const DiskStats& stats) { return static_cast<double>(stats.field); }

namespace names = metric_names;

constexpr Told kCounters[] = {
    {names::kDiskBlocksWritten, "Blocks written to the disk tier", KVBM_STAT(blocks_written)},
    {names::kDiskPayloadBytes, "Bytes of blocks written", KVBM_STAT(payload_bytes_written)},
    {names::kDiskIndexBytes, "Bytes of the store's own files written",
     KVBM_STAT(index_bytes_written)},
    {names::kDiskServedBytes, "Bytes read from the disk tier and found right",
     KVBM_STAT(bytes_served)},
    {names::kDiskWriteErrors, "Writes and syncs that failed", KVBM_STAT(write_errors)},
    {names::kDiskReadErrors, "Reads that failed", KVBM_STAT(read_errors)},
    {names::kDiskScrubbed, "Blocks read again in the background", KVBM_STAT(scrubbed_blocks)},
    {names::kDiskScrubMismatches, "Of those, blocks whose bytes were wrong",
     KVBM_STAT(scrub_mismatches)},
};
constexpr Told kGauges[] = {
    {names::kDiskHealth, "0 healthy, 1 read-only, 2 off", KVBM_STAT(health)},
    {names::kDiskRestored, "Blocks found at the start", KVBM_STAT(restored_blocks)},
    {names::kDiskDamaged, "Damaged records found at the start", KVBM_STAT(damaged_records)},
    {names::kDiskBudget, "Bytes that may be written per day; 0: any number",
     KVBM_STAT(write_budget_bytes_per_day)},
    {names::kDiskAmplification, "Bytes written per byte of blocks", KVBM_STAT(write_amplification)},
    {names::kDiskDaysLeft, "Until the rated endurance is used up; -1: unknown",
     [](const DiskStats& stats) { return stats.days_of_life_left.value_or(-1); }},
};

#undef KVBM_STAT

}  // namespace

void DiskTier::publish_to(Registry& registry) {
  struct Metrics {
    std::vector<std::shared_ptr<Counter>> counters;
    std::vector<std::shared_ptr<Gauge>> gauges;
    Mutex mutex;  // one reading at a time
    DiskStats published;
  };
  auto metrics = std::make_shared<Metrics>();
  for (const Told& each : kCounters) {
    metrics->counters.push_back(registry.counter({each.name, each.help, "disk"}));
  }
  for (const Told& each : kGauges) {
    metrics->gauges.push_back(registry.gauge({each.name, each.help, "disk"}));
  }
  metrics->published = stats();
  collector_ = registry.add_collector([this, metrics] {
    const DiskStats now = stats();
    MutexLock lock(metrics->mutex);
    for (std::size_t i = 0; i < metrics->counters.size(); ++i) {
      const double added = kCounters[i].value(now) - kCounters[i].value(metrics->published);
      metrics->counters[i]->add(static_cast<std::uint64_t>(added));
    }
    for (std::size_t i = 0; i < metrics->gauges.size(); ++i) {
      metrics->gauges[i]->set(kGauges[i].value(now));
    }
    metrics->published = now;
  });
}

}  // namespace kvbm::detail
