// The bench of names: block hashes, chains and digests.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// Random tokens from the seed. Errors: none but those of token blocks.
Result<Report> hash_bench(const Options& options);

}  // namespace kvbm::bench
