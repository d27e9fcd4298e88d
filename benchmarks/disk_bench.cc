#include "benchmarks/disk_bench.h"

#include <fmt/format.h>
#include <liburing.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <latch>
#include <memory>
#include <thread>

#include "base/mutex.h"
#include "physical/transfer/file_executor.h"

namespace kvbm::bench {
namespace {

constexpr std::size_t kBytes = std::size_t{768}
                               << 20;  // of memory and of the file, more than caches
constexpr std::size_t kSampleBytes = std::size_t{320} << 20;  // no divisor, so that samples rotate
constexpr std::size_t kRounds = 9;
constexpr std::size_t kAlignment = 4096;
constexpr std::size_t kBlocksPerTransfer = 16;  // as the tier engine does

enum class Way : std::uint8_t { Write, Read };

// The first error of works that run in turns and cannot return one.
class FirstError {
 public:
  void note(const Error& error) {
    MutexLock lock(mutex_);
    if (result_) result_ = error;
  }
  void note_errno(int error, const char* what) {
    note(Error{ErrorCode::OperationFailed, error, 0, 0, std::string("the probe's ") + what});
  }
  Result<void> result() {
    MutexLock lock(mutex_);
    return result_;
  }

 private:
  Mutex mutex_;
  Result<void> result_ KVBM_GUARDED_BY(mutex_);
};

// Block i of the memory and block i of the file hold the same bytes, so anything may be written and
// read back in any order.
struct Blocks {
  std::shared_ptr<const Layout> memory;
  std::shared_ptr<const Layout> disk;
  std::shared_ptr<const CopyPlan> write;
  std::shared_ptr<const CopyPlan> read;
  std::size_t block_bytes = 0;
  std::vector<std::uint64_t> sums;
  BlockId next = 0;  // where the next sample begins
  FirstError error;

  std::size_t count() const { return sums.size(); }
  std::byte* in_memory(BlockId id) const { return memory->extent(id).data(); }
  off_t in_file(BlockId id) const { return static_cast<off_t>(disk->extent(id).offset); }
  int descriptor() const { return disk->memory(0).file()->descriptor(); }

  // The next so many blocks, round and round.
  std::vector<BlockId> sample(std::uint64_t blocks) {
    std::vector<BlockId> ids(blocks);
    for (BlockId& id : ids) {
      id = next;
      next = static_cast<BlockId>((next + 1) % count());
    }
    return ids;
  }
};

Result<void> make_blocks(Blocks& blocks, std::size_t block_bytes, const PinnedStorage& memory,
                         const DiskStorage& disk) {
  constexpr std::size_t kLayers = 32;
  constexpr std::size_t kTokens = 16;
  const LayoutConfig config{.num_blocks = kBytes / block_bytes,
                            .num_layers = kLayers,
                            .outer_dim = 2,
                            .page_size = kTokens,
                            .inner_dim = block_bytes / kLayers / 2 / kTokens / 2,
                            .dtype = DType::FP16,
                            .alignment = kAlignment};
  constexpr auto kType = LayoutType::FullyContiguous;
  blocks.block_bytes = block_bytes;
  KVBM_TRY(blocks.memory, Layout::create(kType, config, {memory.memory()}));
  KVBM_TRY(blocks.disk, Layout::create(kType, config, {disk.memory()}));
  KVBM_TRY(blocks.write, CopyPlan::create(blocks.memory, blocks.disk));
  KVBM_TRY(blocks.read, CopyPlan::create(blocks.disk, blocks.memory));
  for (BlockId id = 0; id < config.num_blocks; ++id) {
    KVBM_TRY(const std::uint64_t sum, sum_block(*blocks.memory, id));
    blocks.sums.push_back(sum);
  }
  return {};
}

// --- what is measured ------------------------------------------------------------------------

void transfer(FileExecutor& executor, Blocks& blocks, Way way, std::uint64_t count) {
  std::vector<TransferRequest> requests;
  for (const BlockId id : blocks.sample(count)) {
    if (requests.empty() || requests.back().blocks.size() == kBlocksPerTransfer) {
      requests.push_back({.plan = way == Way::Write ? blocks.write : blocks.read,
                          .blocks = {},
                          .priority = TransferPriority::Onboard});
    }
    requests.back().blocks.push_back({id, id, blocks.sums[id]});
  }
  std::latch ended(static_cast<std::ptrdiff_t>(requests.size()));
  for (TransferRequest& request : requests) {
    executor.submit(std::move(request), [&](TransferResult result) {
      for (const auto& block : result.blocks) {
        if (!block) blocks.error.note(block.error());
      }
      ended.count_down();
    });
  }
  ended.wait();
}

// --- plain code for the same work ------------------------------------------------------------

Work blocking_probe(Blocks& blocks, Way way, std::size_t threads) {
  const char* const call = way == Way::Write ? "pwrite" : "pread";
  const auto run = [&blocks, way, threads, call](std::uint64_t count) {
    const std::vector<BlockId> ids = blocks.sample(count);
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
      for (std::size_t i = next++; i < ids.size(); i = next++) {
        std::byte* const memory = blocks.in_memory(ids[i]);
        const off_t offset = blocks.in_file(ids[i]);
        const ssize_t moved =
            way == Way::Write ? ::pwrite(blocks.descriptor(), memory, blocks.block_bytes, offset)
                              : ::pread(blocks.descriptor(), memory, blocks.block_bytes, offset);
        if (moved != static_cast<ssize_t>(blocks.block_bytes)) blocks.error.note_errno(errno, call);
      }
    };
    std::vector<std::jthread> others;
    for (std::size_t i = 1; i < threads; ++i) others.emplace_back(work);
    work();
  };
  return {.name = fmt::format("{}, {} thread{}", call, threads, threads == 1 ? "" : "s"),
          .run = run};
}

// A ring of the benchmark's own. One request moves so many blocks that lie behind each other.
class BareRing {
 public:
  BareRing(unsigned depth, std::size_t blocks) : depth_(depth), blocks_(blocks) {
    made_ =
        io_uring_queue_init(depth, &ring_, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if (made_ == -EINVAL) made_ = io_uring_queue_init(depth, &ring_, 0);
  }
  ~BareRing() {
    if (made_ == 0) io_uring_queue_exit(&ring_);
  }
  BareRing(const BareRing&) = delete;
  BareRing& operator=(const BareRing&) = delete;

  void move(Blocks& blocks, Way way, std::uint64_t count) {
    if (made_ != 0) return blocks.error.note_errno(-made_, "io_uring_setup");
    const std::vector<std::vector<BlockId>> requests = cut(blocks.sample(count));
    std::vector<std::vector<iovec>> runs(requests.size());
    std::size_t begun = 0;
    for (std::size_t ended = 0; ended < requests.size();) {
      for (; begun < requests.size() && begun - ended < depth_; ++begun) {
        for (const BlockId id : requests[begun]) {
          runs[begun].push_back({blocks.in_memory(id), blocks.block_bytes});
        }
        const off_t offset = blocks.in_file(requests[begun].front());
        prepare(runs[begun], blocks.descriptor(), way, static_cast<std::uint64_t>(offset), begun);
      }
      io_uring_submit_and_wait(&ring_, 1);
      io_uring_cqe* done = nullptr;
      while (io_uring_peek_cqe(&ring_, &done) == 0) {
        const std::size_t bytes =
            requests[io_uring_cqe_get_data64(done)].size() * blocks.block_bytes;
        if (done->res != static_cast<int>(bytes)) blocks.error.note_errno(-done->res, "io_uring");
        io_uring_cqe_seen(&ring_, done);
        ++ended;
      }
    }
  }

 private:
  std::vector<std::vector<BlockId>> cut(const std::vector<BlockId>& ids) const {
    std::vector<std::vector<BlockId>> requests;
    for (const BlockId id : ids) {
      const bool joins =
          !requests.empty() && requests.back().size() < blocks_ && requests.back().back() + 1 == id;
      if (!joins) requests.emplace_back();
      requests.back().push_back(id);
    }
    return requests;
  }

  void prepare(const std::vector<iovec>& runs, int file, Way way, std::uint64_t offset,
               std::uint64_t tag) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    const auto bytes = static_cast<unsigned>(runs.front().iov_len);
    const auto count = static_cast<unsigned>(runs.size());
    if (count == 1 && way == Way::Write) {
      io_uring_prep_write(entry, file, runs.front().iov_base, bytes, offset);
    } else if (count == 1) {
      io_uring_prep_read(entry, file, runs.front().iov_base, bytes, offset);
    } else if (way == Way::Write) {
      io_uring_prep_writev(entry, file, runs.data(), count, offset);
    } else {
      io_uring_prep_readv(entry, file, runs.data(), count, offset);
    }
    io_uring_sqe_set_data64(entry, tag);
  }

  unsigned depth_;
  std::size_t blocks_;
  io_uring ring_{};
  int made_;
};

Work ring_probe(Blocks& blocks, Way way, unsigned depth, std::size_t joined = 1) {
  return {.name = fmt::format("io_uring, depth {}{}", depth,
                              joined == 1 ? "" : fmt::format(", {} blocks a request", joined)),
          .run = [&blocks, way, ring = std::make_shared<BareRing>(depth, joined)](
                     std::uint64_t count) { ring->move(blocks, way, count); }};
}

// ---------------------------------------------------------------------------------------------

Result<Row> row_of(FileExecutor& executor, Blocks& blocks, Way way, std::string aim) {
  const std::size_t kib = blocks.block_bytes >> 10;
  const std::string size = kib < 1024 ? fmt::format("{}k", kib) : fmt::format("{}m", kib >> 10);
  const std::string name = fmt::format("disk_{}_{}", way == Way::Write ? "write" : "read", size);
  std::vector<Work> works = {
      {.name = name, .run = [&](std::uint64_t count) { transfer(executor, blocks, way, count); }},
      blocking_probe(blocks, way, 1),
      blocking_probe(blocks, way, 4),
      blocking_probe(blocks, way, 16),
      ring_probe(blocks, way, 8),
      ring_probe(blocks, way, 32)};
  const std::size_t joined = FileExecutor::kJoinedBytes / blocks.block_bytes;
  if (joined > 1) works.push_back(ring_probe(blocks, way, 32, joined));
  for (Work& work : works) work.operations = kSampleBytes / blocks.block_bytes;
  const std::vector<Timing> timings = interleave(works, {.count = kRounds});
  KVBM_CHECK_OK(blocks.error.result());

  const auto rate = [&](const Timing& timing) {  // bytes per ns are GB per s
    return static_cast<double>(blocks.block_bytes) / timing.ns;
  };
  Row row{.name = name,
          .value = rate(timings[0]),
          .unit = "GB/s",
          .better = Better::Higher,
          .n = timings[0].operations,
          .aim = std::move(aim)};
  for (std::size_t i = 1; i < works.size(); ++i) {
    row.probes.push_back({works[i].name, rate(timings[i])});
  }
  return row;
}

}  // namespace

Result<Report> disk_bench(const Options& options) {
  KVBM_TRY(const DiskStorage disk, DiskAllocator(options.dir).allocate(kBytes));
  KVBM_TRY(PinnedStorage memory, PinnedAllocator().allocate(kBytes + kAlignment));
  for (std::size_t i = 0; i < kBytes; i += sizeof i) {
    std::memcpy(memory.as_mut_ptr() + i, &i, sizeof i);
  }
  File& file = *disk.memory()->file();
  KVBM_TRY(const auto executor, FileExecutor::create([&] {
             return create_probed_uring_queue(FileExecutor::kDepth, file);
           }));

  Report report;
  struct Size {
    std::size_t block_bytes;
    const char* write_aim;
    const char* read_aim;
  };
  constexpr Size kSizes[] = {{std::size_t{1} << 20, "ratio >= 0.95", "ratio >= 0.95"},
                             {std::size_t{4} << 20, "ratio >= 0.95", "ratio >= 0.93"},
                             {std::size_t{256} << 10, "ratio >= 0.90", "ratio >= 0.90"}};
  for (const Size& size : kSizes) {
    Blocks blocks;
    KVBM_CHECK_OK(make_blocks(blocks, size.block_bytes, memory, disk));
    // Reads of what was only reserved would touch no disk.
    if (&size == kSizes) transfer(*executor, blocks, Way::Write, blocks.count());
    KVBM_TRY(Row write, row_of(*executor, blocks, Way::Write, size.write_aim));
    KVBM_TRY(Row read, row_of(*executor, blocks, Way::Read, size.read_aim));
    report.rows.push_back(std::move(write));
    report.rows.push_back(std::move(read));
  }
  return report;
}

}  // namespace kvbm::bench
