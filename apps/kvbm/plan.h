// Which sizes of the host and disk tiers pay for a workload: a trace is run through the tier engine
// without bytes for each pair of sizes, and what it would compute and load is turned into time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
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

// What all prompts of the trace cost with tiers of these sizes; 0: without the tier.
struct PlanRow {
  std::uint64_t host_gb = 0;
  std::uint64_t disk_gb = 0;
  std::array<std::uint64_t, kTierCount> hit_tokens{};  // by the tier that served them
  double computed_seconds = 0;                         // of prefill, for what no tier has
  double saved_seconds = 0;                            // of prefill that the device alone takes
  double host_load_seconds = 0;                        // blocks on the way from host to device
  double disk_load_seconds = 0;                        // and before from disk to host
  std::uint64_t disk_bytes_written = 0;

  double load_seconds() const noexcept { return host_load_seconds + disk_load_seconds; }
  double net_seconds() const noexcept { return saved_seconds - load_seconds(); }
  std::uint64_t all_hit_tokens() const noexcept {
    return hit_tokens[0] + hit_tokens[1] + hit_tokens[2];
  }
};

struct PlanReport {
  PlanOptions options;
  std::uint64_t prompt_tokens = 0;
  std::size_t longest_prompt = 0;  // blocks
  std::size_t device_blocks = 0;
  PlanRow device_alone;
  std::vector<PlanRow> rows;  // one for each pair of sizes, disks of one host together

  double device_gb() const noexcept;
  double prefill_seconds() const noexcept;  // of all prompts, if nothing is kept
};

// Deterministic. `after_request` hears how many requests are done, over the row of the device alone
// and all rows. Errors: InvalidConfig naming the size that holds no block, or too many;
// AllocationFailed.
Result<PlanReport> plan(const Trace& trace, const PlanOptions& options,
                        const std::function<void(std::size_t)>& after_request = {});

// The members by their names, those of the options among them but for the lists.
nlohmann::json to_json(const PlanReport& report);
// A table for people, newline at the end.
std::string to_table(const PlanReport& report);

// The table's columns, and a row as their texts: the last one says what is special about it.
inline constexpr std::size_t kPlanColumns = 12;
inline constexpr std::array<std::string_view, kPlanColumns> kPlanHeader = {
    "host GB", "disk GB", "device hits", "host hits",  "disk hits",       "of prompts",
    "saved s", "load s",  "net s",       "computed s", "disk written GB", ""};
std::array<std::string, kPlanColumns> plan_cells(const PlanReport& report, const PlanRow& row);

}  // namespace kvbm::app
