#include "benchmarks/store_bench.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <iterator>
#include <latch>
#include <thread>

#include "benchmarks/disk_blocks.h"
#include "benchmarks/restore_bench.h"
#include "benchmarks/store_fixture.h"

namespace kvbm::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kReads = 2000;  // of one round of latencies
constexpr double kLoad = 0.9;         // of the rate that was measured just before

// Blocks in a store, each with a name, so that the store has a record to write for it.
struct StoredBlocks {
  explicit StoredBlocks(TemporaryFolder made) : folder(std::move(made)) {}

  TemporaryFolder folder;  // goes last
  DiskBlocks blocks;
  std::shared_ptr<detail::TierPool> pool;
  std::vector<detail::CompleteHold> named;
  std::unique_ptr<FileExecutor> executor;

  BlockJournal* journal() const { return pool->disk(); }
};

Result<std::unique_ptr<StoredBlocks>> store_blocks(std::size_t block_bytes,
                                                   const PinnedStorage& memory,
                                                   const Options& options) {
  KVBM_TRY(auto folder, TemporaryFolder::create(options.dir));
  auto stored = std::make_unique<StoredBlocks>(std::move(folder));
  const LayoutConfig config = disk_layout_config(block_bytes);
  KVBM_TRY(const auto shape,
           Layout::create(LayoutType::FullyContiguous, config, {memory.memory()}));
  KVBM_TRY(stored->pool, open_tier(stored->folder.path(), shape->content(), config));
  stored->named = name_all(*stored->pool, config.num_blocks, options.seed);
  DiskBlocks& blocks = stored->blocks;
  KVBM_CHECK_OK(make_blocks(blocks, block_bytes, memory, stored->pool->disk()->memory()));
  KVBM_TRY(stored->executor, make_executor(*blocks.disk->memory(0).file()));
  // Reads of what was only reserved would touch no disk.
  transfer(*stored->executor, blocks, Way::Write, blocks.count(), stored->journal());
  KVBM_CHECK_OK(blocks.error.result());
  return stored;
}

// --- how long a read takes while the disk is busy --------------------------------------------

double quantile(std::vector<double> values, double share) {
  const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size()));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

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

// Seconds of each read through the store, where one begins after each `interval` whether or not the
// ones before have ended.
std::vector<double> read_at_a_pace(StoredBlocks& stored, Clock::duration interval) {
  DiskBlocks& blocks = stored.blocks;
  std::vector<double> seconds(kReads);
  std::latch ended(kReads);
  const std::vector<BlockId> ids = blocks.sample(kReads);
  auto due = Clock::now();
  for (std::size_t i = 0; i < kReads; ++i, due += interval) {
    std::this_thread::sleep_until(due);
    const auto begin = Clock::now();
    stored.executor->submit({.plan = blocks.read,
                             .blocks = {{ids[i], ids[i], blocks.sums[ids[i]]}},
                             .priority = TransferPriority::Onboard,
                             .journal = stored.journal()},
                            [&, i, begin](const TransferResult& result) {
                              if (!result.blocks.front()) {
                                blocks.error.note(result.blocks.front().error());
                              }
                              seconds[i] = seconds_since(begin);
                              ended.count_down();
                            });
  }
  ended.wait();
  return seconds;
}

Result<Row> latency_row(StoredBlocks& stored) {
  ::prctl(PR_SET_TIMERSLACK, 1);
  std::vector<double> loaded;
  std::vector<double> alone;
  for (std::size_t round = 0; round < kDiskRounds; ++round) {
    const std::vector<double> bare = read_alone(stored.blocks);
    const auto begin = Clock::now();
    transfer(*stored.executor, stored.blocks, Way::Read, kReads, stored.journal());
    const double interval = seconds_since(begin) / kReads / kLoad;
    const std::vector<double> paced = read_at_a_pace(
        stored,
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(interval)));
    const double unit = quantile(bare, 0.5);
    alone.push_back(quantile(bare, 0.99) / unit);
    loaded.push_back(quantile(paced, 0.99) / unit);
  }
  KVBM_CHECK_OK(stored.blocks.error.result());
  return Row{.name = "read_latency_1m_p99_ratio",
             .value = median(loaded),
             .unit = "x",
             .n = kReads * kDiskRounds,
             .aim = "<= 4",
             .probes = {{"pread alone, median", 1}, {"pread alone, p99", median(alone)}}};
}

}  // namespace

Result<Report> store_bench(const Options& options) {
  Report report{.rows = {}, .seed = options.seed};
  struct Size {
    std::size_t block_bytes;
    const char* write_aim;
    const char* read_aim;
  };
  constexpr Size kSizes[] = {{std::size_t{1} << 20, "ratio >= 0.95", "ratio >= 0.95"},
                             {std::size_t{4} << 20, "ratio >= 0.95", "ratio >= 0.93"},
                             {std::size_t{256} << 10, "ratio >= 0.90", "ratio >= 0.90"}};
  {
    KVBM_TRY(const PinnedStorage memory, make_memory());
    for (const Size& size : kSizes) {
      KVBM_TRY(const auto stored, store_blocks(size.block_bytes, memory, options));
      for (const Way way : {Way::Write, Way::Read}) {
        const char* const aim = way == Way::Write ? size.write_aim : size.read_aim;
        KVBM_TRY(auto rows, rate_rows({{"", aim, stored->journal()}, {"raw_", "", nullptr}},
                                      *stored->executor, stored->blocks, way));
        std::ranges::move(rows, std::back_inserter(report.rows));
      }
      if (size.block_bytes == std::size_t{1} << 20) {
        KVBM_TRY(auto row, latency_row(*stored));
        report.rows.push_back(std::move(row));
      }
    }
  }
  for (const auto& part : {index_rows, restore_rows}) {
    KVBM_TRY(auto rows, part(options));
    std::ranges::move(rows, std::back_inserter(report.rows));
  }
  return report;
}

}  // namespace kvbm::bench
