// How long one small block takes from the host tier to the device.
#pragma once

#include "benchmarks/bench.h"

namespace kvbm::bench {

// One block of 256 KiB, looked up and onboarded: polled, waited for, and while blocks are offloaded
// as fast as they go.
Result<std::vector<Row>> tiers_latency_rows();

}  // namespace kvbm::bench
