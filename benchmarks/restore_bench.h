// Rows of a bench: how fast a pool takes in the blocks that survived a restart.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// Milliseconds for a million blocks in a pool of as many, which lie in random places: until they
// can be matched, and from then on until all are in the eviction order. Takes about 10 s and 300
// MB. Errors: none.
Result<std::vector<Row>> restore_rows(const Options& options);

}  // namespace kvbm::bench
