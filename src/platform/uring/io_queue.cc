#include "platform/uring/io_queue.h"

#include <string>

namespace kvbm {
namespace {

Result<void> check_aligned(const char* what, std::uint64_t value, const File& file) {
  if (value % file.io_alignment() == 0) return {};
  return Error{ErrorCode::InvalidConfig, 0, value, file.io_alignment(),
               std::string("the ") + what + " of an I/O is no multiple of the unit of " +
                   file.description()};
}

}  // namespace

std::size_t IoRequest::bytes() const noexcept {
  std::size_t bytes = 0;
  for (const auto& run : memory) bytes += run.size();
  return bytes;
}

Result<void> check_request(const IoRequest& request) {
  const File& file = *request.file;
  std::uint64_t end = 0;
  if (__builtin_add_overflow(request.offset, std::uint64_t{request.bytes()}, &end) ||
      end > file.size()) {
    return Error{ErrorCode::OutOfBounds, 0, end, file.size(), file.description()};
  }
  KVBM_CHECK_OK(check_aligned("offset", request.offset, file));
  for (const auto& run : request.memory) {
    KVBM_CHECK_OK(check_aligned("length", run.size(), file));
    KVBM_CHECK_OK(check_aligned("address", reinterpret_cast<std::uintptr_t>(run.data()), file));
  }
  return {};
}

}  // namespace kvbm
