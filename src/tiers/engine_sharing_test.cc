// Copies that several wait for, blocks of the engine's own, and loads layer by layer.
#include "tiers/test_engine.h"

namespace kvbm::detail {
namespace {

using std::chrono::seconds;

class SharedCopyTest : public TierEngineTest {
 protected:
  void SetUp() override {
    build(8, 8, 8);
    store_chain(1, 1);
  }
};

TEST_F(SharedCopyTest, TwoWhoWantTheSameBlockWaitForOneCopy) {
  const RequestId first = onboard(1, 1, Tier::Host);
  const RequestId second = onboard(1, 1, Tier::Host);
  EXPECT_EQ(started_.size(), 1u);
  end_all_transfers();
  ASSERT_TRUE(answers_.at(first).front().has_value());
  ASSERT_TRUE(answers_.at(second).front().has_value());
  EXPECT_EQ(answers_.at(first).front()->id(), answers_.at(second).front()->id());
  EXPECT_EQ(edge(Edge::HostToDevice).blocks, 1u);
  answers_.clear();
  EXPECT_EQ(held(*device_), 0u);
}

TEST_F(SharedCopyTest, WhoGivesUpDisturbsNobodyElse) {
  const RequestId first = onboard(1, 1, Tier::Host);
  const RequestId second = onboard(1, 1, Tier::Host);
  step(RequestCancelled{first});
  EXPECT_FALSE(started_.front().cancelled->load());
  end_all_transfers();
  EXPECT_EQ(errors(first), (std::vector<std::optional<ErrorCode>>{ErrorCode::Cancelled}));
  EXPECT_TRUE(answers_.at(second).front().has_value());
}

TEST_F(SharedCopyTest, AFailureIsToldToAll) {
  const RequestId first = onboard(1, 1, Tier::Host);
  const RequestId second = onboard(1, 1, Tier::Host);
  end_transfer(ErrorCode::OperationFailed);
  EXPECT_EQ(errors(first), (std::vector<std::optional<ErrorCode>>{ErrorCode::OperationFailed}));
  EXPECT_EQ(errors(second), (std::vector<std::optional<ErrorCode>>{ErrorCode::OperationFailed}));
}

TEST_F(SharedCopyTest, ACopyFromBeforeAResetIsNotSharedWithWhatCameAfter) {
  onboard(1, 1, Tier::Host);
  for (TierPool* pool : {device_.get(), host_.get(), disk_.get()}) pool->reset(std::nullopt);
  put_test_block(*host_, 1, 0);
  const RequestId after = onboard(1, 1, Tier::Host);
  const auto loads = std::ranges::count(started_, Edge::HostToDevice, &StartTransfer::edge);
  EXPECT_EQ(loads, 2) << "each has its own";
  end_all_transfers();
  EXPECT_TRUE(answers_.at(after).front().has_value());
  EXPECT_EQ(resident(*device_, 1, 1), 1u);
}

TEST_F(SharedCopyTest, StagesOfOneBlockAreOne) {
  drop_from_host();
  const RequestId hint = start({.kind = RequestKind::Stage, .items = items_of(1, 1, Tier::Disk)});
  const RequestId load = onboard(1, 1, Tier::Disk);
  EXPECT_EQ(started_.size(), 1u);
  end_all_transfers();
  EXPECT_TRUE(answers_.at(hint).front().has_value());
  EXPECT_TRUE(answers_.at(load).front().has_value());
  EXPECT_EQ(edge(Edge::DiskToHost).blocks, 1u);
}

// --- an engine's own blocks ------------------------------------------------------------------

class ExternalBlockTest : public SharedCopyTest {
 protected:
  RequestId load_into(BlockId block) {
    auto items = items_of(1, 1, Tier::Host);
    items.front().external = block;
    return start({.items = std::move(items)});
  }
};

TEST_F(ExternalBlockTest, AreTargets) {
  const RequestId id = load_into(5);
  EXPECT_TRUE(engine_->is_external_busy(5));
  end_all_transfers();
  ASSERT_TRUE(answers_.at(id).front().has_value());
  EXPECT_FALSE(static_cast<bool>(*answers_.at(id).front())) << "the engine's block, not ours";
  EXPECT_FALSE(engine_->is_external_busy(5));
  EXPECT_TRUE(is_test_block(*device_, 5, test_hash(1, 0)));
  EXPECT_FALSE(device_->store().contains(test_hash(1, 0)));
}

TEST_F(ExternalBlockTest, AreSources) {
  fill_test_block(*device_, 3, test_hash(2, 0));
  std::vector<RequestItem> items(1);
  items.front() = {.at = Tier::Device, .external = 3, .identity = test_identity(2, 0)};
  const RequestId id = start({.kind = RequestKind::Offload, .items = std::move(items)});
  EXPECT_TRUE(engine_->is_external_busy(3));
  end_all_transfers();
  ASSERT_TRUE(answers_.at(id).front().has_value());
  EXPECT_TRUE(is_test_block(*host_, answers_.at(id).front()->id(), test_hash(2, 0)));
  EXPECT_FALSE(engine_->is_external_busy(3));
}

TEST_F(ExternalBlockTest, ABusyOneIsNoTarget) {
  load_into(5);
  const RequestId second = load_into(5);
  EXPECT_EQ(errors(second),
            (std::vector<std::optional<ErrorCode>>{ErrorCode::InvalidMutableBlock}));
  end_all_transfers();
  EXPECT_FALSE(engine_->is_external_busy(5));
}

TEST_F(ExternalBlockTest, ACancelledLoadKeepsItsTargetUntilTheCopyHasEnded) {
  const RequestId id = load_into(5);
  step(RequestCancelled{id});
  EXPECT_EQ(answers_.count(id), 1u);
  EXPECT_TRUE(engine_->is_external_busy(5));
  end_all_transfers();
  EXPECT_FALSE(engine_->is_external_busy(5));
}

TEST_F(ExternalBlockTest, AFailedCopyIsTold) {
  const RequestId id = load_into(5);
  end_transfer(ErrorCode::OperationFailed);
  EXPECT_EQ(errors(id), (std::vector<std::optional<ErrorCode>>{ErrorCode::OperationFailed}));
}

TEST_F(ExternalBlockTest, WhatIsComputedBeforeAResetIsNotOffloadedAfterIt) {
  fill_test_block(*device_, 3, test_hash(2, 0));
  std::vector<RequestItem> items(1);
  items.front() = {.at = Tier::Device, .external = 3, .identity = test_identity(2, 0)};
  start({.kind = RequestKind::Offload, .items = std::move(items)});
  host_->reset(std::nullopt);
  end_all_transfers();
  EXPECT_FALSE(host_->store().contains(test_hash(2, 0)));
}

// --- layer by layer --------------------------------------------------------------------------

class LayersTest : public TierEngineTest {
 protected:
  void SetUp() override {
    build(8, 8, 8);
    store_chain(1, 2);
  }
};

TEST_F(LayersTest, BlocksAreVerifiedBeforeTheirFirstLayerMoves) {
  const RequestId id = onboard(1, 2, Tier::Host, {.layerwise = true});
  ASSERT_EQ(started_.size(), 2u);
  for (const StartTransfer& transfer : started_) {
    EXPECT_EQ(transfer.step, TransferStep::Verify);
  }
  end_nth(0);
  end_nth(0);
  EXPECT_EQ(layers_.count(id), 0u);
  ASSERT_EQ(started_.size(), 2u);
  EXPECT_EQ(started_[0].layer, 0u);
  end_nth(0);
  EXPECT_EQ(layers_.count(id), 0u) << "the second block does not have it yet";
  end_nth(0);
  EXPECT_EQ(layers_[id], 1u);
  EXPECT_EQ(answers_.count(id), 0u);
  end_all_transfers();
  EXPECT_EQ(layers_[id], 2u);
  for (std::uint32_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(answers_.at(id)[i].has_value());
    EXPECT_TRUE(is_test_block(*device_, answers_.at(id)[i]->id(), test_hash(1, i)));
  }
}

TEST_F(LayersTest, ABlockWithWrongBytesNeverReachesTheDevice) {
  {
    const auto blocks = match(host_->store(), test_chain(1, 2));
    host_->layout()->region(blocks[0].id(), 1, 1).value().data()[5] ^= std::byte{1};
  }
  const RequestId id = onboard(1, 2, Tier::Host, {.layerwise = true});
  end_all_transfers();
  const auto answers = errors(id);
  EXPECT_EQ(answers[0], ErrorCode::ChecksumMismatch);
  EXPECT_EQ(answers[1], std::nullopt);
  EXPECT_FALSE(device_->store().contains(test_hash(1, 0)));
  EXPECT_FALSE(host_->store().contains(test_hash(1, 0)));
}

TEST_F(LayersTest, DiskBlocksComeToHostFirst) {
  drop_from_host();
  const RequestId id = onboard(1, 2, Tier::Disk, {.layerwise = true});
  EXPECT_EQ(started_.front().edge, Edge::DiskToHost);
  end_nth(0);
  EXPECT_EQ(std::ranges::count(started_, Edge::HostToDevice, &StartTransfer::edge), 0)
      << "not before every block is there";
  end_all_transfers();
  for (const auto& block : answers_.at(id)) EXPECT_TRUE(block.has_value());
}

TEST_F(LayersTest, ACancelledRunGivesItsBlocksBackWhenNothingMoves) {
  const RequestId id = onboard(1, 2, Tier::Host, {.layerwise = true});
  end_nth(0);
  step(RequestCancelled{id});
  EXPECT_EQ(held(*device_), 2u);
  end_all_transfers();
  EXPECT_EQ(held(*device_), 0u);
  EXPECT_EQ(resident(*device_, 1, 2), 0u);
  EXPECT_TRUE(engine_->idle());
}

}  // namespace
}  // namespace kvbm::detail
