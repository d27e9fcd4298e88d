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

Result<void> check_request(const IoRequest& request) {
  const File& file = *request.file;
  std::uint64_t end = 0;
  if (__builtin_add_overflow(request.offset, std::uint64_t{request.bytes.size()}, &end) ||
      end > file.size()) {
    return Error{ErrorCode::OutOfBounds, 0, end, file.size(), file.description()};
  }
  KVBM_CHECK_OK(check_aligned("offset", request.offset, file));
  KVBM_CHECK_OK(check_aligned("length", request.bytes.size(), file));
  return check_aligned("address", reinterpret_cast<std::uintptr_t>(request.bytes.data()), file);
}

}  // namespace kvbm
