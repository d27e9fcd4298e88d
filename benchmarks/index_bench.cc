// The rows of `kvbm bench disk` that need no payload.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <utility>

#include "benchmarks/store_bench.h"
#include "benchmarks/store_fixture.h"
#include "logical/pool/hold_ops.h"
#include "store/store_files.h"
#include "store/superblock.h"

namespace kvbm::bench {
namespace {

using store::kRecordBytes;

constexpr std::size_t kSlots = 1'000'000;
constexpr std::size_t kLength = 1000;  // of each chain
constexpr std::size_t kRounds = 9;
constexpr std::size_t kPuts = 50'000;  // of one round
constexpr std::size_t kReadBytes = std::size_t{1} << 20;
// The least that a slot can have.
constexpr LayoutConfig kConfig = {.num_blocks = kSlots,
                                  .num_layers = 1,
                                  .outer_dim = 2,
                                  .page_size = 16,
                                  .inner_dim = 64,
                                  .dtype = DType::FP16,
                                  .alignment = 4096};

std::uint64_t thread_cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "kvbm bench: %s\n", what);
  std::abort();
}

// A file of the bench's own beside the store's, for plain code.
class PlainFile {
 public:
  PlainFile(const std::string& path, int flags)
      : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    require(descriptor_ >= 0, "cannot open a file of the store");
  }
  ~PlainFile() { ::close(descriptor_); }
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  void write(std::span<const std::byte> bytes, std::size_t offset) const {
    require(::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
                static_cast<ssize_t>(bytes.size()),
            "a plain write failed");
  }
  void sync() const { require(::fdatasync(descriptor_) == 0, "a plain sync failed"); }
  std::size_t read_all(std::span<std::byte> buffer) const {
    std::size_t total = 0;
    for (;;) {
      const ssize_t got =
          ::pread(descriptor_, buffer.data(), buffer.size(), static_cast<off_t>(total));
      require(got >= 0, "a plain read failed");
      if (got == 0) return total;
      total += static_cast<std::size_t>(got);
    }
  }

 private:
  int descriptor_;
};

// --- records of a store that is open ---------------------------------------------------------

void put(detail::DiskTier& disk, BlockId slot) {
  const BlockCopy copy{slot, slot, {}};
  require(disk.before_write(copy).has_value(), "a record was not cleared");
  require(disk.after_write(copy, slot).has_value(), "a record was not put");
}

Row put_row(detail::TierPool& pool, const std::vector<detail::CompleteHold>& named,
            const std::string& folder) {
  PlainFile plain(folder + "/plain", O_RDWR | O_CREAT);
  const std::vector<std::byte> zeros(kSlots * kRecordBytes);
  plain.write(zeros, 0);
  std::mt19937_64 random(1);
  const auto slot = [&] { return named[random() % named.size()].id(); };
  Row row = measure({"index_put_us",
                     [&](std::uint64_t count) {
                       for (std::uint64_t i = 0; i < count; ++i) put(*pool.disk(), slot());
                     },
                     {},
                     kPuts},
                    {{"two writes of 64 bytes",
                      [&](std::uint64_t count) {
                        const std::span record = std::span(zeros).first(kRecordBytes);
                        for (std::uint64_t i = 0; i < count; ++i) {
                          const std::size_t offset = slot() * kRecordBytes;
                          plain.write(record, offset);
                          plain.write(record, offset);
                        }
                      },
                      {},
                      kPuts}},
                    "<= 5.5", {.count = kRounds, .now = thread_cpu_ns});
  row.value /= 1000;
  for (Probe& probe : row.probes) probe.value /= 1000;
  row.unit = "us";
  return row;
}

Row reset_row(detail::TierPool& pool, const std::string& folder) {
  PlainFile plain(folder + "/plain", O_RDWR | O_CREAT);
  const std::vector<std::byte> superblock(store::kSuperblockBytes);
  constexpr std::size_t kResets = 20;
  Row row = measure({"reset_1m_ms",
                     [&](std::uint64_t count) {
                       for (std::uint64_t i = 0; i < count; ++i) {
                         require(pool.forget_for_good(std::nullopt).has_value(), "no reset");
                         pool.reset(std::nullopt);
                       }
                     },
                     {},
                     kResets},
                    {{"twice 8 KiB and a sync",
                      [&](std::uint64_t count) {
                        for (std::uint64_t i = 0; i < 2 * count; ++i) {
                          plain.write(superblock, i % 2 * superblock.size());
                          plain.sync();
                        }
                      },
                      {},
                      kResets}},
                    "< 1", {.count = kRounds});
  row.value /= 1e6;
  for (Probe& probe : row.probes) probe.value /= 1e6;
  row.unit = "ms";
  return row;
}

// --- restarts ----------------------------------------------------------------------------------

// A tier that opens its store, again and again.
class Restart {
 public:
  Restart(std::string folder, std::shared_ptr<const BlockContent> content, std::uint64_t seed)
      : folder_(std::move(folder)),
        content_(std::move(content)),
        chain_(chain_hashes(seed, kSlots / kLength / 2, kLength)) {}

  void end() { pool_.reset(); }
  // Until a chain can be matched.
  void begin() {
    auto opened = open_tier(folder_, content_, kConfig);
    require(opened.has_value(), "the store does not open");
    pool_ = std::move(*opened);
    const RunHold run = pool_->match_chain({chain_, {}, 0}).value();
    require(detail::ids(run).size() == kLength, "a chain is missing");
  }
  // Until all can be evicted.
  void begin_and_wait() {
    begin();
    pool_->disk()->wait_until_restored();
    require(pool_->store().available_blocks() == kSlots, "a block is missing");
  }

 private:
  using RunHold = detail::RunHold;
  const std::string folder_;
  const std::shared_ptr<const BlockContent> content_;
  const std::vector<SequenceHash> chain_;
  std::shared_ptr<detail::TierPool> pool_;
};

// Nanoseconds for one of a million are milliseconds for all.
Row in_ms(Row row) {
  row.unit = "ms";
  return row;
}

std::vector<Row> restart_rows(const std::string& folder,
                              const std::shared_ptr<const BlockContent>& content,
                              std::uint64_t seed) {
  Restart restart(folder, content, seed);
  std::vector<std::byte> buffer(kReadBytes);
  const Work plain{"reading the index",
                   [&](std::uint64_t) {
                     const PlainFile index(folder + "/" + store::kIndexName, O_RDONLY);
                     require(index.read_all(buffer) == kSlots * kRecordBytes, "a short index");
                   },
                   {},
                   kSlots};
  const auto end = [&] { restart.end(); };
  return {in_ms(measure(
              {"restart_ms_per_million", [&](std::uint64_t) { restart.begin(); }, end, kSlots},
              {plain}, "<= 60", {.count = kRounds})),
          in_ms(measure(
              {"restart_order_ms", [&](std::uint64_t) { restart.begin_and_wait(); }, end, kSlots},
              {plain}, "<= 300", {.count = kRounds}))};
}

}  // namespace

Result<std::vector<Row>> index_rows(const Options& options) {
  KVBM_TRY(const auto folder, TemporaryFolder::create(options.dir));
  KVBM_TRY(const auto content, BlockContent::create(kConfig));
  std::vector<Row> rows;
  {
    KVBM_TRY(const auto pool, open_tier(folder.path(), content, kConfig));
    const auto named = name_all(*pool, kLength, options.seed);
    for (const auto& block : named) put(*pool->disk(), block.id());
    rows.push_back(put_row(*pool, named, folder.path()));
  }
  for (Row& row : restart_rows(folder.path(), content, options.seed)) {
    rows.push_back(std::move(row));
  }
  KVBM_TRY(const auto pool, open_tier(folder.path(), content, kConfig));
  rows.insert(rows.begin() + 1, reset_row(*pool, folder.path()));
  return rows;
}

}  // namespace kvbm::bench
