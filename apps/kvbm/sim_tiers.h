// Runs a trace through the tier engine and its pools under a clock of their own, without the bytes
// of the blocks: what a replay with these sizes would hit, known much sooner.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "apps/kvbm/trace.h"
#include "kvbm/result.h"
#include "kvbm/tiers.h"

namespace kvbm::app {

// As of a replay; --block-bytes decides how many blocks one transfer takes.
struct SimTiersOptions {
  std::size_t device_blocks = 0;
  std::size_t host_blocks = 0;  // 0: there is none, and no disk
  std::size_t disk_blocks = 0;  // 0: there is none
  std::size_t block_bytes = 0;
};

struct SimTiersReport {
  std::uint64_t requests = 0;
  std::uint64_t prompt_tokens = 0;
  std::array<std::uint64_t, kTierCount> hit_tokens{};  // by the tier that served them
  std::array<std::uint64_t, kTierCount> evictions{};
  std::array<std::uint64_t, kEdgeCount> edge_blocks{};
  std::uint64_t dropped_offloads = 0;
  std::uint64_t run_digest = 0;  // RequestLoop::run_digest()

  friend bool operator==(const SimTiersReport&, const SimTiersReport&) = default;
};

// Deterministic, and to the block what replay() counts with runtime.deterministic and otherwise
// default options. `after_request` hears how many requests are done. Requires: device_blocks and
// block_bytes >= 1. Errors: AllocationFailed.
Result<SimTiersReport> simulate_tiers(const Trace& trace, const SimTiersOptions& options,
                                      const std::function<void(std::size_t)>& after_request = {});

nlohmann::json to_json(const SimTiersReport& report);
// A table for people, newline at the end.
std::string to_table(const SimTiersReport& report, const SimTiersOptions& options);

}  // namespace kvbm::app
