// What workers must agree about to use each other's blocks.
#pragma once

#include <string>

#include "kvbm/leader.h"

namespace kvbm::leader {

// What two workers disagree about, with the value of each; empty if they agree. Threads: any.
std::string difference(const RankInfo& a, const RankInfo& b);

}  // namespace kvbm::leader
