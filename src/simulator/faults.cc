#include "simulator/faults.h"

namespace kvbm::simulator {

const char* to_string(FaultKind kind) noexcept {
  switch (kind) {
    case FaultKind::Error: return "error";
    case FaultKind::Short: return "short";
    case FaultKind::Late: return "late";
    case FaultKind::Never: return "never";
    case FaultKind::WrongBytes: return "wrong_bytes";
    case FaultKind::DiskFull: return "disk_full";
    case FaultKind::Cancel: return "cancel";
    case FaultKind::Reset: return "reset";
    case FaultKind::Crash: return "crash";
    case FaultKind::DeadClient: return "dead_client";
    case FaultKind::SlowConsumer: return "slow_consumer";
  }
  return "unknown";
}

bool exists(FaultKind kind, std::size_t edge) noexcept {
  switch (kind) {
    case FaultKind::DeadClient:
    case FaultKind::SlowConsumer: return edge == kNoEdge;
    case FaultKind::DiskFull: return edge == static_cast<std::size_t>(Edge::HostToDisk);
    default: return edge != kNoEdge;
  }
}

}  // namespace kvbm::simulator
