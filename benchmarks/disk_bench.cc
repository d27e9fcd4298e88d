#include "benchmarks/disk_bench.h"

#include "benchmarks/disk_blocks.h"

namespace kvbm::bench {

Result<Report> disk_bench(const Options& options) {
  KVBM_TRY(const DiskStorage disk, DiskAllocator(options.dir).allocate(kDiskBytes));
  KVBM_TRY(const PinnedStorage memory, make_memory());
  KVBM_TRY(const auto executor, make_executor(*disk.memory()->file()));

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
    DiskBlocks blocks;
    KVBM_CHECK_OK(make_blocks(blocks, size.block_bytes, memory, disk.memory()));
    // Reads of what was only reserved would touch no disk.
    if (&size == kSizes) transfer(*executor, blocks, Way::Write, blocks.count());
    KVBM_TRY(const auto write,
             rate_rows({{"disk_", size.write_aim}}, *executor, blocks, Way::Write));
    KVBM_TRY(const auto read, rate_rows({{"disk_", size.read_aim}}, *executor, blocks, Way::Read));
    report.rows.push_back(write.front());
    report.rows.push_back(read.front());
  }
  return report;
}

}  // namespace kvbm::bench
