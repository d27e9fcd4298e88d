#include "platform/os/pages.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

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

// Nodes count from 0. A kernel without NUMA has one.
unsigned node_count() {
  unsigned nodes = 0;
  while (::access(("/sys/devices/system/node/node" + std::to_string(nodes)).c_str(), F_OK) == 0) {
    ++nodes;
  }
  return std::max(nodes, 1u);
}

Result<void> check_node(unsigned node) {
  const unsigned nodes = node_count();
  if (node < nodes) return {};
  return Error{ErrorCode::InvalidConfig, 0, node, nodes,
               "there is no NUMA node " + std::to_string(node) + "; this machine has " +
                   std::to_string(nodes)};
}

// Prefers a node for pages that are touched from now on. Returns what came of it, for people.
std::string bind(void* memory, std::size_t bytes, unsigned node) {
  constexpr int kPreferred = 1;  // MPOL_PREFERRED: another node is better than none
  constexpr unsigned kBits = 8 * sizeof(unsigned long);
  std::array<unsigned long, 1024 / kBits> mask{};
  mask[node / kBits % mask.size()] = 1ul << (node % kBits);
  const std::string text = ", NUMA node " + std::to_string(node);
  if (::syscall(SYS_mbind, memory, bytes, kPreferred, mask.data(), 1024ul + 1, 0u) == 0) {
    return text;
  }
  return text + " wished for (" + std::strerror(errno) + ")";
}

}  // namespace

Result<std::unique_ptr<Pages>> Pages::map(std::size_t bytes, Kind kind,
                                          std::optional<unsigned> numa_node) {
  if (numa_node) KVBM_CHECK_OK(check_node(*numa_node));
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
  if (numa_node) description += bind(memory, rounded, *numa_node);
  return std::unique_ptr<Pages>(
      new Pages(static_cast<std::byte*>(memory), rounded, std::move(description)));
}

Pages::~Pages() {
  ::munmap(data_, mapped_bytes_);
  mapped_by_all -= mapped_bytes_;
}

}  // namespace kvbm
