#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "platform/uring/io_queue.h"

namespace kvbm {
namespace {

constexpr std::size_t kMaxDepth = 4096;
// The kernel moves less than 2 GiB in one request.
constexpr std::size_t kMaxPiece = std::size_t{1} << 30;
// A file system that asks for ever to try again is broken.
constexpr int kMaxTries = 16;
constexpr std::uint64_t kWakeTag = ~std::uint64_t{0};  // no slot

class Ring {
 public:
  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() {
    if (event_ >= 0) ::close(event_);
    if (made_) io_uring_queue_exit(&ring_);
  }

  Result<void> create(std::size_t depth) {
    const auto entries = static_cast<unsigned>(depth + 1);  // one more for the wake
    // One thread does everything, so completions need not interrupt it: they wait for its call.
    int failed = io_uring_queue_init(entries, &ring_,
                                     IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if (failed == -EINVAL) failed = io_uring_queue_init(entries, &ring_, 0);  // before Linux 6.1
    if (failed != 0) return refused(-failed);
    made_ = true;
    io_uring_probe* const probe = io_uring_get_probe_ring(&ring_);
    const bool able = probe && io_uring_opcode_supported(probe, IORING_OP_READ) &&
                      io_uring_opcode_supported(probe, IORING_OP_WRITE);
    if (probe) io_uring_free_probe(probe);
    if (!able) return refused(EOPNOTSUPP);
    event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return event_ >= 0 ? Result<void>() : refused(errno);
  }

  io_uring* get() noexcept { return &ring_; }
  int event() const noexcept { return event_; }

 private:
  static Result<void> refused(int error) {
    return Error{ErrorCode::OperationFailed, error, 0, 0, "the system gives no io_uring"};
  }

  io_uring ring_{};
  bool made_ = false;
  int event_ = -1;
};

class UringQueue final : public IoQueue {
 public:
  UringQueue(std::unique_ptr<Ring> ring, std::size_t depth)
      : IoQueue(depth, "io_uring, " + std::to_string(depth) + " requests deep"),
        ring_(std::move(ring)),
        slots_(depth) {
    for (std::size_t i = depth; i > 0; --i) free_.push_back(static_cast<std::uint32_t>(i - 1));
  }

  ~UringQueue() override {
    ready_.clear();
    std::vector<IoDone> ignored;
    while (in_kernel_ > 0) {
      enter(Wait::ForOne);
      reap(ignored);
      ready_.clear();  // the rest of a request that was moved in part
    }
  }

  void push(IoRequest request) override {
    ++in_flight_;
    if (auto valid = check_request(request); !valid) {
      refused_.push_back({request.tag, std::move(valid)});
      return;
    }
    const std::uint32_t index = free_.back();
    free_.pop_back();
    Slot& slot = slots_[index];
    slot.request = std::move(request);
    slot.bytes = slot.request.bytes();
    slot.moved = 0;
    slot.tries = 0;
    ready_.push_back(index);
  }

  void poll(Wait wait, std::vector<IoDone>& done) override {
    const std::size_t before = done.size();
    in_flight_ -= refused_.size();
    std::ranges::move(refused_, std::back_inserter(done));
    refused_.clear();
    const bool waits = wait == Wait::ForOne;
    const auto satisfied = [&] { return woken_ || done.size() > before; };
    do {
      enter(waits && !satisfied() ? Wait::ForOne : Wait::No);
      reap(done);
    } while (waits && !satisfied());
    if (waits) woken_ = false;
  }

  void wake() override {
    const std::uint64_t one = 1;
    // Fails only where the counter is full, and then the event is there.
    [[maybe_unused]] const ssize_t written = ::write(ring_->event(), &one, sizeof one);
  }

 private:
  struct Slot {
    IoRequest request;
    std::size_t bytes = 0;  // of the request
    std::size_t moved = 0;
    int tries = 0;            // that moved nothing
    std::vector<iovec> rest;  // what the kernel is asked for; it looks at the list, too
  };

  // Hands the ready slots to the kernel and collects what it has finished.
  void enter(Wait wait) {
    for (const std::uint32_t slot : ready_) prepare(slot);
    in_kernel_ += ready_.size();
    ready_.clear();
    if (wait == Wait::ForOne && !wake_armed_) {
      io_uring_sqe* const entry = io_uring_get_sqe(ring_->get());
      io_uring_prep_poll_add(entry, ring_->event(), POLLIN);
      io_uring_sqe_set_data64(entry, kWakeTag);
      wake_armed_ = true;
    }
    if (in_kernel_ == 0 && wait == Wait::No) return;
    const int answer = wait == Wait::ForOne ? io_uring_submit_and_wait(ring_->get(), 1)
                                            : io_uring_submit_and_get_events(ring_->get());
    if (answer >= 0 || answer == -EINTR) return;
    if (answer == -EAGAIN || answer == -EBUSY) return std::this_thread::yield();
    // The kernel may hold memory of ours that nobody can get back from it.
    std::fprintf(stderr, "kvbm: io_uring_enter: errno %d\n", -answer);
    std::abort();
  }

  void prepare(std::uint32_t index) {
    Slot& slot = slots_[index];
    set_rest(slot);
    const std::uint64_t offset = slot.request.offset + slot.moved;
    const int file = slot.request.file->descriptor();
    const bool reads = slot.request.op == IoRequest::Op::Read;
    io_uring_sqe* const entry = io_uring_get_sqe(ring_->get());  // there are depth() + 1
    if (slot.rest.size() == 1) {
      const iovec run = slot.rest.front();
      const auto bytes = static_cast<unsigned>(run.iov_len);
      if (reads) {
        io_uring_prep_read(entry, file, run.iov_base, bytes, offset);
      } else {
        io_uring_prep_write(entry, file, run.iov_base, bytes, offset);
      }
    } else {
      const auto runs = static_cast<unsigned>(slot.rest.size());
      if (reads) {
        io_uring_prep_readv(entry, file, slot.rest.data(), runs, offset);
      } else {
        io_uring_prep_writev(entry, file, slot.rest.data(), runs, offset);
      }
    }
    io_uring_sqe_set_data64(entry, index);
  }

  // What has not moved yet, as far as the kernel takes it at once.
  static void set_rest(Slot& slot) {
    slot.rest.clear();
    std::size_t moved = slot.moved;
    std::size_t room = kMaxPiece;
    for (const auto& run : slot.request.memory) {
      const std::span<std::byte> rest = run.subspan(std::min(moved, run.size()));
      moved -= run.size() - rest.size();
      const std::size_t bytes = std::min(rest.size(), room);
      if (bytes > 0) slot.rest.push_back({rest.data(), bytes});
      room -= bytes;
    }
  }

  // Takes in the kernel's answers.
  void reap(std::vector<IoDone>& done) {
    io_uring_cqe* entry = nullptr;
    while (io_uring_peek_cqe(ring_->get(), &entry) == 0) {
      const std::uint64_t tag = io_uring_cqe_get_data64(entry);
      const int answer = entry->res;
      io_uring_cqe_seen(ring_->get(), entry);
      if (tag == kWakeTag) {
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t got = ::read(ring_->event(), &count, sizeof count);
        wake_armed_ = false;
        woken_ = true;
      } else {
        --in_kernel_;
        moved(static_cast<std::uint32_t>(tag), answer, done);
      }
    }
  }

  // `answer`: bytes that the kernel moved for the slot, or -errno.
  void moved(std::uint32_t index, int answer, std::vector<IoDone>& done) {
    Slot& slot = slots_[index];
    const std::size_t wanted = slot.bytes;
    if (answer > 0) {
      slot.moved += static_cast<std::size_t>(answer);
      slot.tries = 0;
    }
    const bool again = (answer == -EINTR || answer == -EAGAIN) && ++slot.tries < kMaxTries;
    if (slot.moved < wanted && (answer > 0 || again)) {
      ready_.push_back(index);
      return;
    }
    Result<void> result;
    if (slot.moved < wanted) {
      const char* const verb = slot.request.op == IoRequest::Op::Read ? "read of " : "write of ";
      result = Error{ErrorCode::OperationFailed, answer < 0 ? -answer : 0, wanted, slot.moved,
                     verb + slot.request.file->description() + " at byte " +
                         std::to_string(slot.request.offset)};
    }
    done.push_back({slot.request.tag, std::move(result)});
    free_.push_back(index);
    --in_flight_;
  }

  const std::unique_ptr<Ring> ring_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;   // slots without a request
  std::vector<std::uint32_t> ready_;  // slots to hand to the kernel
  std::vector<IoDone> refused_;       // that never get there
  std::size_t in_kernel_ = 0;         // slots
  bool wake_armed_ = false;
  bool woken_ = false;  // since the last wait ended
};

}  // namespace

Result<std::unique_ptr<IoQueue>> create_uring_queue(std::size_t depth) {
  if (depth < 1 || depth > kMaxDepth) {
    return Error{ErrorCode::InvalidConfig, 0, depth, kMaxDepth,
                 "the depth of an I/O queue must be 1 .. " + std::to_string(kMaxDepth)};
  }
  auto ring = std::make_unique<Ring>();
  KVBM_CHECK_OK(ring->create(depth));
  return std::unique_ptr<IoQueue>(std::make_unique<UringQueue>(std::move(ring), depth));
}

}  // namespace kvbm
