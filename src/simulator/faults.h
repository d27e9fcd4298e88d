// What the simulator can make go wrong, and where.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kvbm/tiers.h"

namespace kvbm::simulator {

enum class FaultKind : std::uint8_t {
  // of one copy
  Error,       // it fails and has moved nothing
  Short,       // it fails with a part of the target written
  Late,        // it takes long, and may end after everybody has given up
  Never,       // it does not end before the schedule does
  WrongBytes,  // a bit of what was kept is not what was written
  DiskFull,    // the disk takes nothing for a while
  // of everything at once; counted for each edge on which something was moving
  Cancel,  // the caller gives up
  Reset,   // of a tier, a namespace or all
  Crash,   // the process dies and starts again with the disk as it was
  // of those around; on no edge
  DeadClient,    // a plan that nobody comes back for
  SlowConsumer,  // events wait
};
inline constexpr std::size_t kFaultKinds = 11;
inline constexpr std::size_t kCopyFaultKinds = 6;  // the first ones, of one copy
const char* to_string(FaultKind kind) noexcept;    // "error" ...

// On which edge, or on none.
inline constexpr std::size_t kNoEdge = kEdgeCount;
using FaultCounts = std::array<std::array<std::uint64_t, kEdgeCount + 1>, kFaultKinds>;

// Whether there is such a fault there.
bool exists(FaultKind kind, std::size_t edge) noexcept;

}  // namespace kvbm::simulator
