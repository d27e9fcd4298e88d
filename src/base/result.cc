#include "kvbm/result.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace kvbm {

const char* to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::BlockNotComplete: return "BlockNotComplete";
    case ErrorCode::NotEnoughBlocksAvailable: return "NotEnoughBlocksAvailable";
    case ErrorCode::InvalidMutableBlock: return "InvalidMutableBlock";
    case ErrorCode::FailedToRegisterBlock: return "FailedToRegisterBlock";
    case ErrorCode::ProgressEngineShutdown: return "ProgressEngineShutdown";
    case ErrorCode::InvalidBlockIndex: return "InvalidBlockIndex";
    case ErrorCode::InvalidLayerIndex: return "InvalidLayerIndex";
    case ErrorCode::InvalidOuterIndex: return "InvalidOuterIndex";
    case ErrorCode::ViewsNotAvailableOnLogicalBlocks: return "ViewsNotAvailableOnLogicalBlocks";
    case ErrorCode::AllocationFailed: return "AllocationFailed";
    case ErrorCode::NotAccessible: return "NotAccessible";
    case ErrorCode::InvalidConfig: return "InvalidConfig";
    case ErrorCode::OperationFailed: return "OperationFailed";
    case ErrorCode::OutOfBounds: return "OutOfBounds";
    case ErrorCode::Cuda: return "Cuda";
    case ErrorCode::RegistrationKeyExists: return "RegistrationKeyExists";
    case ErrorCode::HandleNotFound: return "HandleNotFound";
    case ErrorCode::NixlError: return "NixlError";
    case ErrorCode::Full: return "Full";
    case ErrorCode::Incomplete: return "Incomplete";
    case ErrorCode::Empty: return "Empty";
    case ErrorCode::InsufficientTokens: return "InsufficientTokens";
    case ErrorCode::ChecksumMismatch: return "ChecksumMismatch";
    case ErrorCode::TimedOut: return "TimedOut";
    case ErrorCode::Cancelled: return "Cancelled";
    case ErrorCode::SourceGone: return "SourceGone";
    case ErrorCode::PlanExpired: return "PlanExpired";
    case ErrorCode::QueueFull: return "QueueFull";
    case ErrorCode::NotAdmitted: return "NotAdmitted";
    case ErrorCode::CheaperToCompute: return "CheaperToCompute";
  }
  return "unknown";
}

std::string Error::to_string() const {
  std::string text = kvbm::to_string(code);
  if (!message.empty()) text += ": " + message;
  if (requested != 0 || available != 0) {
    text += " (requested " + std::to_string(requested) + ", available " +
            std::to_string(available) + ")";
  }
  if (native != 0 && (code == ErrorCode::Cuda || code == ErrorCode::NixlError)) {
    text += " [" + std::to_string(native) + "]";  // not an errno
  } else if (native != 0) {
    text += " [" + std::to_string(native) + ": " + std::strerror(native) + "]";
  }
  return text;
}

namespace detail {

void die_on_bad_access(const Error& error) noexcept {
  std::fprintf(stderr, "kvbm: value() called on an error: %s\n", error.to_string().c_str());
  std::abort();
}

}  // namespace detail
}  // namespace kvbm
