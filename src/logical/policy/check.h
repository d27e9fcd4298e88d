// For check_invariants() of this layer.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace kvbm {

// Aborts with the message unless `holds`.
inline void policy_check(bool holds, const char* message) {
  if (holds) return;
  std::fprintf(stderr, "eviction policy: %s\n", message);
  std::abort();
}

}  // namespace kvbm
