// Which sizes of the host and disk tiers pay for a workload: a trace is run through the tier engine
// without bytes for each pair of sizes, and what it would compute and load is turned into time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "apps/kvbm/trace.h"
#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm::app {

inline constexpr std::uint64_t kGigabyte = 1'000'000'000;

struct PlanOptions {
  std::size_t block_bytes = 0;                  // of 512 tokens
  std::uint64_t prefill_tokens_per_second = 0;  // that are computed
  std::uint64_t device_gb = 0;                  // 0: the longest prompt of the trace
  std::vector<std::uint64_t> host_gb = {};      // GB of 10^9 bytes
  std::vector<std::uint64_t> disk_gb = {};
  std::uint64_t host_mb_per_second = 20'000;  // from host to device
  std::uint64_t disk_mb_per_second = 3'000;   // from disk to host
};

// What all prompts of the trace cost with tiers of these sizes.
struct PlanRow {
  std::uint64_t host_gb = 0;
  std::uint64_t disk_gb = 0;
  std::uint64_t prompt_tokens = 0;
  std::array<std::uint64_t, kTierCount> hit_tokens{};  // by the tier that served them
  double saved_seconds = 0;                            // of prefill, by all hits
  double computed_seconds = 0;                         // of prefill, for the rest
  double host_load_seconds = 0;                        // blocks on the way from host to device
  double disk_load_seconds = 0;                        // and before from disk to host
  std::uint64_t disk_bytes_written = 0;

  double load_seconds() const noexcept { return host_load_seconds + disk_load_seconds; }
  std::uint64_t all_hit_tokens() const noexcept {
    return hit_tokens[0] + hit_tokens[1] + hit_tokens[2];
  }
};

// A row for each pair of sizes, disks of one host together. Deterministic. `after_request` hears
// how many requests are done, over all rows. Errors: InvalidConfig naming the size that holds no
// block, or too many; AllocationFailed.
Result<std::vector<PlanRow>> plan(const Trace& trace, const PlanOptions& options,
                                  const std::function<void(std::size_t)>& after_request = {});

// {"rows": [...]}, an object for each row whose keys are the members' names.
nlohmann::json to_json(std::span<const PlanRow> rows);
// A table for people, newline at the end.
std::string to_table(std::span<const PlanRow> rows);

}  // namespace kvbm::app
