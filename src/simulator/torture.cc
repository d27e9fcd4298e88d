#include "simulator/torture.h"

#include <atomic>
#include <numeric>
#include <thread>

#include "base/mutex.h"

namespace kvbm::simulator {
namespace {

thread_local std::uint64_t seed_of_this_thread = 0;

struct Shared {
  Mutex mutex;
  TortureReport report KVBM_GUARDED_BY(mutex);
};

void add(TortureReport& report, std::uint64_t seed, const ScheduleResult& result) {
  ++report.schedules;
  report.requests += result.requests;
  report.blocks_checked += result.blocks_checked;
  for (const std::string& finding : result.findings) report.findings.push_back({seed, finding});
  for (std::size_t kind = 0; kind < result.faults.size(); ++kind) {
    for (std::size_t edge = 0; edge < result.faults[kind].size(); ++edge) {
      report.faults[kind][edge] += result.faults[kind][edge];
    }
  }
  for (std::size_t i = 0; i < result.reached.size(); ++i) report.reached[i] += result.reached[i];
}

}  // namespace

std::uint64_t running_seed() noexcept { return seed_of_this_thread; }

std::uint64_t TortureReport::all_faults() const noexcept {
  std::uint64_t all = 0;
  for (const auto& kind : faults) all = std::accumulate(kind.begin(), kind.end(), all);
  return all;
}

std::vector<std::string> TortureReport::missed(std::uint64_t least) const {
  std::vector<std::string> missed;
  for (std::size_t i = 0; i < kFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    for (std::size_t edge = 0; edge <= kEdgeCount; ++edge) {
      if (!exists(kind, edge) || faults[i][edge] >= least) continue;
      missed.push_back(
          std::string("fault ") + to_string(kind) +
          (edge == kNoEdge ? "" : std::string(" on ") + to_string(static_cast<Edge>(edge))) + ": " +
          std::to_string(faults[i][edge]) + " times");
    }
  }
  for (std::size_t i = 0; i < reached.size(); ++i) {
    if (reached[i] > 0) continue;
    missed.push_back(std::string("transition ") + to_string(static_cast<detail::Transition>(i)) +
                     ": never");
  }
  return missed;
}

TortureReport torture(const TortureOptions& options,
                      const std::function<void(std::uint64_t done)>& progress) {
  Shared shared;
  std::atomic<std::uint64_t> next{0};
  const auto work = [&] {
    for (;;) {
      const std::uint64_t number = next.fetch_add(1);
      if (number >= options.schedules || (options.stop && options.stop->load())) return;
      seed_of_this_thread = options.first_seed + number;
      const ScheduleResult result = run_schedule(seed_of_this_thread);
      MutexLock lock(shared.mutex);
      add(shared.report, seed_of_this_thread, result);
      if (progress) progress(shared.report.schedules);
      if (shared.report.findings.size() >= options.most_findings) next.store(options.schedules);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 1; i < options.threads; ++i) threads.emplace_back(work);
    work();
  }
  MutexLock lock(shared.mutex);
  return std::move(shared.report);
}

}  // namespace kvbm::simulator
