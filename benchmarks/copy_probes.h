// Plain code that copies runs, the limits of copying: stores past the caches with the widest
// registers, one run after the other, with and without fetching ahead, or four runs in turns.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "physical/copy/copy.h"

namespace kvbm::bench {

struct CopyProbe {
  std::string name;
  void (*copy)(std::span<const CopyRun> runs);
};

// Those that this CPU can run. They want targets at multiples of 64, and runs of one size that is a
// multiple of 512.
std::vector<CopyProbe> copy_probes();

}  // namespace kvbm::bench
