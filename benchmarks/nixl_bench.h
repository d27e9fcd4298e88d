// Rows about NIXL: what our agents cost beside its bare functions.
#pragma once

#include <vector>

#include "benchmarks/bench.h"

namespace kvbm::bench {

// What an agent adds to a request and to each of its blocks, measured over functions that do
// nothing, beside the same calls by hand. Takes a second.
Result<std::vector<Row>> over_raw_nixl_rows();

// Blocks of 2 MiB that their owner writes into the memory of whoever pulls them, over TCP, beside
// the same list by hand. Both agents are in this process. Takes some seconds and 128 MiB. Errors:
// NixlError, with native code 0 where NIXL cannot be loaded.
Result<Row> pull_nixl_tcp_row();

// `kvbm bench nixl`: all of these. Where NIXL cannot be loaded the last one is left out.
Result<Report> nixl_bench(const Options& options);

}  // namespace kvbm::bench
