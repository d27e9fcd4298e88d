#include "store/keeper.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>

#include "platform/os/fake_file.h"

namespace kvbm::store {
namespace {

using namespace std::chrono_literals;

constexpr auto kLong = 30s;

class KeeperTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kExtent = 4096;

  KeeperTest() {
    const StoreShape shape{.model = {},
                           .layout = {},
                           .layout_digest = 3,
                           .region_bytes = {1024, 1024},
                           .page_size = 16,
                           .hash_profile = {},
                           .num_slots = 4};
    store_ = DiskStore::open({manifest_, index_, nullptr, blocks_}, shape).value();
    EXPECT_TRUE(store_->load([](Slot, const SlotRecord&) {}).has_value());
  }

  void start(std::chrono::milliseconds interval = 1h, std::uint64_t scrub = 0) {
    DiskStoreConfig config{.sync_interval = interval, .scrub_bytes_per_second = scrub};
    keeper_ = Keeper::start(*store_, health_, config, [this](Slot slot, const SlotRecord&) {
                const std::lock_guard lock(mutex_);
                damaged_.push_back(slot);
                changed_.notify_all();
              }).value();
  }

  // A block of bytes that are all `fill`, as a transfer would leave it.
  void put(Slot slot, std::byte fill) {
    const std::vector<std::byte> bytes(2048, fill);
    ASSERT_TRUE(store_->clear(slot).has_value());
    std::memcpy(&blocks_->contents()[slot * kExtent], bytes.data(), bytes.size());
    ASSERT_TRUE(store_->put(slot, record_of(slot, bytes)).has_value());
  }
  SlotRecord record_of(Slot slot, std::span<const std::byte> bytes) {
    SlotRecord record{.sequence_hash = SequenceHash(slot + std::uint64_t(bytes[0])),
                      .parent_hash = SequenceHash(),
                      .token_count = 16};
    PayloadSum sum(store_->shape().region_bytes);
    sum.add(bytes);
    record.sealed_sum = sum.finish() ^ seal(record, slot, store_->shape().layout_digest);
    return record;
  }
  std::future<bool> after_sync() {
    auto done = std::make_shared<std::promise<bool>>();
    keeper_->after_sync([done](const Result<void>& synced) { done->set_value(bool(synced)); });
    return done->get_future();
  }
  // Calls `on_sync` at the beginning of every sync of the index.
  void watch_syncs(std::function<FakeFile::Fault()> on_sync) {
    index_->set_hook([on_sync](const FakeFile::Call& call) {
      return call.op == FakeFile::Op::Sync ? on_sync() : FakeFile::Fault{};
    });
  }
  bool waits_for(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLong, condition);
  }

  std::shared_ptr<FakeFile> blocks_ = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> manifest_ = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> index_ = std::make_shared<FakeFile>(0);
  std::unique_ptr<DiskStore> store_;
  Health health_{10s, {}};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> damaged_;
  std::unique_ptr<Keeper> keeper_;
};

TEST_F(KeeperTest, WhoWaitsIsToldAfterTheSync) {
  start();
  bool synced = false;
  watch_syncs([&] {
    synced = true;
    return FakeFile::Fault{};
  });
  put(1, std::byte{1});
  auto told = after_sync();
  EXPECT_TRUE(told.get());
  EXPECT_TRUE(synced);
  EXPECT_TRUE(after_sync().get()) << "nothing to sync is no reason to wait";
}

TEST_F(KeeperTest, SyncsByItselfNowAndThen) {
  std::promise<void> synced;
  watch_syncs([&, once = false]() mutable {
    if (!std::exchange(once, true)) synced.set_value();
    return FakeFile::Fault{};
  });
  put(1, std::byte{1});
  start(10ms);
  EXPECT_EQ(synced.get_future().wait_for(kLong), std::future_status::ready);
  keeper_.reset();
}

TEST_F(KeeperTest, AFailedSyncFailsAlsoWhoCameMeanwhile) {
  start();
  std::promise<void> begun;
  std::promise<void> go_on;
  watch_syncs([&, once = false]() mutable {
    if (std::exchange(once, true)) return FakeFile::Fault{};
    begun.set_value();
    go_on.get_future().wait();
    return FakeFile::fails(EIO);
  });
  put(1, std::byte{1});
  auto first = after_sync();
  begun.get_future().wait();
  put(2, std::byte{2});
  auto second = after_sync();
  go_on.set_value();
  EXPECT_FALSE(first.get());
  EXPECT_FALSE(second.get()) << "the kernel may have dropped what was put before the failure";
  put(3, std::byte{3});
  EXPECT_TRUE(after_sync().get());
}

TEST_F(KeeperTest, TheLastSyncComesAtTheEnd) {
  start();
  bool synced = false;
  watch_syncs([&] {
    synced = true;
    return FakeFile::Fault{};
  });
  put(1, std::byte{1});
  keeper_.reset();
  EXPECT_TRUE(synced);
}

TEST_F(KeeperTest, ScrubbingTellsOfRotAndOfNothingElse) {
  for (Slot slot = 0; slot < 4; ++slot) put(slot, std::byte(slot + 1));
  blocks_->contents()[2 * kExtent + 1500] ^= std::byte{1};
  start(10ms, 1 << 30);
  ASSERT_TRUE(waits_for([&] { return !damaged_.empty(); }));
  keeper_.reset();
  for (const Slot slot : damaged_) EXPECT_EQ(slot, 2u);
}

TEST_F(KeeperTest, BytesThatChangeWhileTheyAreScrubbedProveNothing) {
  put(0, std::byte{1});
  std::atomic<int> reads = 0;
  blocks_->set_hook([&](const FakeFile::Call& call) {
    // Another block gets the slot after the scrubber has read the record of the first.
    if (call.op == FakeFile::Op::Read) put(0, std::byte(2 + ++reads % 2));
    if (reads == 20) changed_.notify_all();
    return FakeFile::Fault{};
  });
  start(10ms, 1 << 30);
  ASSERT_TRUE(waits_for([&] { return reads >= 20; }));
  keeper_.reset();
  EXPECT_TRUE(damaged_.empty());
}

}  // namespace
}  // namespace kvbm::store
