// The bench of lookups over several ranks.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// A leader and its ranks, each with a thread of its own and sockets in `/tmp`. Errors:
// OperationFailed with errno where the sockets cannot be made.
Result<Report> leader_bench(const Options& options);

}  // namespace kvbm::bench
