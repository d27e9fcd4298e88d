// The row of `kvbm bench pool` that runs a whole trace.
#pragma once

#include "apps/kvbm/trace.h"
#include "benchmarks/bench.h"

namespace kvbm::app {

// Block accesses per second of simulate() under lru with a tenth of the trace's blocks; reading the
// trace is not timed. Errors: those of simulate(); InvalidConfig if nothing is asked for.
Result<bench::Row> sim_row(const Trace& trace);

}  // namespace kvbm::app
