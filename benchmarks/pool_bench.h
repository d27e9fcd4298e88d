// `kvbm bench pool`: what the bookkeeping of a pool costs per block.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// Through the public API, metrics on, a million resident blocks unless a row says otherwise.
// Takes about 40 s and 1.5 GB. Errors: those of the pools.
Result<Report> pool_bench(const Options& options);

}  // namespace kvbm::bench
