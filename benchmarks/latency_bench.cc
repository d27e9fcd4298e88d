#include "benchmarks/latency_bench.h"

#include <liburing.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <latch>
#include <thread>
#include <utility>

namespace kvbm::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr std::size_t kReads = 1000;  // of one round, each
constexpr std::size_t kRounds = 15;
constexpr double kLoad = 0.9;
constexpr unsigned kDepth = 64;

// When read `i` is due.
class Pace {
 public:
  explicit Pace(Seconds interval) : begin_(Clock::now()), interval_(interval) {}
  Clock::time_point due(std::size_t i) const {
    return begin_ + std::chrono::duration_cast<Clock::duration>(interval_ * static_cast<double>(i));
  }

 private:
  Clock::time_point begin_;
  Seconds interval_;
};

double seconds_since(Clock::time_point begin) { return Seconds(Clock::now() - begin).count(); }

// Seconds of each of the bare reads, one after the other.
std::vector<double> read_alone(DiskBlocks& blocks) {
  std::vector<double> seconds;
  for (const BlockId id : blocks.sample(kReads)) {
    const auto begin = Clock::now();
    const ssize_t got =
        ::pread(blocks.descriptor(), blocks.in_memory(id), blocks.block_bytes, blocks.in_file(id));
    seconds.push_back(seconds_since(begin));
    if (got != static_cast<ssize_t>(blocks.block_bytes)) blocks.error.note_errno(errno, "pread");
  }
  return seconds;
}

// Seconds of each read, from when it was submitted.
std::vector<double> read_at_pace(FileExecutor& executor, DiskBlocks& blocks, BlockJournal* journal,
                                 Seconds interval) {
  std::vector<double> seconds(kReads);
  std::latch ended(kReads);
  const std::vector<BlockId> ids = blocks.sample(kReads);
  const Pace pace(interval);
  for (std::size_t i = 0; i < kReads; ++i) {
    std::this_thread::sleep_until(pace.due(i));
    const auto begin = Clock::now();
    executor.submit({.plan = blocks.read,
                     .blocks = {{ids[i], ids[i], blocks.sums[ids[i]]}},
                     .priority = TransferPriority::Onboard,
                     .journal = journal},
                    [&, i, begin](const TransferResult& result) {
                      const auto& block = result.blocks.front();
                      if (!block) blocks.error.note(block.error());
                      seconds[i] = seconds_since(begin);
                      ended.count_down();
                    });
  }
  ended.wait();
  return seconds;
}

// The same from a ring of its own: what the disk itself takes.
class BareReads {
 public:
  explicit BareReads(DiskBlocks& blocks)
      : blocks_(blocks), made_(io_uring_queue_init(kDepth, &ring_, 0)) {
    if (made_ != 0) blocks.error.note_errno(-made_, "io_uring_setup");
  }
  ~BareReads() {
    if (made_ == 0) io_uring_queue_exit(&ring_);
  }
  BareReads(const BareReads&) = delete;
  BareReads& operator=(const BareReads&) = delete;

  std::vector<double> read_at_pace(Seconds interval) {
    std::vector<double> seconds(kReads);
    if (made_ != 0) return seconds;
    const std::vector<BlockId> ids = blocks_.sample(kReads);
    std::vector<Clock::time_point> begun(kReads);
    const Pace pace(interval);
    std::size_t next = 0;
    for (std::size_t ended = 0; ended < kReads;) {
      while (next < kReads && next - ended < kDepth && Clock::now() >= pace.due(next)) {
        begun[next] = Clock::now();
        submit(ids[next], next);
        ++next;
      }
      wait(next < kReads ? pace.due(next) : Clock::now() + std::chrono::seconds(1));
      io_uring_cqe* done = nullptr;
      while (io_uring_peek_cqe(&ring_, &done) == 0) {
        const auto i = io_uring_cqe_get_data64(done);
        seconds[i] = seconds_since(begun[i]);
        if (done->res != static_cast<int>(blocks_.block_bytes)) {
          blocks_.error.note_errno(-done->res, "io_uring");
        }
        io_uring_cqe_seen(&ring_, done);
        ++ended;
      }
    }
    return seconds;
  }

 private:
  void submit(BlockId id, std::uint64_t tag) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    io_uring_prep_read(entry, blocks_.descriptor(), blocks_.in_memory(id),
                       static_cast<unsigned>(blocks_.block_bytes),
                       static_cast<std::uint64_t>(blocks_.in_file(id)));
    io_uring_sqe_set_data64(entry, tag);
    io_uring_submit(&ring_);
  }
  // For a read to end, until then.
  void wait(Clock::time_point until) {
    const auto left = std::chrono::nanoseconds(until - Clock::now()).count();
    if (left <= 0) return;
    __kernel_timespec time{left / 1'000'000'000, left % 1'000'000'000};
    io_uring_cqe* done = nullptr;
    io_uring_wait_cqe_timeout(&ring_, &done, &time);
  }

  DiskBlocks& blocks_;
  io_uring ring_{};
  const int made_;
};

}  // namespace

Result<std::vector<Row>> latency_rows(FileExecutor& executor, DiskBlocks& blocks,
                                      BlockJournal* journal) {
  ::prctl(PR_SET_TIMERSLACK, 1);  // or sleeps end 50 us late
  BareReads bare(blocks);
  std::vector<double> ours;
  std::vector<double> plain;
  for (std::size_t round = 0; round < kRounds; ++round) {
    const double unit = quantile(read_alone(blocks), 0.5);
    const auto begin = Clock::now();
    transfer(executor, blocks, Way::Read, kReads, journal);
    const Seconds interval(seconds_since(begin) / kReads / kLoad);
    ours.push_back(quantile(read_at_pace(executor, blocks, journal, interval), 0.99) / unit);
    plain.push_back(quantile(bare.read_at_pace(interval), 0.99) / unit);
  }
  KVBM_CHECK_OK(blocks.error.result());
  const auto row = [](const char* name, std::vector<double> ratios, const char* aim) {
    return Row{.name = name,
               .value = median(std::move(ratios)),
               .unit = "x",
               .n = kReads * kRounds,
               .aim = aim};
  };
  return std::vector<Row>{row("read_latency_1m_p99_ratio", std::move(ours), "<= 4"),
                          row("raw_read_latency_1m_p99_ratio", std::move(plain), "")};
}

}  // namespace kvbm::bench
