// What a manager gives its peers: blocks of any tier, in host memory, as long as their plan lasts.
#include "manager/tier_sharing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "manager/own_worker.h"
#include "manager/test_manager.h"
#include "physical/transfer/copy_block.h"

namespace kvbm::detail {
namespace {

using remote::SharedBlock;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr milliseconds kLease{60'000};

class TierSharingTest : public testing::Test {
 protected:
  explicit TierSharingTest(KvBlockManagerConfig config = test_config())
      : manager_(ReferenceBlockManager::create(std::move(config)).value()) {}

  ManagerCore& core() { return ManagerAccess::core(manager_); }
  std::uint64_t plan(std::size_t blocks = 4) {
    const auto hashes = hashes_of(prompt_.blocks().first(blocks));
    const auto answer = sharing_.lookup(hashes, {}, 0, kLease).value();
    EXPECT_EQ(answer.blocks, blocks);
    return answer.plan;
  }
  std::vector<Result<SharedBlock>> fetch(std::uint64_t plan, std::vector<std::uint32_t> places,
                                         seconds patience = seconds(60),
                                         std::stop_token stop = {}) {
    return sharing_.fetch(plan, places, steady_clock::now() + patience, std::move(stop));
  }
  bool is_right(const Result<SharedBlock>& block, std::size_t place) {
    return block && has_test_bytes(block->bytes, prompt_.blocks()[place].sequence_hash()) &&
           block->payload_sum == sum_block(*core().host->layout(), block->block).value();
  }
  static std::vector<SequenceHash> hashes_of(std::span<const TokenBlock> tokens) {
    std::vector<SequenceHash> hashes;
    for (const TokenBlock& block : tokens) hashes.push_back(block.sequence_hash());
    return hashes;
  }

  ReferenceBlockManager manager_;
  const TokenBlockSequence prompt_ = test_prompt(0, 4);
  std::unique_ptr<OwnWorker> self_ = OwnWorker::create({}, std::array{core().host.get()}).value();
  TierSharing sharing_{*core().driver, *self_};
};

TEST_F(TierSharingTest, BlocksOfTheHostTierAreThereAtOnce) {
  compute_and_drain(manager_, prompt_.blocks());
  clear(*manager_.device());
  const auto blocks = fetch(plan(), {3, 0});
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_TRUE(is_right(blocks[0], 3));
  EXPECT_TRUE(is_right(blocks[1], 0));
}

TEST_F(TierSharingTest, BlocksOfTheDiskComeToTheHostTierAndStayAsLongAsThePlan) {
  compute_and_drain(manager_, prompt_.blocks());
  clear(*manager_.device());
  clear(*manager_.host());
  const std::uint64_t id = plan();
  {
    const auto blocks = fetch(id, {0, 1, 2, 3});
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(is_right(blocks[i], i));
  }
  EXPECT_EQ(manager_.host()->available_blocks(), manager_.host()->total_blocks() - 4);
  const auto staged = manager_.transfer_stats().edges[std::size_t(Edge::DiskToHost)].blocks;
  EXPECT_EQ(staged, 4u);
  EXPECT_TRUE(is_right(fetch(id, {2}).front(), 2)) << "again";
  EXPECT_EQ(manager_.transfer_stats().edges[std::size_t(Edge::DiskToHost)].blocks, staged);
  sharing_.release(id);
  EXPECT_EQ(manager_.host()->available_blocks(), manager_.host()->total_blocks());
}

TEST_F(TierSharingTest, WhatIsReadStaysAlsoWhenItsPlanHasEnded) {
  compute_and_drain(manager_, prompt_.blocks());
  clear(*manager_.device());
  const std::uint64_t id = plan();
  const auto blocks = fetch(id, {1});
  sharing_.release(id);
  clear(*manager_.host());
  EXPECT_TRUE(is_right(blocks.front(), 1));
}

TEST_F(TierSharingTest, EachBlockHasItsOwnError) {
  compute_and_drain(manager_, prompt_.blocks());
  const auto blocks = fetch(plan(2), {1, 2, 0});
  EXPECT_TRUE(is_right(blocks[0], 1));
  ASSERT_FALSE(blocks[1]);
  EXPECT_EQ(blocks[1].error().code, ErrorCode::InvalidBlockIndex);
  EXPECT_EQ(blocks[1].error().requested, 2u);
  EXPECT_EQ(blocks[1].error().available, 2u);
  EXPECT_TRUE(is_right(blocks[2], 0));
}

TEST_F(TierSharingTest, OfAPlanThatIsGoneNothingIsFetched) {
  compute_and_drain(manager_, prompt_.blocks());
  const std::uint64_t id = plan();
  EXPECT_TRUE(sharing_.is_current(id));
  sharing_.release(id);
  EXPECT_FALSE(sharing_.is_current(id));
  for (const auto& block : fetch(id, {0, 1})) {
    ASSERT_FALSE(block);
    EXPECT_EQ(block.error().code, ErrorCode::PlanExpired);
  }
}

TEST_F(TierSharingTest, AResetIsSeenByThoseWhoHaveAPlan) {
  compute_and_drain(manager_, prompt_.blocks());
  const std::uint64_t id = plan();
  manager_.reset(NamespaceId{1}).value();
  EXPECT_TRUE(sharing_.is_current(id)) << "of another namespace";
  manager_.reset(NamespaceId{0}).value();
  EXPECT_FALSE(sharing_.is_current(id));
}

TEST_F(TierSharingTest, ALookupPastTheEndOfWhatIsThereFindsLess) {
  compute_and_drain(manager_, prompt_.blocks().first(3));
  const auto answer = sharing_.lookup(hashes_of(prompt_.blocks()), {}, 0, kLease).value();
  EXPECT_EQ(answer.blocks, 3u);
  EXPECT_EQ(sharing_.trim(answer.plan, 1).value().blocks, 1u);
  EXPECT_EQ(fetch(answer.plan, {1}).front().error().code, ErrorCode::InvalidBlockIndex);
}

KvBlockManagerConfig keeps_to_the_device() {
  KvBlockManagerConfig config = test_config();
  config.device_layout->offload.mode = OffloadMode::Selective;
  return config;
}

class DeviceSharingTest : public TierSharingTest {
 protected:
  DeviceSharingTest() : TierSharingTest(keeps_to_the_device()) {}
};

TEST_F(DeviceSharingTest, BlocksOfTheDeviceAreCopiedToTheHostTier) {
  compute_and_drain(manager_, prompt_.blocks());
  EXPECT_FALSE(manager_.presence(prompt_.blocks()[0].sequence_hash()).host);
  const auto blocks = fetch(plan(), {0, 3});
  EXPECT_TRUE(is_right(blocks[0], 0));
  EXPECT_TRUE(is_right(blocks[1], 3));
  EXPECT_TRUE(manager_.presence(prompt_.blocks()[3].sequence_hash()).host);
}

TEST_F(DeviceSharingTest, AFetchEndsAtItsDeadlineOrWhenItIsStopped) {
  compute_and_drain(manager_, prompt_.blocks());
  const std::uint64_t id = plan();
  EXPECT_EQ(fetch(id, {0}, seconds(-1)).front().error().code, ErrorCode::TimedOut);
  std::stop_source stop;
  stop.request_stop();
  // It may have ended before it is stopped.
  const auto stopped = fetch(id, {1}, seconds(60), stop.get_token());
  if (!stopped.front()) {
    EXPECT_EQ(stopped.front().error().code, ErrorCode::Cancelled);
  }
}

TEST_F(DeviceSharingTest, AManagerThatClosesEndsWhatIsFetched) {
  compute_and_drain(manager_, prompt_.blocks());
  const std::uint64_t id = plan();
  manager_.close();
  EXPECT_EQ(fetch(id, {0}).front().error().code, ErrorCode::PlanExpired);
}

}  // namespace
}  // namespace kvbm::detail
