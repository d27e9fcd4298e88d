// `kvbm bench tiers`: whole managers, from the call to the answer, beside bare copies and bare I/O.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// Needs 1 GiB of memory, and 320 MiB in options.dir. Takes about 30 s. Errors: those of
// KvBlockManager::create() and of what is moved; OperationFailed where there is no io_uring.
Result<Report> tiers_bench(const Options& options);

}  // namespace kvbm::bench
