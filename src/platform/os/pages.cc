#include "platform/os/pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/checked.h"

namespace kvbm {
namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

std::atomic<std::size_t> mapped_by_all{0};

std::size_t machine_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page_bytes > 0
             ? static_cast<std::size_t>(pages) * static_cast<std::size_t>(page_bytes)
             : ~std::size_t{0};
}

// Counts bytes as mapped unless that is more than the machine has.
Result<void> claim(std::size_t bytes) {
  const std::size_t limit = machine_bytes();
  std::size_t mapped = mapped_by_all.load();
  do {
    const std::size_t room = limit - std::min(limit, mapped);
    if (bytes > room) {
      return Error{ErrorCode::AllocationFailed, ENOMEM, bytes, room,
                   "the machine has too little memory for a pool"};
    }
  } while (!mapped_by_all.compare_exchange_weak(mapped, mapped + bytes));
  return {};
}

void* map_anonymous(std::size_t bytes, int extra_flags) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | extra_flags, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

Result<std::unique_ptr<Pages>> Pages::map(std::size_t bytes, Kind kind) {
  const std::size_t unit = kind == Kind::Pinned ? kHugePageBytes : kPageBytes;
  KVBM_TRY(const std::size_t rounded, checked_align_up(bytes, unit, "allocation size"));

  KVBM_CHECK_OK(claim(rounded));
  std::string description = "4 KiB pages";
  void* memory = nullptr;
  if (kind == Kind::Pinned) {
    memory = map_anonymous(rounded, MAP_HUGETLB);
    description = "explicit huge pages";
  }
  if (!memory) {
    memory = map_anonymous(rounded, 0);
    if (!memory) {
      const int error = errno;
      mapped_by_all -= rounded;
      return Error{ErrorCode::AllocationFailed, error, bytes, 0,
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

Pages::~Pages() {
  ::munmap(data_, mapped_bytes_);
  mapped_by_all -= mapped_bytes_;
}

}  // namespace kvbm
