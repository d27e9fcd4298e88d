// The bench of copying in memory: blocks gathered from layers, with and without their sums.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// Needs 1 GiB of memory. Errors: AllocationFailed.
Result<Report> copy_bench(const Options& options);

}  // namespace kvbm::bench
