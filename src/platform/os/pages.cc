#include "platform/os/pages.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/checked.h"

namespace kvbm {
namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

void* map_anonymous(std::size_t bytes, int extra_flags) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | extra_flags, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

Result<std::unique_ptr<Pages>> Pages::map(std::size_t bytes, Kind kind) {
  const std::size_t unit = kind == Kind::Pinned ? kHugePageBytes : kPageBytes;
  KVBM_TRY(const std::size_t rounded, checked_align_up(bytes, unit, "allocation size"));

  std::string description = "4 KiB pages";
  void* memory = nullptr;
  if (kind == Kind::Pinned) {
    memory = map_anonymous(rounded, MAP_HUGETLB);
    description = "explicit huge pages";
  }
  if (!memory) {
    memory = map_anonymous(rounded, 0);
    if (!memory) {
      return Error{ErrorCode::AllocationFailed, errno, bytes, 0,
                   "the kernel gave no memory for a pool"};
    }
    const bool huge = kind == Kind::Pinned && ::madvise(memory, rounded, MADV_HUGEPAGE) == 0;
    description = huge ? "transparent huge pages where the kernel finds them" : "4 KiB pages";
  }
  if (kind == Kind::Pinned) {
    // Locked page by page as each is first touched: locking at once would touch them all now.
    if (::mlock2(memory, rounded, MLOCK_ONFAULT) == 0) {
      description += ", locked";
    } else {
      description += std::string(", not locked (") + std::strerror(errno) + ")";
    }
  }
  return std::unique_ptr<Pages>(
      new Pages(static_cast<std::byte*>(memory), rounded, std::move(description)));
}

Pages::~Pages() { ::munmap(data_, mapped_bytes_); }

}  // namespace kvbm
