#include "apps/kvbm/sim_bench.h"

#include <algorithm>
#include <chrono>

#include "apps/kvbm/sim.h"

namespace kvbm::app {

Result<bench::Row> sim_row(const Trace& trace) {
  constexpr int kRounds = 15;
  const SimTrace sim = make_sim_trace(trace);
  if (sim.hashes.empty()) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0, "the trace asks for no block"};
  }
  std::vector<double> rates;
  for (int i = 0; i < kRounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    KVBM_TRY(const SimRow row, simulate(sim, SimPolicy::Lru, sim.unique_blocks / 10 + 1));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    bench::keep(row);
    rates.push_back(static_cast<double>(sim.hashes.size()) / seconds.count());
  }
  return bench::Row{.name = "sim_accesses_per_second",
                    .value = bench::median(std::move(rates)),
                    .unit = "per second",
                    .better = bench::Better::Higher,
                    .n = sim.hashes.size() * kRounds,
                    .aim = ">= 5e6"};
}

}  // namespace kvbm::app
