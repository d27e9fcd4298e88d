// The rows of `kvbm bench disk` that need no payload.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "benchmarks/disk_blocks.h"
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
constexpr std::size_t kResets = 5;
constexpr std::size_t kResetRounds = 31;
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

// A file of the bench's own beside the store's, for plain code.
class PlainFile {
 public:
  PlainFile(const std::string& path, int flags, FirstError& error)
      : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0600)), error_(error) {
    check(descriptor_ >= 0, "open");
    ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);  // as the store's
  }
  ~PlainFile() { ::close(descriptor_); }
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  void write(std::span<const std::byte> bytes, std::size_t offset) const {
    const ssize_t put =
        ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    check(put == static_cast<ssize_t>(bytes.size()), "pwrite");
  }
  void sync() const { check(::fdatasync(descriptor_) == 0, "fdatasync"); }
  void read_all(std::span<std::byte> buffer) const {
    ssize_t got = 1;
    for (off_t at = 0; got > 0; at += got) {
      got = ::pread(descriptor_, buffer.data(), buffer.size(), at);
      check(got >= 0, "pread");
    }
  }

 private:
  void check(bool good, const char* call) const {
    if (!good) error_.note_errno(errno, call);
  }

  int descriptor_;
  FirstError& error_;
};

// --- records of a store that is open ---------------------------------------------------------

void put(detail::DiskTier& disk, BlockId slot, FirstError& error) {
  const BlockCopy copy{slot, slot, {}};
  Result<void> written = disk.before_write(copy);
  if (written) written = disk.after_write(copy, slot);
  if (!written) error.note(written.error());
}

Row put_row(detail::TierPool& pool, const std::vector<detail::CompleteHold>& named,
            const std::string& folder, FirstError& error) {
  const PlainFile plain(folder + "/plain", O_RDWR | O_CREAT, error);
  const std::vector<std::byte> page(4096);
  for (std::size_t i = 0; i < kSlots * kRecordBytes; i += page.size()) plain.write(page, i);
  plain.sync();
  const std::span record = std::span(page).first(kRecordBytes);
  std::size_t next = 0;
  const auto slot = [&] { return named[next++ % named.size()].id(); };
  const auto store = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) put(*pool.disk(), slot(), error);
  };
  const auto bare = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::size_t offset = slot() * kRecordBytes;
      plain.write(record, offset);
      plain.write(record, offset);
    }
  };
  Row row =
      measure({"index_put_us", store, {}, kPuts}, {{"two writes of 64 bytes", bare, {}, kPuts}},
              "<= 5.5", {.count = kRounds, .now = thread_cpu_ns});
  give_unit(row, "us", 1e3);
  return row;
}

Row reset_row(detail::TierPool& pool, const std::string& folder, FirstError& error) {
  const PlainFile plain(folder + "/plain", O_RDWR | O_CREAT, error);
  const std::vector<std::byte> superblock(store::kSuperblockBytes);
  const auto store = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      if (const auto reset = pool.forget_for_good(std::nullopt); !reset) error.note(reset.error());
      pool.reset(std::nullopt);
    }
  };
  const auto bare = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < 2 * count; ++i) {
      plain.write(superblock, i % 2 * superblock.size());
      plain.sync();
    }
  };
  Row row =
      measure({"reset_1m_ms", store, {}, kResets}, {{"8 KiB and a sync, twice", bare, {}, kResets}},
              "< 1", {.count = kResetRounds});
  give_unit(row, "ms", 1e6);
  return row;
}

// --- restarts ----------------------------------------------------------------------------------

// A tier that opens its store, again and again.
class Restart {
 public:
  Restart(std::string folder, std::shared_ptr<const BlockContent> content, std::uint64_t seed,
          FirstError& error)
      : folder_(std::move(folder)),
        content_(std::move(content)),
        chain_(chain_hashes(seed, kSlots / kLength / 2, kLength)),
        error_(error) {}

  void end() { pool_.reset(); }
  // Until a chain can be matched.
  void begin() {
    auto opened = open_tier(folder_, content_, kConfig);
    if (!opened) return error_.note(opened.error());
    pool_ = std::move(*opened);
    const auto run = pool_->match_chain({chain_, {}, 0});
    check(run && detail::ids(*run).size() == kLength, "a chain of the store is missing");
  }
  // Until all can be evicted.
  void begin_and_wait() {
    begin();
    if (!pool_) return;
    pool_->disk()->wait_until_restored();
    check(pool_->store().available_blocks() == kSlots, "a block of the store is missing");
  }

 private:
  void check(bool good, const char* what) {
    if (!good) error_.note({ErrorCode::OperationFailed, 0, 0, 0, what});
  }

  const std::string folder_;
  const std::shared_ptr<const BlockContent> content_;
  const std::vector<SequenceHash> chain_;
  FirstError& error_;
  std::shared_ptr<detail::TierPool> pool_;
};

std::vector<Row> restart_rows(const std::string& folder,
                              const std::shared_ptr<const BlockContent>& content,
                              std::uint64_t seed, FirstError& error) {
  Restart restart(folder, content, seed, error);
  std::vector<std::byte> buffer(kReadBytes);
  const auto read = [&](std::uint64_t) {
    PlainFile(folder + "/" + store::kIndexName, O_RDONLY, error).read_all(buffer);
  };
  const auto begin = [&](std::uint64_t) { restart.begin(); };
  const auto begin_and_wait = [&](std::uint64_t) { restart.begin_and_wait(); };
  const auto end = [&] { restart.end(); };
  const Work plain{"reading the index", read, {}, kSlots};
  std::vector<Row> rows = {
      measure({"restart_ms_per_million", begin, end, kSlots}, {plain}, "<= 60", {.count = kRounds}),
      measure({"restart_order_ms", begin_and_wait, end, kSlots}, {plain}, "<= 300",
              {.count = kRounds})};
  // Nanoseconds for one of a million are milliseconds for all.
  for (Row& row : rows) give_unit(row, "ms", 1);
  return rows;
}

}  // namespace

Result<std::vector<Row>> index_rows(const Options& options) {
  KVBM_TRY(const auto folder, TemporaryFolder::create(options.dir));
  KVBM_TRY(const auto content, BlockContent::create(kConfig));
  FirstError error;
  std::vector<Row> rows;
  {
    KVBM_TRY(const auto pool, open_tier(folder.path(), content, kConfig));
    const auto named = name_all(*pool, kLength, options.seed);
    for (const auto& block : named) put(*pool->disk(), block.id(), error);
    rows.push_back(put_row(*pool, named, folder.path(), error));
  }
  for (Row& row : restart_rows(folder.path(), content, options.seed, error)) {
    rows.push_back(std::move(row));
  }
  KVBM_TRY(const auto pool, open_tier(folder.path(), content, kConfig));
  rows.push_back(reset_row(*pool, folder.path(), error));
  KVBM_CHECK_OK(error.result());
  return rows;
}

}  // namespace kvbm::bench
