#include "benchmarks/disk_blocks.h"

#include <fmt/format.h>
#include <liburing.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <latch>
#include <thread>

namespace kvbm::bench {
namespace {

constexpr std::size_t kSampleBytes = std::size_t{320} << 20;  // no divisor, so that samples rotate
constexpr std::size_t kAlignment = 4096;
constexpr std::size_t kBlocksPerTransfer = 16;  // as the tier engine does

// --- plain code for the same work ------------------------------------------------------------

Work blocking_probe(DiskBlocks& blocks, Way way, std::size_t threads) {
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

  void move(DiskBlocks& blocks, Way way, std::uint64_t count) {
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

Work ring_probe(DiskBlocks& blocks, Way way, unsigned depth, std::size_t joined = 1) {
  return {.name = fmt::format("io_uring, depth {}{}", depth,
                              joined == 1 ? "" : fmt::format(", {} blocks a request", joined)),
          .run = [&blocks, way, ring = std::make_shared<BareRing>(depth, joined)](
                     std::uint64_t count) { ring->move(blocks, way, count); }};
}

std::string size_text(std::size_t block_bytes) {
  const std::size_t kib = block_bytes >> 10;
  return kib < 1024 ? fmt::format("{}k", kib) : fmt::format("{}m", kib >> 10);
}

}  // namespace

void FirstError::note(const Error& error) {
  MutexLock lock(mutex_);
  if (result_) result_ = error;
}

void FirstError::note_errno(int error, const char* what) {
  note(Error{ErrorCode::OperationFailed, error, 0, 0, std::string("the probe's ") + what});
}

Result<void> FirstError::result() {
  MutexLock lock(mutex_);
  return result_;
}

std::vector<BlockId> DiskBlocks::sample(std::uint64_t blocks) {
  std::vector<BlockId> ids(blocks);
  for (BlockId& id : ids) {
    id = next;
    next = static_cast<BlockId>((next + 1) % count());
  }
  return ids;
}

Result<PinnedStorage> make_memory() {
  KVBM_TRY(PinnedStorage memory, PinnedAllocator().allocate(kDiskBytes + kAlignment));
  for (std::size_t i = 0; i < kDiskBytes; i += sizeof i) {
    std::memcpy(memory.as_mut_ptr() + i, &i, sizeof i);
  }
  return memory;
}

LayoutConfig disk_layout_config(std::size_t block_bytes) {
  constexpr std::size_t kLayers = 32;
  constexpr std::size_t kTokens = 16;
  return {.num_blocks = kDiskBytes / block_bytes,
          .num_layers = kLayers,
          .outer_dim = 2,
          .page_size = kTokens,
          .inner_dim = block_bytes / kLayers / 2 / kTokens / 2,
          .dtype = DType::FP16,
          .alignment = kAlignment};
}

Result<void> make_blocks(DiskBlocks& blocks, std::size_t block_bytes, const PinnedStorage& memory,
                         std::shared_ptr<detail::Memory> file) {
  const LayoutConfig config = disk_layout_config(block_bytes);
  constexpr auto kType = LayoutType::FullyContiguous;
  blocks.block_bytes = block_bytes;
  KVBM_TRY(blocks.memory, Layout::create(kType, config, {memory.memory()}));
  KVBM_TRY(blocks.disk, Layout::create(kType, config, {std::move(file)}));
  KVBM_TRY(blocks.write, CopyPlan::create(blocks.memory, blocks.disk));
  KVBM_TRY(blocks.read, CopyPlan::create(blocks.disk, blocks.memory));
  for (BlockId id = 0; id < config.num_blocks; ++id) {
    KVBM_TRY(const std::uint64_t sum, sum_block(*blocks.memory, id));
    blocks.sums.push_back(sum);
  }
  return {};
}

Result<std::unique_ptr<FileExecutor>> make_executor(File& file) {
  return FileExecutor::create(
      [&file] { return create_probed_uring_queue(FileExecutor::kDepth, file); });
}

void transfer(FileExecutor& executor, DiskBlocks& blocks, Way way, std::uint64_t count,
              BlockJournal* journal) {
  std::vector<TransferRequest> requests;
  for (const BlockId id : blocks.sample(count)) {
    if (requests.empty() || requests.back().blocks.size() == kBlocksPerTransfer) {
      requests.push_back({.plan = way == Way::Write ? blocks.write : blocks.read,
                          .blocks = {},
                          .journal = journal});
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

Result<std::vector<Row>> rate_rows(const std::vector<Mover>& movers, FileExecutor& executor,
                                   DiskBlocks& blocks, Way way) {
  const std::string size = size_text(blocks.block_bytes);
  std::vector<Work> works;
  for (const Mover& mover : movers) {
    works.push_back(
        {.name = fmt::format("{}{}_{}", mover.prefix, way == Way::Write ? "write" : "read", size),
         .run = [&executor, &blocks, way, journal = mover.journal](std::uint64_t count) {
           transfer(executor, blocks, way, count, journal);
         }});
  }
  for (const std::size_t threads : {1u, 4u, 16u})
    works.push_back(blocking_probe(blocks, way, threads));
  for (const unsigned depth : {8u, 32u}) works.push_back(ring_probe(blocks, way, depth));
  const std::size_t joined = FileExecutor::kJoinedBytes / blocks.block_bytes;
  if (joined > 1) works.push_back(ring_probe(blocks, way, FileExecutor::kDepth, joined));
  for (Work& work : works) work.operations = kSampleBytes / blocks.block_bytes;
  const std::vector<Timing> timings = interleave(works, {.count = kDiskRounds});
  KVBM_CHECK_OK(blocks.error.result());

  const auto rate = [&](std::size_t i) {  // bytes per ns are GB per s
    return static_cast<double>(blocks.block_bytes) / timings[i].ns;
  };
  std::vector<Row> rows;
  for (std::size_t i = 0; i < movers.size(); ++i) {
    rows.push_back({.name = works[i].name,
                    .value = rate(i),
                    .unit = "GB/s",
                    .better = Better::Higher,
                    .n = timings[i].operations,
                    .aim = movers[i].aim});
    for (std::size_t j = movers.size(); j < works.size(); ++j) {
      rows.back().probes.push_back({works[j].name, rate(j)});
    }
  }
  return rows;
}

}  // namespace kvbm::bench
