// `kvbm bench cuda`: copies between the host and a CUDA device, by the size of fragments.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// On device 0; skipped where there is none. Takes some seconds, 64 MiB of host memory and 256 MiB
// of the device. Errors: Cuda where the device fails.
Result<Report> cuda_bench(const Options& options);

}  // namespace kvbm::bench
