// `kvbm bench disk-raw`: blocks between host memory and a file.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// A file of 768 MiB in options.dir, without a name, so that it is gone when this returns, and as
// much memory. Reads are verified, writes bring their sums. Takes about 40 s.
// Errors: those of DiskAllocator and PinnedAllocator; OperationFailed where there is no io_uring.
Result<Report> disk_bench(const Options& options);

}  // namespace kvbm::bench
