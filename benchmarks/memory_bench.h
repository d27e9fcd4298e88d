// `kvbm bench memory`: how soon and how fast a host tier has its pages.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

Result<Report> memory_bench(const Options& options);

}  // namespace kvbm::bench
