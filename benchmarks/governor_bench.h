// How well the governor chooses between loading and computing.
#pragma once

#include <cstdint>

namespace kvbm::bench {

// Lets governors that have learned from noisy transfers decide for prefixes of many lengths, at
// paths of 0.05 to 50 GB/s and 1,000 to 1,000,000 tokens/s, trials included. The worst quotient of
// the time that its decisions took and the time of the better one of loading everything and
// computing everything. Nothing is measured: equal seeds give equal numbers. About 0.1 s.
double governor_worst_ratio(std::uint32_t seed);

}  // namespace kvbm::bench
