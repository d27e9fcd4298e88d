// A disk tier that survives, on files that fail.
#include "tiers/disk_tier.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <condition_variable>
#include <future>
#include <map>
#include <mutex>

#include "physical/transfer/thread_executor.h"
#include "platform/os/fake_file.h"
#include "tiers/driver.h"
#include "tiers/lookup.h"
#include "tiers/test_tiers.h"

namespace kvbm::detail {
namespace {

using namespace std::chrono_literals;
constexpr auto kLong = 30s;
constexpr std::size_t kDiskBlocks = 32;

class DiskTierTest : public testing::Test {
 protected:
  void SetUp() override { open(); }
  void TearDown() override { close(); }

  // Null if the store cannot be opened or read.
  std::shared_ptr<TierPool> make_disk_pool() {
    const auto device = make_test_pool(Tier::Device, 1);
    const auto content = device->layout()->content();
    store::StoreShape shape{.model = "m",
                            .layout = content->description(),
                            .layout_digest = content->digest(),
                            .region_bytes = {},
                            .page_size = 4,
                            .hash_profile = "test",
                            .num_slots = kDiskBlocks};
    for (const auto& region : content->regions()) {
      shape.region_bytes.push_back(static_cast<std::uint32_t>(region.bytes));
    }
    const DiskStoreConfig config{
        .durable = durable_, .sync_interval = 10ms, .stall_timeout = 100ms};
    auto disk = DiskTier::open(config, shape, {manifest_, index_, nullptr, blocks_},
                               [this](const std::string& line) {
                                 const std::lock_guard lock(mutex_);
                                 lines_.push_back(line);
                                 said_.notify_all();
                               });
    if (!disk) return nullptr;
    LayoutConfig layout = device->set()->config;
    layout.num_blocks = kDiskBlocks;
    layout.alignment = 4096;
    auto set = make_block_set(
        Tier::Disk, Layout::contiguous(content, layout, (*disk)->memory()).value(), layout);
    auto pool = TierPool::create(std::move(set), {.start_empty = true}).value();
    return pool->survive(std::move(*disk)) ? pool : nullptr;
  }

  void open() {
    device_ = make_test_pool(Tier::Device, 16);
    host_ = make_test_pool(Tier::Host, 16);
    pool_ = make_disk_pool();
    ASSERT_NE(pool_, nullptr);
    driver_ = TierDriver::create({device_.get(), host_.get(), pool_.get()},
                                 {.blocks_per_transfer = 1}, ThreadExecutor::create(1).value())
                  .value();
    for (TierPool* pool : {device_.get(), host_.get()}) {
      pool->set_listener([this](Tier tier, std::vector<OffloadOffer> offers) {
        driver_->offered(tier, std::move(offers));
      });
    }
  }

  void close() {
    if (driver_) driver_->close();
    if (pool_) pool_->disk()->close();
    driver_.reset();
    pool_.reset();
    host_.reset();
    device_.reset();
  }

  // A chain that is computed, offered, and as far as that goes, written.
  void compute(std::uint64_t conversation, std::uint32_t length) {
    std::vector<ImmutableHold> holds;
    for (std::uint32_t i = 0; i < length; ++i) {
      holds.push_back(put_test_block(*device_, conversation, i));
    }
    ASSERT_TRUE(driver_->drain(std::chrono::steady_clock::now() + kLong));
  }
  // Makes the blocks above the disk go.
  void forget_memory() {
    device_->store().reset();
    host_->store().reset();
  }
  Plan look_up(std::uint64_t conversation, std::uint32_t length) {
    const auto chain = test_chain(conversation, length);
    return lookup_tiers(driver_->pools(), chain);
  }
  std::vector<Result<ImmutableHold>> onboard(std::uint64_t conversation, std::uint32_t length,
                                             std::chrono::nanoseconds timeout = kLong) {
    std::vector<RequestItem> items;
    for (PlanSegment& segment : look_up(conversation, length).segments) {
      for (ImmutableHold& block : split(segment.run)) {
        items.push_back({.source = std::move(block),
                         .at = segment.tier,
                         .target = std::move(allocate(device_->store(), 1).value().front())});
      }
    }
    std::promise<std::vector<Result<ImmutableHold>>> done;
    driver_->start({.items = std::move(items), .deadline = deadline_after(timeout)},
                   {.finished = [&](auto blocks) { done.set_value(std::move(blocks)); }});
    return done.get_future().get();
  }
  bool hears(const std::string& part) {
    std::unique_lock lock(mutex_);
    return said_.wait_for(lock, kLong, [&] {
      return std::ranges::any_of(
          lines_, [&](const std::string& line) { return line.find(part) != std::string::npos; });
    });
  }
  void fail(FakeFile& file, FakeFile::Op op, int error) {
    file.set_hook([=](const FakeFile::Call& call) {
      return call.op == op ? FakeFile::fails(error) : FakeFile::Fault{};
    });
  }

  bool durable_ = false;
  std::shared_ptr<FakeFile> manifest_ = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> index_ = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> blocks_ = std::make_shared<FakeFile>(0);
  std::shared_ptr<TierPool> device_;
  std::shared_ptr<TierPool> host_;
  std::shared_ptr<TierPool> pool_;
  std::shared_ptr<TierDriver> driver_;
  std::mutex mutex_;
  std::condition_variable said_;
  std::vector<std::string> lines_;
};

TEST_F(DiskTierTest, ABlockIsRegisteredOnlyWithItsRecord) {
  fail(*index_, FakeFile::Op::Write, EIO);
  compute(1, 2);
  EXPECT_EQ(pool_->store().stats().registered, 0u);
  index_->set_hook({});
  compute(2, 2);
  EXPECT_EQ(pool_->store().stats().registered, 2u);
  close();
  open();
  EXPECT_EQ(pool_->store().stats().registered, 2u);
  EXPECT_EQ(look_up(2, 2).size(), 2u);
}

TEST_F(DiskTierTest, ARecordTellsWhereTheParentLies) {
  compute(1, 4);
  const std::uint64_t id = (*store::read_manifest(*manifest_).value()).superblock.store_id;
  std::map<SequenceHash, std::pair<store::Slot, store::Slot>> places;  // a block's, its parent's
  for (store::Slot slot = 0; slot < kDiskBlocks; ++slot) {
    const std::span<const std::byte, store::kRecordBytes> bytes(
        &index_->contents()[slot * store::kRecordBytes], store::kRecordBytes);
    store::SlotRecord record;
    if (store::decode(bytes, slot, id, record) != store::RecordState::Valid) continue;
    places[record.sequence_hash] = {slot, record.parent_slot};
  }
  ASSERT_EQ(places.size(), 4u);
  EXPECT_EQ(places.at(test_hash(1, 0)).second, kNoBlock);
  for (std::uint32_t i = 1; i < 4; ++i) {
    EXPECT_EQ(places.at(test_hash(1, i)).second, places.at(test_hash(1, i - 1)).first);
  }
}

// As a loss of power may leave it: the first slot of a block was overwritten since, and its record
// is back.
TEST_F(DiskTierTest, OfTwoPutsOfABlockTheLaterOneIsRestored) {
  compute(1, 4);
  close();
  constexpr store::Slot kFirst = 3;
  constexpr store::Slot kLater = 20;
  {
    auto& bytes = blocks_->contents();
    const std::size_t extent = bytes.size() / kDiskBlocks;
    const auto shape = store::read_manifest(*manifest_).value()->superblock.shape;
    auto disk = store::DiskStore::open({manifest_, index_, nullptr, blocks_}, shape).value();
    ASSERT_TRUE(disk->load([](store::Slot, const store::SlotRecord&) {}).has_value());
    store::SlotRecord record;
    ASSERT_EQ(disk->read(kFirst, record).value(), store::RecordState::Valid);
    record.sealed_sum ^=
        seal(record, kFirst, shape.layout_digest) ^ seal(record, kLater, shape.layout_digest);
    std::copy_n(&bytes[kFirst * extent], extent, &bytes[kLater * extent]);
    ASSERT_TRUE(disk->put(kLater, record).has_value());
    bytes[kFirst * extent] ^= std::byte{1};
  }
  open();
  for (const auto& block : onboard(1, 4)) EXPECT_TRUE(block.has_value());
}

TEST_F(DiskTierTest, ASlotThatIsBeingOverwrittenHasNoRecord) {
  compute(1, 4);
  ASSERT_EQ(pool_->store().stats().registered, 4u);
  // Everything but these blocks is taken, so that new ones must take their places.
  auto taken = allocate(pool_->store(), kDiskBlocks - 4).value();
  std::size_t records = 0;
  blocks_->set_hook([&](const FakeFile::Call& call) {
    if (call.op == FakeFile::Op::Write) {
      const auto slot = static_cast<store::Slot>(call.offset / 4096);
      const auto* record = &index_->contents()[slot * store::kRecordBytes];
      records += std::any_of(record, record + store::kRecordBytes,
                             [](std::byte byte) { return byte != std::byte{0}; });
    }
    return FakeFile::Fault{};
  });
  compute(2, 4);
  EXPECT_EQ(look_up(2, 4).segments.size(), 1u);
  EXPECT_EQ(pool_->store().stats().evictions, 4u);
  EXPECT_EQ(records, 0u);
  blocks_->set_hook({});
}

TEST_F(DiskTierTest, AFullDiskIsReadOnlyUntilAProbeSucceeds) {
  compute(1, 2);
  fail(*blocks_, FakeFile::Op::Write, ENOSPC);
  fail(*manifest_, FakeFile::Op::Write, ENOSPC);
  compute(2, 1);
  EXPECT_EQ(pool_->disk()->stats().health, DiskHealth::ReadOnly);
  EXPECT_TRUE(hears("read-only: OperationFailed"));
  const auto dropped = driver_->stats().offloads_dropped;
  compute(3, 2);
  EXPECT_EQ(driver_->stats().offloads_dropped, dropped + 2) << "nothing is tried";
  forget_memory();
  for (const auto& block : onboard(1, 2)) EXPECT_TRUE(block.has_value());
  blocks_->set_hook({});
  manifest_->set_hook({});
  EXPECT_TRUE(hears("disk tier: healthy"));
  compute(4, 2);
  forget_memory();
  EXPECT_EQ(look_up(4, 2).size(), 2u);
}

TEST_F(DiskTierTest, ADiskThatCannotBeReadIsLeftAloneUntilItCan) {
  compute(1, 12);
  forget_memory();
  fail(*blocks_, FakeFile::Op::Read, EIO);
  for (const auto& block : onboard(1, 12)) EXPECT_FALSE(block.has_value());
  EXPECT_EQ(pool_->disk()->stats().health, DiskHealth::Off);
  compute(2, 1);
  forget_memory();
  EXPECT_EQ(look_up(1, 12).size(), 0u);
  blocks_->set_hook({});
  EXPECT_TRUE(hears("disk tier: healthy"));
  compute(3, 2);
  forget_memory();
  EXPECT_EQ(look_up(3, 2).size(), 2u);
}

TEST_F(DiskTierTest, ABlockThatCannotBeReadIsNotFoundAgain) {
  compute(1, 3);
  forget_memory();
  blocks_->set_hook([](const FakeFile::Call& call) {
    const bool second = call.op == FakeFile::Op::Read && call.offset == 4096;
    return second ? FakeFile::fails(EIO) : FakeFile::Fault{};
  });
  const auto loaded = onboard(1, 3);
  EXPECT_TRUE(loaded[0].has_value());
  EXPECT_EQ(loaded[1].error().native, EIO);
  EXPECT_EQ(look_up(1, 3).size(), 1u);
  EXPECT_EQ(pool_->disk()->stats().health, DiskHealth::Healthy)
      << "one error is not the disk's end";
  EXPECT_EQ(pool_->disk()->stats().read_errors, 1u);
}

TEST_F(DiskTierTest, ADurableStoreRegistersNothingThatWasNotSynced) {
  close();
  durable_ = true;
  open();
  fail(*index_, FakeFile::Op::Sync, EIO);
  compute(1, 2);
  EXPECT_EQ(pool_->store().stats().registered, 0u);
  index_->set_hook({});
  compute(2, 2);
  EXPECT_EQ(pool_->store().stats().registered, 2u);
}

TEST_F(DiskTierTest, ADiskThatHangsCostsNoRequestMoreThanItsDeadline) {
  compute(1, 3);
  forget_memory();
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future();
  blocks_->set_hook([released](const FakeFile::Call& call) {
    if (call.op == FakeFile::Op::Read) released.wait();
    return FakeFile::Fault{};
  });
  const auto begin = std::chrono::steady_clock::now();
  for (const auto& block : onboard(1, 3, 200ms)) {
    ASSERT_FALSE(block.has_value());
    EXPECT_EQ(block.error().code, ErrorCode::TimedOut);
  }
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 200ms);
  EXPECT_EQ(look_up(1, 3).size(), 0u) << "nobody is sent to a disk that hangs";
  EXPECT_EQ(pool_->disk()->stats().health, DiskHealth::Off);
  EXPECT_TRUE(hears("answered nothing"));
  const auto block = put_test_block(*device_, 2, 0);  // the others go on
  release.set_value();
  EXPECT_TRUE(hears("disk tier: healthy"));
  ASSERT_TRUE(driver_->drain(std::chrono::steady_clock::now() + kLong));
  EXPECT_EQ(look_up(1, 3).size(), 3u);
  driver_->check_invariants();
}

TEST_F(DiskTierTest, AnIndexThatCannotBeReadIsAnErrorThatLosesNothing) {
  compute(1, 2);
  close();
  fail(*index_, FakeFile::Op::Read, EIO);
  EXPECT_EQ(make_disk_pool(), nullptr);
  index_->set_hook({});
  open();
  EXPECT_EQ(look_up(1, 2).size(), 2u);
}

TEST_F(DiskTierTest, WhatIsForgottenWhileItIsWrittenStaysForgotten) {
  std::promise<void> arrived;
  std::promise<void> release;
  blocks_->set_hook([&, once = false](const FakeFile::Call& call) mutable {
    if (call.op == FakeFile::Op::Write && !once) {
      once = true;
      arrived.set_value();
      release.get_future().wait();
    }
    return FakeFile::Fault{};
  });
  const auto block = put_test_block(*device_, 1, 0);
  arrived.get_future().wait();
  ASSERT_TRUE(pool_->forget_for_good(std::nullopt).has_value());
  driver_->without_moves([&] { pool_->reset(std::nullopt); });
  release.set_value();
  ASSERT_TRUE(driver_->drain(std::chrono::steady_clock::now() + kLong));
  EXPECT_EQ(pool_->store().stats().registered, 0u);
  blocks_->set_hook({});
  close();
  open();
  EXPECT_EQ(pool_->store().stats().registered, 0u);
}

TEST_F(DiskTierTest, ResetsThatPoolAndStoreCountDifferentlyLoseNothing) {
  // A reset that reaches the manifest of one life only: the next one skips its epoch.
  fail(*manifest_, FakeFile::Op::Write, EIO);
  EXPECT_FALSE(pool_->forget_for_good(std::nullopt).has_value());
  pool_->reset(std::nullopt);
  compute(1, 2);
  manifest_->set_hook([](const FakeFile::Call& call) {
    return call.op == FakeFile::Op::Write ? FakeFile::fails(EIO) : FakeFile::Fault{};
  });
  close();
  manifest_->set_hook({});
  open();
  EXPECT_EQ(pool_->store().stats().registered, 0u)
      << "of an epoch that the manifest never heard of";
  ASSERT_TRUE(pool_->forget_for_good(std::nullopt).has_value());
  pool_->reset(std::nullopt);
  compute(2, 2);
  forget_memory();
  for (const auto& block : onboard(2, 2)) EXPECT_TRUE(block.has_value());
  close();
  open();
  EXPECT_EQ(look_up(2, 2).size(), 2u);
}

}  // namespace
}  // namespace kvbm::detail
