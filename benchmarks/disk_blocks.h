// What the benches of files share: equal blocks in memory and in a file, ways to move them, and the
// rows that come of it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "benchmarks/bench.h"
#include "kvbm/storage.h"
#include "physical/transfer/file_executor.h"

namespace kvbm::bench {

inline constexpr std::size_t kDiskRounds = 9;
// Of memory and of the file: more than caches hold.
inline constexpr std::size_t kDiskBytes = std::size_t{768} << 20;

enum class Way : std::uint8_t { Write, Read };

// The first error of works that run in turns and cannot return one.
class FirstError {
 public:
  void note(const Error& error);
  template <class T>
  void note(const Result<T>& result) {
    if (!result) note(result.error());
  }
  void note_errno(int error, const char* what);
  Result<void> result();

 private:
  Mutex mutex_;
  Result<void> result_ KVBM_GUARDED_BY(mutex_);
};

// Block i of the memory and block i of the file hold the same bytes, so anything may be written and
// read back in any order.
struct DiskBlocks {
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
  std::vector<BlockId> sample(std::uint64_t blocks);
};

// Memory whose bytes differ, for kDiskBytes of blocks.
Result<PinnedStorage> make_memory();
// The shape of kDiskBytes of blocks that have so many bytes each.
LayoutConfig disk_layout_config(std::size_t block_bytes);
// Errors: those of Layout::create(), where the file is too small.
Result<void> make_blocks(DiskBlocks& blocks, std::size_t block_bytes, const PinnedStorage& memory,
                         std::shared_ptr<detail::Memory> file);

// An executor that has shown that io_uring serves the file.
Result<std::unique_ptr<FileExecutor>> make_executor(File& file);
// The next `count` blocks through the executor, in transfers as the tier engine makes them. Reads
// are verified, writes bring their sums.
void transfer(FileExecutor& executor, DiskBlocks& blocks, Way way, std::uint64_t count,
              BlockJournal* journal = nullptr);

// What was measured beside bare I/O.
struct Mover {
  std::string prefix;  // of the row's name, which goes on like "write_1m"
  std::string aim;
  BlockJournal* journal = nullptr;
};
// A row in GB/s for each of them, all timed in turns with the same probes.
Result<std::vector<Row>> rate_rows(const std::vector<Mover>& movers, FileExecutor& executor,
                                   DiskBlocks& blocks, Way way);

}  // namespace kvbm::bench
