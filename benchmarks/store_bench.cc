#include "benchmarks/store_bench.h"

#include <algorithm>
#include <iterator>

#include "benchmarks/disk_blocks.h"
#include "benchmarks/latency_bench.h"
#include "benchmarks/restore_bench.h"
#include "benchmarks/store_fixture.h"

namespace kvbm::bench {
namespace {

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
        KVBM_TRY(auto rows, latency_rows(*stored->executor, stored->blocks, stored->journal()));
        std::ranges::move(rows, std::back_inserter(report.rows));
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
