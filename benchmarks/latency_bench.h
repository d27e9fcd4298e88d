// How long a read takes while the disk is busy.
#pragma once

#include "benchmarks/disk_blocks.h"

namespace kvbm::bench {

// Reads of blocks that arrive at an even pace, at 90 % of the rate that was measured just before:
// the 99th percentile of their latencies, in medians of bare reads that have the disk alone. Of
// reads that `journal` is told of, and of bare io_uring in turns with them. No row is the other's
// limit: where the disk stalls now and then, either may be the luckier one.
Result<std::vector<Row>> latency_rows(FileExecutor& executor, DiskBlocks& blocks,
                                      BlockJournal* journal);

}  // namespace kvbm::bench
