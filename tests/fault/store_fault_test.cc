// A manager whose disk tier is to survive, on disks that really fail: what was stored is served or
// missed, the manager says what is wrong, and goes on when it is over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <numeric>

#include "kvbm/kvbm.h"
#include "store/store_files.h"
#include "tests/fault/faulty_files.h"

namespace kvbm::fault {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr std::size_t kPage = 4;
constexpr std::size_t kExtentBytes = 4096;
constexpr auto kLong = std::chrono::seconds(30);

// Lines of the log, to be waited for.
class Lines {
 public:
  std::function<void(const std::string&)> sink() {
    return [this](const std::string& line) {
      const std::lock_guard lock(mutex_);
      lines_.push_back(line);
      changed_.notify_all();
    };
  }
  bool wait_for(const std::string& part) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLong, [&] {
      return std::ranges::any_of(
          lines_, [&](const std::string& line) { return line.find(part) != std::string::npos; });
    });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
};

std::byte expected_byte(SequenceHash hash, std::size_t i) {
  return std::byte(hash.value() + i * 3);
}

TokenBlockSequence prompt(Token first, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage).value();
}

class StoreFaultTest : public testing::Test {
 protected:
  StoreFaultTest() {
    config_.model = {
        .num_layers = 2, .outer_dim = 2, .page_size = kPage, .inner_dim = 64, .dtype = DType::FP16};
    config_.runtime.log = log_.sink();
    config_.device_layout = {.num_blocks = 16,
                             .allocator = std::make_shared<HostBackedDeviceAllocator>()};
    config_.host_layout = {.num_blocks = 16, .allocator = std::make_shared<PinnedAllocator>()};
  }

  void use(const std::string& directory) {
    config_.disk_layout = {.num_blocks = 40,
                           .store = DiskStoreConfig{.directory = directory,
                                                    .sync_interval = milliseconds(10),
                                                    .stall_timeout = milliseconds(200)}};
  }
  ReferenceBlockManager manager() {
    auto made = ReferenceBlockManager::create(config_);
    EXPECT_TRUE(made.has_value()) << made.error().to_string();
    return std::move(*made);
  }
  std::string refusal() {
    const auto made = ReferenceBlockManager::create(config_);
    EXPECT_FALSE(made.has_value());
    return made ? std::string() : made.error().to_string();
  }

  // The blocks are computed, and offloaded as far as that goes. Then nothing is left in memory.
  static void compute(ReferenceBlockManager& manager, const TokenBlockSequence& tokens) {
    const auto blocks = tokens.blocks();
    auto owned = manager.device()->allocate_blocks_blocking(blocks.size()).value();
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const auto bytes = owned[b].block_view_mut().value().bytes();
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = expected_byte(blocks[b].sequence_hash(), i);
      }
      owned[b].apply_token_block(blocks[b]).value();
    }
    manager.device()->register_blocks_blocking(std::move(owned)).value();
    ASSERT_TRUE(manager.drain(kLong));
    ASSERT_TRUE(manager.device()->reset().has_value());
    ASSERT_TRUE(manager.host()->reset().has_value());
  }

  static bool is_right(const ImmutableBlock<DeviceStorage>& block) {
    const auto bytes = block.block_view().value().bytes();
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] != expected_byte(block.sequence_hash(), i)) return false;
    }
    return true;
  }

  // How many blocks come from the disk. All of them must be right, wherever they lie.
  static std::size_t served(ReferenceBlockManager& manager, const TokenBlockSequence& tokens,
                            milliseconds timeout = kLong) {
    Lookup found = manager.lookup(tokens.blocks());
    EXPECT_EQ(found.count(Tier::Disk), found.size());
    const auto loaded = manager.onboard(std::move(found), {.timeout = timeout}).value().get();
    std::size_t count = 0;
    for (const auto& block : loaded.blocks) {
      if (!block) continue;
      ++count;
      EXPECT_TRUE(is_right(*block));
    }
    return count;
  }
  static void forget_memory(ReferenceBlockManager& manager) {
    ASSERT_TRUE(manager.drain(kLong));
    ASSERT_TRUE(manager.device()->reset().has_value());
    ASSERT_TRUE(manager.host()->reset().has_value());
  }
  static DiskHealth health(const ReferenceBlockManager& manager) {
    return manager.disk_stats()->health;
  }

  Lines log_;
  KvBlockManagerConfig config_;
  const TokenBlockSequence first_ = prompt(100, 12);
  const TokenBlockSequence second_ = prompt(500, 8);
  const TokenBlockSequence third_ = prompt(900, 8);
};

// --- files that fail -------------------------------------------------------------------------

class FaultyStoreTest : public StoreFaultTest {
 protected:
  void SetUp() override {
    std::string reason;
    files_ = FaultyFiles::mount(reason);
    if (!files_) GTEST_SKIP() << reason;
    use(files_->folder());
  }
  void set_all(const Fault& fault) {
    for (const char* name : {store::kBlocksName, store::kIndexName, store::kManifestName}) {
      files_->set(name, fault);
    }
  }

  std::unique_ptr<FaultyFiles> files_;
};

class FailedWritesTest : public FaultyStoreTest, public testing::WithParamInterface<int> {};

TEST_P(FailedWritesTest, MakeTheTierReadOnlyUntilTheyWorkAgain) {
  {
    auto one = manager();
    compute(one, first_);
    set_all({.write_error = GetParam(), .sync_error = GetParam()});
    compute(one, second_);
    EXPECT_EQ(health(one), DiskHealth::ReadOnly);
    EXPECT_THAT(one.disk_stats()->reason, HasSubstr(std::strerror(GetParam())));
    EXPECT_GT(one.disk_stats()->write_errors, 0u);
    EXPECT_EQ(one.lookup(second_.blocks()).size(), 0u);
    EXPECT_EQ(served(one, first_), 12u);
    set_all({});
    EXPECT_TRUE(log_.wait_for("disk tier: healthy"));
    compute(one, third_);
    EXPECT_EQ(served(one, third_), 8u);
  }
  auto next = manager();
  EXPECT_EQ(next.disk_stats()->damaged_records, 0u);
  EXPECT_EQ(served(next, first_), 12u);
  forget_memory(next);
  EXPECT_EQ(next.lookup(second_.blocks()).size(), 0u);
  EXPECT_EQ(served(next, third_), 8u);
}

INSTANTIATE_TEST_SUITE_P(Errors, FailedWritesTest, testing::Values(EIO, ENOSPC, EROFS));

// What was asked for and could not be read is not asked for again in this life.
TEST_F(FaultyStoreTest, FailedReadsAreMissesAndLoseNothing) {
  {
    auto one = manager();
    compute(one, first_);
    compute(one, second_);
    set_all({.read_error = EIO});
    EXPECT_EQ(served(one, first_), 0u);
    EXPECT_EQ(health(one), DiskHealth::Off);
    EXPECT_TRUE(log_.wait_for("disk tier: off: OperationFailed"));
    EXPECT_EQ(one.lookup(second_.blocks()).size(), 0u);
    compute(one, third_);
    set_all({});
    EXPECT_TRUE(log_.wait_for("disk tier: healthy"));
    EXPECT_EQ(served(one, second_), 8u);
    forget_memory(one);
    EXPECT_EQ(one.lookup(third_.blocks()).size(), 0u) << "a disk that is off is not written";
  }
  auto next = manager();
  EXPECT_EQ(served(next, first_), 12u);
}

TEST_F(FaultyStoreTest, ShortReadsAreContinued) {
  auto one = manager();
  compute(one, first_);
  files_->set(store::kBlocksName, {.longest_read = kExtentBytes});
  EXPECT_EQ(served(one, first_), 12u);
  EXPECT_EQ(one.disk_stats()->read_errors, 0u);
}

TEST_F(FaultyStoreTest, FlippedBytesAreDroppedForGood) {
  {
    auto one = manager();
    compute(one, first_);
    files_->set(store::kBlocksName, {.flipped_unit = 2 * kExtentBytes});
    EXPECT_EQ(served(one, first_), 6u);
    EXPECT_EQ(one.transfer_stats().checksum_mismatches, 6u);
    EXPECT_EQ(health(one), DiskHealth::Healthy) << "the disk answers";
    files_->set(store::kBlocksName, {});
  }
  auto next = manager();
  EXPECT_EQ(next.disk_stats()->restored_blocks, 6u);
  compute(next, second_);
  EXPECT_EQ(served(next, second_), 8u);
}

TEST_F(FaultyStoreTest, ADiskThatHangsCostsARequestItsDeadlineOnly) {
  auto one = manager();
  compute(one, first_);
  compute(one, second_);  // not at the begin of the file, whose reads do not wait
  files_->set(store::kBlocksName, {.waits = true});
  EXPECT_EQ(served(one, second_, milliseconds(500)), 0u);
  EXPECT_EQ(one.lookup(first_.blocks()).size(), 0u);
  EXPECT_EQ(health(one), DiskHealth::Off);
  EXPECT_TRUE(log_.wait_for("disk tier: off: the disk has answered nothing for 200 ms"));
  files_->set(store::kBlocksName, {});
  EXPECT_TRUE(log_.wait_for("disk tier: healthy"));
  forget_memory(one);
  EXPECT_EQ(served(one, second_), 8u);
}

TEST_F(FaultyStoreTest, ABlockWithoutItsRecordIsNotThere) {
  {
    auto one = manager();
    files_->set(store::kIndexName, {.write_error = EIO, .spot = 5 * 64 + 1});
    compute(one, first_);
    EXPECT_EQ(one.disk()->stats().registered_blocks, 11u);
    EXPECT_EQ(health(one), DiskHealth::Healthy);
    files_->set(store::kIndexName, {});
  }
  auto next = manager();
  EXPECT_EQ(next.disk_stats()->restored_blocks, 11u);
  EXPECT_EQ(next.disk_stats()->damaged_records, 0u);
  EXPECT_EQ(served(next, first_), 5u);
}

TEST_F(FaultyStoreTest, AResetThatReachesNoDiskIsMadeGoodLater) {
  {
    auto one = manager();
    compute(one, first_);
    files_->set(store::kManifestName, {.write_error = EIO});
    EXPECT_FALSE(one.reset().has_value());
    EXPECT_EQ(one.lookup(first_.blocks()).size(), 0u);
    EXPECT_TRUE(log_.wait_for("disk tier: read-only"));
    files_->set(store::kManifestName, {});
    EXPECT_TRUE(log_.wait_for("disk tier: healthy"));
  }
  EXPECT_EQ(manager().disk_stats()->restored_blocks, 0u);
}

TEST_F(FaultyStoreTest, ADiskThatFailsAtTheStartIsRefusedByName) {
  set_all({.write_error = EIO});
  EXPECT_THAT(refusal(), AllOf(HasSubstr(files_->folder()), HasSubstr("Input/output error")));
  set_all({});
  {
    auto one = manager();
    compute(one, first_);
  }
  for (const char* name : {store::kManifestName, store::kIndexName}) {
    files_->set(name, {.read_error = EIO});
    EXPECT_THAT(refusal(), AllOf(HasSubstr(name), HasSubstr("Input/output error")));
    files_->set(name, {});
  }
  auto next = manager();
  EXPECT_EQ(served(next, first_), 12u) << "and nothing was lost";
}

TEST_F(FaultyStoreTest, ADiskThatVanishesHoldsNobodyUp) {
  auto one = manager();
  compute(one, first_);
  files_->die();
  EXPECT_EQ(served(one, first_), 0u);
  compute(one, second_);
  EXPECT_EQ(health(one), DiskHealth::Off);
  one.close();
}

// --- what happens to whole file systems --------------------------------------------------------

// A folder that is gone at the end.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "kvbm-fault-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST_F(StoreFaultTest, AFolderThatIsRemovedInUseIsServedToItsEnd) {
  const Folder folder;
  use(folder.path() + "/store");
  {
    auto one = manager();
    compute(one, first_);
    std::filesystem::remove_all(folder.path() + "/store");
    EXPECT_TRUE(log_.wait_for("disk tier: read-only: the store's files were removed"));
    EXPECT_EQ(served(one, first_), 12u);
    const auto dropped = one.transfer_stats().offloads_dropped;
    compute(one, second_);
    EXPECT_GT(one.transfer_stats().offloads_dropped, dropped);
    EXPECT_EQ(one.lookup(second_.blocks()).size(), 0u);
  }
  auto next = manager();
  EXPECT_EQ(next.disk_stats()->restored_blocks, 0u);
  compute(next, second_);
  EXPECT_EQ(served(next, second_), 8u);
}

bool runs(const std::string& command) {
  return std::system(("{ " + command + "; } >/dev/null 2>&1").c_str()) == 0;
}

// An ext4 in a file, which the kernel makes read-only when it finds an error in it. What was not
// synced by then is lost.
class Ext4 {
 public:
  explicit Ext4(std::string folder) : image_(folder + "/image"), mount_(folder + "/mount") {
    std::filesystem::create_directory(mount_);
    std::ofstream(image_).close();
    std::filesystem::resize_file(image_, 16 << 20);
  }
  ~Ext4() { unmount(); }
  Ext4(const Ext4&) = delete;
  Ext4& operator=(const Ext4&) = delete;

  const std::string& path() const { return mount_; }
  bool make() const { return runs("mkfs.ext4 -q " + image_) && mount(); }
  bool mount() const { return runs("mount -o loop,errors=remount-ro " + image_ + " " + mount_); }
  void unmount() const { runs("umount " + mount_); }
  bool repair() const { return runs("e2fsck -fp " + image_ + "; test $? -le 1"); }
  bool find_error() const {
    return runs("echo x > /sys/fs/ext4/$(basename $(findmnt -no SOURCE " + mount_ +
                "))/trigger_fs_error");
  }

 private:
  const std::string image_;
  const std::string mount_;
};

TEST_F(StoreFaultTest, AFileSystemThatBecomesReadOnlyIsServedAndLosesNothing) {
  const Folder folder;
  const Ext4 disk(folder.path());
  if (!disk.make()) GTEST_SKIP() << "no ext4 can be mounted here";
  use(disk.path() + "/store");
  config_.disk_layout->store->durable = true;
  {
    auto one = manager();
    compute(one, first_);
    if (!disk.find_error()) GTEST_SKIP() << "this kernel finds no errors on demand";
    compute(one, second_);
    EXPECT_EQ(health(one), DiskHealth::ReadOnly);
    EXPECT_THAT(one.disk_stats()->reason, HasSubstr("Read-only file system"));
    EXPECT_EQ(one.lookup(second_.blocks()).size(), 0u);
    EXPECT_EQ(served(one, first_), 12u);
  }
  EXPECT_THAT(refusal(), HasSubstr("Read-only file system"));
  disk.unmount();
  ASSERT_TRUE(disk.repair() && disk.mount());
  auto next = manager();
  EXPECT_EQ(next.disk_stats()->damaged_records, 0u);
  EXPECT_EQ(served(next, first_), 12u);
  forget_memory(next);
  compute(next, second_);
  EXPECT_EQ(served(next, second_), 8u);
  next.close();
}

}  // namespace
}  // namespace kvbm::fault
