// `kvbm bench disk`: the disk tier as a store that survives.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// Blocks through the store, its records, a reset, and a restart with a million blocks. Uses a
// folder in options.dir that is gone when this returns, with up to 4.1 GiB reserved in it, and 768
// MiB of memory. Takes about two minutes. Errors: those of the store and of PinnedAllocator;
// OperationFailed where there is no io_uring.
Result<Report> store_bench(const Options& options);

// Its rows of what needs no payload: puts, resets and restarts of a million records.
Result<std::vector<Row>> index_rows(const Options& options);

}  // namespace kvbm::bench
