#include "platform/os/page_filler.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

namespace kvbm {
namespace {

// Memory that the machine has not used since it started may come at 0.2 GB/s: 20 ms for the first
// piece. Later ones grow, because each costs a call and a lock.
constexpr std::size_t kFirstPiece = std::size_t{4} << 20;
constexpr std::size_t kLargestPiece = std::size_t{64} << 20;
constexpr std::size_t kPageBytes = 4096;

#ifdef MADV_POPULATE_WRITE
constexpr int kPopulate = MADV_POPULATE_WRITE;
#else
constexpr int kPopulate = 23;  // the headers are older than the kernel
#endif

// Linux knows the advice since 5.14. The same answer may mean another thing about other memory, so
// it is asked about memory of which nothing else can be said.
bool kernel_can_populate() {
  void* page =
      ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return true;
  const bool can = ::madvise(page, kPageBytes, kPopulate) == 0 || errno != EINVAL;
  ::munmap(page, kPageBytes);
  return can;
}

// errno, or 0.
int populate(std::byte* begin, std::size_t bytes) {
  static const bool can_populate = kernel_can_populate();
  if (can_populate) {
    while (::madvise(begin, bytes, kPopulate) != 0) {
      if (errno != EINTR && errno != EAGAIN) return errno;
    }
    return 0;
  }
  for (std::size_t at = 0; at < bytes; at += kPageBytes) {
    // Reads and writes back: the owner may have written there.
    std::atomic_ref<std::uint8_t>(reinterpret_cast<std::uint8_t&>(begin[at])).fetch_add(0);
  }
  return 0;
}

}  // namespace

Result<std::unique_ptr<PageFiller>> PageFiller::start(std::span<std::byte> memory,
                                                      Options options) {
  std::unique_ptr<PageFiller> filler(new PageFiller(memory, std::move(options)));
  KVBM_CHECK_OK(filler->fill_piece(kFirstPiece));
  if (filler->ready_bytes() == memory.size()) {
    MutexLock lock(filler->mutex_);
    filler->ended_ = true;
    return filler;
  }
  try {
    filler->thread_ =
        std::jthread([raw = filler.get()](std::stop_token stop) { raw->run(std::move(stop)); });
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), 1, 0,
                 "the system gives no more threads"};
  }
  return filler;
}

PageFiller::~PageFiller() {
  stop();
  if (thread_.joinable()) thread_.join();
}

Result<void> PageFiller::fill_piece(std::size_t bytes) {
  const std::size_t from = ready_bytes();
  std::byte* const begin = memory_.data() + from;
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const std::size_t unit = options_.unit_bytes;
  const std::size_t past_unit = (address + bytes) % unit;
  const std::size_t whole = past_unit == 0 ? bytes : bytes + unit - past_unit;
  const std::size_t piece = std::min(whole, memory_.size() - from);
  // From the page's border: the piece before may have ended within one.
  const std::size_t before = address % kPageBytes;
  if (const int error = populate(begin - before, piece + before)) {
    return Error{ErrorCode::AllocationFailed, error, memory_.size(), from,
                 "the kernel has no more pages for a pool"};
  }
  if (options_.prepare) KVBM_CHECK_OK(options_.prepare({begin, piece}));
  ready_bytes_.store(from + piece, std::memory_order_release);
  return {};
}

void PageFiller::run(std::stop_token stop) {
  Result<void> filled;
  for (std::size_t piece = kFirstPiece; ready_bytes() < memory_.size() && !stop.stop_requested();
       piece = std::min(2 * piece, kLargestPiece)) {
    filled = fill_piece(piece);
    if (!filled) break;
    if (options_.ready) options_.ready(ready_bytes());
  }
  {
    MutexLock lock(mutex_);
    if (!filled) {
      failure_ = std::move(filled).error();
    } else if (ready_bytes() < memory_.size()) {
      failure_ = Error{ErrorCode::ProgressEngineShutdown, 0, memory_.size(), ready_bytes(), {}};
    }
    ended_ = true;
  }
  changed_.notify_all();
}

Result<void> PageFiller::wait(std::chrono::nanoseconds timeout) const {
  const auto now = std::chrono::steady_clock::now();
  const auto deadline = timeout < std::chrono::steady_clock::time_point::max() - now
                            ? now + timeout
                            : std::chrono::steady_clock::time_point::max();
  MutexLock lock(mutex_);
  while (!ended_) {
    if (deadline == std::chrono::steady_clock::time_point::max()) {
      changed_.wait(mutex_);
    } else if (changed_.wait_until(mutex_, deadline) == std::cv_status::timeout && !ended_) {
      return Error{ErrorCode::TimedOut, 0, memory_.size(), ready_bytes(),
                   "the memory of a pool is not all there yet"};
    }
  }
  if (failure_) return *failure_;
  return {};
}

}  // namespace kvbm
