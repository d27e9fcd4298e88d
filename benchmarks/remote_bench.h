// `kvbm bench remote`: blocks of another process on this machine.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// Two processes with 512 MiB each; forks, so that it must be called before there are threads. All
// that is pulled is verified. Pulls by CMA are measured in CPU time. Takes about 30 s. Errors:
// AllocationFailed; OperationFailed with errno; those of the paths, such as a machine on which
// processes must not read each other.
Result<Report> remote_bench(const Options& options);

}  // namespace kvbm::bench
