// Blocks that come from a peer: through the host tier, shared, verified, or not at all.
#include "tiers/test_engine.h"

namespace kvbm::detail {
namespace {

using Errors = std::vector<std::optional<ErrorCode>>;

class PullTest : public TierEngineTest {
 protected:
  explicit PullTest(std::size_t blocks_per_transfer = 1)
      : TierEngineTest({.blocks_per_transfer = blocks_per_transfer}) {}
  void SetUp() override { build(8, 8, 8); }

  RequestId pull(std::uint32_t first, std::uint32_t end, RequestStarted request = {}) {
    request.items = to_device(peer_items(1, first, end));
    return start(std::move(request));
  }
};

TEST_F(PullTest, BlocksComeThroughTheHostTierAndStayThere) {
  const RequestId id = pull(0, 2);
  ASSERT_EQ(started_.size(), 2u);
  EXPECT_EQ(started_.front().edge, Edge::PeerToHost);
  const std::weak_ptr<RemoteBlocks> kept = started_.front().remote;
  end_all_transfers();
  ASSERT_EQ(errors(id), (Errors{std::nullopt, std::nullopt}));
  for (std::uint32_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(is_test_block(*device_, answers_.at(id)[i]->id(), test_hash(1, i)));
  }
  EXPECT_EQ(resident(*host_, 1, 2), 2u);
  EXPECT_EQ(edge(Edge::PeerToHost).blocks, 2u);
  EXPECT_EQ(reached(Transition::BlockPulled), 2u);
  EXPECT_TRUE(kept.expired()) << "what has arrived is not kept by the peer any longer";
  answers_.clear();
  EXPECT_EQ(held(*device_) + held(*host_), 0u);
}

TEST_F(PullTest, APrefetchEndsInTheHostTier) {
  const RequestId id = start({.kind = RequestKind::Stage, .items = peer_items(1, 0, 1)});
  end_all_transfers();
  ASSERT_TRUE(answers_.at(id).front().has_value());
  EXPECT_TRUE(is_test_block(*host_, answers_.at(id).front()->id(), test_hash(1, 0)));
  EXPECT_EQ(resident(*device_, 1, 1), 0u);
}

TEST_F(PullTest, ThoseOfTwoRequestsAreOneAlsoIfThePeerKeepsThemTwice) {
  const RequestId first = pull(0, 1);
  const RequestId second = pull(0, 1);
  EXPECT_EQ(started_.size(), 1u);
  end_all_transfers();
  EXPECT_EQ(errors(first), (Errors{std::nullopt}));
  EXPECT_EQ(errors(second), (Errors{std::nullopt}));
  EXPECT_EQ(edge(Edge::PeerToHost).blocks, 1u);
}

TEST_F(PullTest, WhatTheHostTierHasByNowIsNotPulled) {
  auto items = to_device(peer_items(1, 0, 1));
  put_test_block(*host_, 1, 0);
  started_.clear();  // its way to the disk
  start({.items = std::move(items)});
  EXPECT_EQ(edge(Edge::PeerToHost).blocks, 0u);
  ASSERT_FALSE(started_.empty());
  EXPECT_EQ(started_.back().edge, Edge::HostToDevice);
}

TEST_F(PullTest, BytesThatAreNotWhatTheOwnerSaidAreNotSeen) {
  const RequestId id = pull(0, 2);
  const auto& blocks = static_cast<const TestPeerBlocks&>(*started_[1].remote).blocks;
  fill_test_block(*peer_, blocks[1].id(), test_hash(7, 7));
  end_all_transfers();
  EXPECT_EQ(errors(id), (Errors{std::nullopt, ErrorCode::ChecksumMismatch}));
  EXPECT_EQ(resident(*host_, 1, 2), 1u);
  EXPECT_EQ(engine_->stats().checksum_mismatches, 1u);
  EXPECT_EQ(edge(Edge::PeerToHost).failed, 1u);
}

TEST_F(PullTest, APeerThatIsGoneFailsItsBlocksAlone) {
  put_test_block(*host_, 1, 0);
  end_all_transfers();
  auto items = items_of(1, 1, Tier::Host);
  for (RequestItem& item : peer_items(1, 1, 3)) items.push_back(std::move(item));
  const RequestId id = start({.items = to_device(std::move(items))});
  while (!started_.empty()) {
    const bool is_peers = started_.front().edge == Edge::PeerToHost;
    end_transfer(is_peers ? std::optional(ErrorCode::OperationFailed) : std::nullopt);
  }
  EXPECT_EQ(errors(id),
            (Errors{std::nullopt, ErrorCode::OperationFailed, ErrorCode::OperationFailed}));
}

TEST_F(PullTest, WhatWasAskedForBeforeAResetIsNotFoundAfterIt) {
  auto items = to_device(peer_items(1, 0, 1));
  host_->reset(std::nullopt);
  start({.items = std::move(items)});
  end_all_transfers();
  EXPECT_EQ(resident(*host_, 1, 1), 0u);
  EXPECT_EQ(resident(*device_, 1, 1), 0u);
  EXPECT_GE(reached(Transition::ArrivedForgotten), 1u);
}

TEST_F(PullTest, TheTargetOfAPullThatNobodyWantsIsNotReusedBeforeItsEnd) {
  const RequestId id = pull(0, 1);
  step(RequestCancelled{id});
  EXPECT_EQ(errors(id), (Errors{ErrorCode::Cancelled}));
  EXPECT_TRUE(started_.front().cancelled->load());
  EXPECT_EQ(held(*host_), 1u);
  end_all_transfers();
  EXPECT_EQ(held(*host_), 0u);
  EXPECT_EQ(resident(*host_, 1, 1), 0u);
}

TEST_F(PullTest, AnEnginesOwnBlockIsBusyUntilItIsLoaded) {
  auto items = peer_items(1, 0, 1);
  items.front().external = 3;
  const RequestId id = start({.items = std::move(items)});
  EXPECT_TRUE(engine_->is_external_busy(3));
  end_transfer();  // the pull
  EXPECT_TRUE(engine_->is_external_busy(3));
  end_all_transfers();
  EXPECT_FALSE(engine_->is_external_busy(3));
  EXPECT_EQ(errors(id), (Errors{std::nullopt}));
  EXPECT_TRUE(is_test_block(*device_, 3, test_hash(1, 0)));
}

TEST_F(PullTest, LayersBeginWhenThePeersBlocksHaveCome) {
  const RequestId id = pull(0, 2, {.layerwise = true});
  end_transfer();
  EXPECT_EQ(std::ranges::count(started_, Edge::HostToDevice, &StartTransfer::edge), 0);
  end_all_transfers();
  EXPECT_EQ(errors(id), (Errors{std::nullopt, std::nullopt}));
  EXPECT_EQ(layers_.at(id), 2u);
}

TEST_F(PullTest, AHostTierFullOfHeldBlocksEndsThePull) {
  const auto all = allocate(host_->store(), 8).value();
  const RequestId id = pull(0, 1);
  EXPECT_EQ(errors(id), (Errors{ErrorCode::NotEnoughBlocksAvailable}));
  EXPECT_EQ(reached(Transition::StageWithoutRoom), 1u);
}

class ManyPullsTest : public PullTest {
 protected:
  ManyPullsTest() : PullTest(4) {}
};

TEST_F(ManyPullsTest, ATransferHasTheBlocksOfOnePeer) {
  auto items = peer_items(1, 0, 2);
  for (RequestItem& item : peer_items(2, 0, 2)) items.push_back(std::move(item));
  const RequestId id = start({.items = to_device(std::move(items))});
  ASSERT_EQ(started_.size(), 2u);
  EXPECT_EQ(started_[0].blocks.size(), 2u);
  EXPECT_EQ(started_[1].blocks.size(), 2u);
  EXPECT_NE(started_[0].remote, started_[1].remote);
  end_all_transfers();
  EXPECT_EQ(errors(id), Errors(4));
}

// A rate at which the blocks of a slow peer are not worth their time.
TEST_F(ManyPullsTest, ASlowPeerIsNotWorthIt) {
  const double rate = 4.0 / 0.010;  // a block in 10 ms
  const RequestId measured = pull(0, 4, {.prefill_tokens_per_second = rate});
  while (!started_.empty()) {
    now_ += started_.front().edge == Edge::PeerToHost ? std::chrono::milliseconds(100)
                                                      : std::chrono::milliseconds(1);
    end_transfer();
  }
  EXPECT_EQ(errors(measured), Errors(4)) << "nobody knows yet how slow it is";
  answers_.clear();
  for (TierPool* pool : {device_.get(), host_.get()}) pool->reset(std::nullopt);
  const RequestId id = pull(0, 4, {.prefill_tokens_per_second = rate});
  EXPECT_EQ(errors(id), Errors(4, ErrorCode::CheaperToCompute));
  EXPECT_EQ(reached(Transition::LoadNotWorth), 1u);
}

}  // namespace
}  // namespace kvbm::detail
