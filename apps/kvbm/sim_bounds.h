// The most hits that a cache can have which knows the future.
#pragma once

#include <cstddef>
#include <vector>

#include "apps/kvbm/sim.h"

namespace kvbm::app {

// Hits in blocks of each request, for SimPolicy::Min or MinForced. Requires: capacity >= 1.
std::vector<std::size_t> bound_hits(const SimTrace& trace, SimPolicy policy, std::size_t capacity);

}  // namespace kvbm::app
