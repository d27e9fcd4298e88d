// One schedule of the torture: a random workload over random tiers with random faults, all from one
// seed, and what must hold whatever happens.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "simulator/faults.h"
#include "tiers/transitions.h"

namespace kvbm::simulator {

struct ScheduleResult {
  std::vector<std::string> findings;  // what did not hold; empty if all is well
  FaultCounts faults{};
  detail::TransitionCounts reached{};
  std::uint64_t requests = 0;
  std::uint64_t blocks_checked = 0;  // byte by byte
};

// Checks:
//   no wrong byte is ever visible, in a block that a request was given or that somebody holds
//   every request ends once, at its deadline at the latest
//   in the end no block is held, no plan leased, nothing waits or moves, and every block is in
//   exactly one place
//   what the engine has counted adds up
//   the events of every pool describe what it has
// `trace`, if given, gets a line per action. A broken invariant ends the process.
using Trace = std::function<void(const std::string& line)>;
ScheduleResult run_schedule(std::uint64_t seed, Trace trace = {});

}  // namespace kvbm::simulator
