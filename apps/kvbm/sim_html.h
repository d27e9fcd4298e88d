// A simulation's rows as a page: hit rates over capacities, one line for each policy.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "apps/kvbm/sim.h"

namespace kvbm::app {

// What was simulated, to be told beside the rows.
struct SimParameters {
  std::string trace;  // as the command line named it
  std::optional<std::size_t> limit;
  std::size_t requests = 0;
  std::size_t unique_blocks = 0;
};

// A page that needs no other file and no script, and is XML as well; see escaped() for file names.
// `rows` may be empty, in any order, and have one row more than once.
std::string to_html(std::span<const SimRow> rows, const SimParameters& parameters);

}  // namespace kvbm::app
