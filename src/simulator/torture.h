// Many schedules, one seed after the other, on several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "simulator/faults.h"
#include "simulator/schedule.h"

namespace kvbm::simulator {

struct TortureOptions {
  std::uint64_t first_seed = 0;
  std::uint64_t schedules = 0;
  unsigned threads = 1;
  std::size_t most_findings = 10;  // then it ends early
  // When set, it ends after the schedules that run. May be null.
  const std::atomic<bool>* stop = nullptr;
};

struct Finding {
  std::uint64_t seed;
  std::string what;
};

struct TortureReport {
  std::uint64_t schedules = 0;  // that were run
  std::vector<Finding> findings;
  FaultCounts faults{};
  detail::TransitionCounts reached{};
  std::uint64_t requests = 0;
  std::uint64_t blocks_checked = 0;

  std::uint64_t all_faults() const noexcept;
  // Kinds of faults on edges that occurred fewer than `least` times, and transitions that never
  // did, in words.
  std::vector<std::string> missed(std::uint64_t least) const;
};

// `progress` is told now and then how many schedules are done, on any of the threads.
TortureReport torture(const TortureOptions& options,
                      const std::function<void(std::uint64_t done)>& progress = {});

// The seed of the schedule that this thread runs: what to tell when a broken invariant ends the
// process. Safe in a signal handler.
std::uint64_t running_seed() noexcept;

}  // namespace kvbm::simulator
