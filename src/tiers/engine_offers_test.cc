#include "tiers/test_engine.h"

namespace kvbm::detail {
namespace {

class SmallQueueTest : public TierEngineTest {
 protected:
  SmallQueueTest()
      : TierEngineTest(
            {.blocks_per_transfer = 1, .offloads_in_flight = 1, .offload_queue_blocks = 2}) {}
};

TEST_F(SmallQueueTest, AFullQueueForgetsTheOldestOffer) {
  build(8, 8, 8);
  for (std::uint32_t i = 0; i < 5; ++i) put_test_block(*device_, 10 + i, 0);
  ASSERT_EQ(started_.size(), 1u) << "one in flight, two waiting, two forgotten";
  EXPECT_EQ(engine_->stats().offloads_dropped, 2u);
  end_all_transfers();
  EXPECT_TRUE(host_->store().contains(test_hash(10, 0)));
  EXPECT_FALSE(host_->store().contains(test_hash(11, 0)));
  EXPECT_FALSE(host_->store().contains(test_hash(12, 0)));
  EXPECT_TRUE(host_->store().contains(test_hash(13, 0)));
  EXPECT_TRUE(host_->store().contains(test_hash(14, 0)));
}

TEST_F(SmallQueueTest, ABlockEvictedBeforeItsTurnIsSkipped) {
  build(2, 8, 8);
  put_test_block(*device_, 1, 0);  // in flight
  put_test_block(*device_, 2, 0);  // waiting, holding nothing
  put_test_block(*device_, 3, 0);  // takes its block
  EXPECT_FALSE(device_->store().contains(test_hash(2, 0)));
  end_all_transfers();
  EXPECT_FALSE(host_->store().contains(test_hash(2, 0)));
  EXPECT_TRUE(host_->store().contains(test_hash(3, 0)));
}

TEST_F(SmallQueueTest, OnboardingDoesNotWaitBehindOffloads) {
  build(8, 8, 8);
  store_chain(1, 1);
  for (std::uint32_t i = 0; i < 3; ++i) put_test_block(*device_, 10 + i, 0);
  onboard(1, 1, Tier::Host);
  EXPECT_EQ(started_.back().edge, Edge::HostToDevice);
}

class OnEvictionTest : public TierEngineTest {
 protected:
  OnEvictionTest()
      : TierEngineTest(
            {.blocks_per_transfer = 1, .device_offload = {.mode = OffloadMode::OnEviction}}) {}
};

TEST_F(OnEvictionTest, NothingIsCopiedWhileThereIsRoom) {
  build(8, 8, 8);
  for (std::uint32_t i = 0; i < 6; ++i) put_test_block(*device_, 1 + i, 0);
  EXPECT_TRUE(started_.empty());
}

TEST_F(OnEvictionTest, TheColdestIsCopiedBeforeItMustGo) {
  build(4, 8, 8);
  for (std::uint32_t i = 0; i < 4; ++i) put_test_block(*device_, 1 + i, 0);
  step(ClockTicked{});
  ASSERT_FALSE(started_.empty());
  end_all_transfers();
  EXPECT_TRUE(host_->store().contains(test_hash(1, 0))) << "used longest ago";
  EXPECT_FALSE(host_->store().contains(test_hash(4, 0)));
  EXPECT_GT(reached(Transition::PreCleaned), 0u);
  // And evicted for nothing: its copy is there.
  put_test_block(*device_, 9, 0);
  EXPECT_FALSE(device_->store().contains(test_hash(1, 0)));
}

class SecondUseTest : public TierEngineTest {
 protected:
  SecondUseTest()
      : TierEngineTest({.blocks_per_transfer = 1,
                        .device_offload = {.admission = {.rule = AdmissionRule::SecondUse}}}) {}
};

TEST_F(SecondUseTest, TheFirstUseIsNotAdmittedAndTheSecondIs) {
  build(8, 8, 8);
  put_test_block(*device_, 1, 0);
  EXPECT_TRUE(started_.empty());
  EXPECT_EQ(engine_->stats().offloads_not_admitted, 1u);
  put_test_block(*device_, 1, 0);
  EXPECT_EQ(started_.size(), 1u);
}

class SelectiveTest : public TierEngineTest {
 protected:
  SelectiveTest()
      : TierEngineTest({.blocks_per_transfer = 1,
                        .device_offload = {.mode = OffloadMode::Selective,
                                           .admission = {.min_priority = 50}}}) {}
};

TEST_F(SelectiveTest, OnlyWhatIsNamedIsCopied) {
  build(8, 8, 8);
  put_test_block(*device_, 1, 0);
  EXPECT_TRUE(started_.empty());
  const RequestId id = start({.kind = RequestKind::Offload, .items = items_of(1, 1, Tier::Device)});
  end_all_transfers();
  ASSERT_TRUE(answers_.at(id).front().has_value());
  EXPECT_TRUE(is_test_block(*host_, answers_.at(id).front()->id(), test_hash(1, 0)));
}

TEST_F(SelectiveTest, ARequestMayAskTheEdgesRule) {
  build(8, 8, 8);
  put_test_block(*device_, 1, 0);
  const RequestId id = start(
      {.kind = RequestKind::Offload, .items = items_of(1, 1, Tier::Device), .admission = true});
  EXPECT_EQ(errors(id), (std::vector<std::optional<ErrorCode>>{ErrorCode::NotAdmitted}));
}

class PressureTest : public TierEngineTest {
 protected:
  PressureTest()
      : TierEngineTest({.blocks_per_transfer = 1,
                        .onboards_in_flight = 1,
                        .offloads_in_flight = 4,
                        .request_queue_blocks = 4}) {}
};

TEST_F(PressureTest, OffloadsGetAShareWhileSomebodyLoads) {
  build(16, 16, 16);
  store_chain(1, 2);
  onboard(1, 2, Tier::Host);
  for (std::uint32_t i = 0; i < 4; ++i) put_test_block(*device_, 10 + i, 0);
  const auto offloads = [this] {
    return std::ranges::count(started_, Edge::DeviceToHost, &StartTransfer::edge);
  };
  EXPECT_EQ(offloads(), 1) << "of four";
  EXPECT_GT(reached(Transition::OffloadYielded), 0u);
  end_nth(0);
  end_nth(static_cast<std::size_t>(
      std::ranges::find(started_, Edge::HostToDevice, &StartTransfer::edge) - started_.begin()));
  EXPECT_EQ(offloads(), 1) << "another load may come";
  now_ += std::chrono::milliseconds(20);
  step(ClockTicked{});
  EXPECT_EQ(offloads(), 4);
}

TEST_F(PressureTest, ARequestBeyondTheQueueIsRefused) {
  build(16, 16, 16);
  store_chain(1, 5);
  const RequestId first = onboard(1, 3, Tier::Host);
  const RequestId second = onboard(1, 2, Tier::Host);
  EXPECT_EQ(answers_.count(first), 0u);
  EXPECT_EQ(errors(second), (std::vector<std::optional<ErrorCode>>(2, ErrorCode::QueueFull)));
  end_all_transfers();
  const RequestId third = onboard(1, 2, Tier::Host);
  EXPECT_EQ(answers_.count(third) + started_.size() > 0, true) << "there is room again";
  end_all_transfers();
  EXPECT_EQ(errors(third), (std::vector<std::optional<ErrorCode>>(2, std::nullopt)));
}

class TransitTest : public TierEngineTest {
 protected:
  TransitTest()
      : TierEngineTest(
            {.blocks_per_transfer = 1, .offloads_in_flight = 16, .host_is_transit = true}) {}
};

TEST_F(TransitTest, TheDeviceOffloadsNoFasterThanTheDiskTakesIt) {
  build(16, 4, 16);
  for (std::uint32_t i = 0; i < 8; ++i) put_test_block(*device_, 10 + i, 0);
  // No more than half of the host's blocks are ever on their way to the disk.
  while (!started_.empty()) {
    const auto writes = std::ranges::count(started_, Edge::HostToDisk, &StartTransfer::edge);
    EXPECT_LE(writes, 4);
    end_transfer();
  }
  for (std::uint32_t i = 0; i < 8; ++i) {
    EXPECT_TRUE(disk_->store().contains(test_hash(10 + i, 0))) << i;
  }
  EXPECT_EQ(engine_->stats().offloads_dropped, 0u);
}

}  // namespace
}  // namespace kvbm::detail
