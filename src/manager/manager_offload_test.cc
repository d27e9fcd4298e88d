// What is copied down, and staged up, because the caller says so; and forgetting one tier.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "manager/test_gate.h"
#include "manager/test_manager.h"

namespace kvbm::detail {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using testing::HasSubstr;

// "GHD": device, host and disk have the block; "---": none.
std::string where(const ReferenceBlockManager& manager, const TokenBlock& block) {
  const Presence presence = manager.presence(block.sequence_hash());
  return {presence.device ? 'G' : '-', presence.host ? 'H' : '-', presence.disk ? 'D' : '-'};
}

KvBlockManagerConfig selective_config() {
  KvBlockManagerConfig config = test_config();
  config.device_layout->offload.mode = OffloadMode::Selective;
  return config;
}

class OffloadTest : public testing::Test {
 protected:
  ~OffloadTest() override { gate_.open(); }

  const TokenBlockSequence tokens_ = test_prompt(0, 3);
  TestGate gate_;
  ReferenceBlockManager manager_ = gate_.manager(selective_config());
};

TEST_F(OffloadTest, WhatIsNamedGoesDownAndNothingElse) {
  auto blocks = compute(manager_, tokens_.blocks());
  compute(manager_, test_prompt(900, 2).blocks());
  ASSERT_TRUE(manager_.drain(kTestPatience));
  EXPECT_EQ(where(manager_, tokens_.blocks()[0]), "G--");
  const auto copies = manager_.offload(std::move(blocks)).value().get();
  ASSERT_EQ(copies.blocks.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(copies.blocks[i].has_value());
    EXPECT_EQ(copies.blocks[i]->sequence_hash(), tokens_.blocks()[i].sequence_hash());
    EXPECT_TRUE(has_test_bytes(copies.blocks[i]->block_view().value().bytes(),
                               tokens_.blocks()[i].sequence_hash()));
  }
  ASSERT_TRUE(manager_.drain(kTestPatience));
  EXPECT_EQ(where(manager_, tokens_.blocks()[2]), "GHD") << "the host writes through";
  EXPECT_EQ(where(manager_, test_prompt(900, 2).blocks()[0]), "G--");
}

TEST_F(OffloadTest, WhatIsThereAlreadyIsNotCopiedAgain) {
  manager_.offload(compute(manager_, tokens_.blocks())).value().get();
  ASSERT_TRUE(manager_.drain(kTestPatience));
  const auto moved = manager_.transfer_stats().edges[std::size_t(Edge::DeviceToHost)].blocks;
  const auto again = manager_.offload(compute(manager_, tokens_.blocks())).value().get();
  EXPECT_TRUE(again.blocks[2].has_value());
  EXPECT_EQ(manager_.transfer_stats().edges[std::size_t(Edge::DeviceToHost)].blocks, moved);
}

TEST_F(OffloadTest, ARequestEndsAtItsDeadlineAndItsSourceIsHeldUntilTheCopyHasEnded) {
  auto blocks = compute(manager_, tokens_.blocks());
  gate_.shut();
  const auto late = manager_.offload(std::move(blocks), {.timeout = milliseconds(1)}).value().get();
  ASSERT_EQ(late.blocks.size(), 3u);
  EXPECT_EQ(late.blocks[0].error().code, ErrorCode::TimedOut);
  EXPECT_EQ(manager_.device()->available_blocks(), 5u);
  gate_.open();
  ASSERT_TRUE(manager_.drain(kTestPatience));
  EXPECT_EQ(manager_.device()->available_blocks(), 8u);
  EXPECT_EQ(where(manager_, tokens_.blocks()[0]), "G--") << "nobody wanted it any more";
}

TEST_F(OffloadTest, AStopTokenEndsIt) {
  auto blocks = compute(manager_, tokens_.blocks());
  gate_.shut();
  std::stop_source stop;
  auto offload = manager_.offload(std::move(blocks), {.stop = stop.get_token()}).value();
  EXPECT_FALSE(offload.done());
  stop.request_stop();
  EXPECT_EQ(std::move(offload).get().blocks[1].error().code, ErrorCode::Cancelled);
}

TEST_F(OffloadTest, TheRuleOfTheTierIsAskedOnlyIfTheCallerWants) {
  KvBlockManagerConfig config = selective_config();
  config.device_layout->offload.admission.min_priority = 50;
  auto manager = ReferenceBlockManager::create(config).value();
  const auto refused =
      manager.offload(compute(manager, tokens_.blocks()), {.admission = true}).value().get();
  EXPECT_EQ(refused.blocks[0].error().code, ErrorCode::NotAdmitted);
  EXPECT_EQ(manager.transfer_stats().offloads_not_admitted, 3u);
  const auto copied = manager.offload(compute(manager, tokens_.blocks())).value().get();
  EXPECT_TRUE(copied.blocks[0].has_value());
}

TEST_F(OffloadTest, ABlockOfAnotherPoolOrNoHostTierIsRefused) {
  auto other = ReferenceBlockManager::create(test_config(8, 0, 0)).value();
  auto blocks = compute(manager_, tokens_.blocks());
  blocks[1] = std::move(compute(other, tokens_.blocks())[1]);
  const auto foreign = manager_.offload(std::move(blocks));
  ASSERT_FALSE(foreign.has_value());
  EXPECT_EQ(foreign.error().code, ErrorCode::InvalidMutableBlock);
  EXPECT_EQ(foreign.error().requested, 1u);

  const auto nowhere = other.offload(compute(other, tokens_.blocks()));
  ASSERT_FALSE(nowhere.has_value());
  EXPECT_EQ(nowhere.error().code, ErrorCode::InvalidConfig);
  EXPECT_THAT(nowhere.error().message, HasSubstr("no host tier"));
  EXPECT_TRUE(manager_.offload({}).value().get().blocks.empty());
}

TEST_F(OffloadTest, AfterClosingItIsRefused) {
  auto blocks = compute(manager_, tokens_.blocks());
  Lookup found = manager_.lookup(tokens_.sequence_hashes());
  manager_.close();
  EXPECT_EQ(manager_.offload(std::move(blocks)).error().code, ErrorCode::ProgressEngineShutdown);
  EXPECT_EQ(manager_.prefetch(std::move(found)).error().code, ErrorCode::ProgressEngineShutdown);
}

// --- staging ahead ---------------------------------------------------------------------------

class PrefetchTest : public testing::Test {
 protected:
  PrefetchTest() {
    compute_and_drain(manager_, tokens_.blocks());
    clear(*manager_.device());
    clear(*manager_.host());
  }
  ~PrefetchTest() override { gate_.open(); }
  Lookup look_up() { return manager_.lookup(tokens_.sequence_hashes()); }

  const TokenBlockSequence tokens_ = test_prompt(0, 3);
  TestGate gate_;
  ReferenceBlockManager manager_ = gate_.manager(test_config());
};

TEST_F(PrefetchTest, BlocksOnDiskAreInTheHostWhenTheRequestComes) {
  ASSERT_EQ(look_up().count(Tier::Disk), 3u);
  const PrefetchResult result = manager_.prefetch(look_up()).value().get();
  EXPECT_EQ(result.staged, 3u);
  EXPECT_EQ(result.failed, 0u);
  EXPECT_EQ(look_up().count(Tier::Host), 3u);
  const auto loaded = manager_.onboard(look_up()).value().get();
  ASSERT_EQ(loaded.valid_prefix(), 3u);
  EXPECT_TRUE(is_right(*loaded.blocks[2]));
}

TEST_F(PrefetchTest, WhatArrivedIsHeldForAsLongAsWasAskedFor) {
  manager_.prefetch(look_up(), {.hold_for = hours(1)}).value().get();
  EXPECT_EQ(manager_.host()->available_blocks(), 5u);
  clear(*manager_.host());
  EXPECT_EQ(look_up().count(Tier::Host), 3u);
}

TEST_F(PrefetchTest, HeldForNoTimeItMayBeEvictedAtOnce) {
  manager_.prefetch(look_up(), {.hold_for = milliseconds(0)}).value().get();
  EXPECT_EQ(manager_.host()->available_blocks(), 8u);
  clear(*manager_.host());
  EXPECT_EQ(look_up().count(Tier::Disk), 3u);
}

TEST_F(PrefetchTest, WhatIsAboveTheDiskStaysWhereItIs) {
  manager_.onboard(manager_.lookup(tokens_.blocks().first(1))).value().get();
  ASSERT_TRUE(manager_.drain(kTestPatience));
  const PrefetchResult result = manager_.prefetch(look_up()).value().get();
  EXPECT_EQ(result.staged, 2u);
  EXPECT_EQ(manager_.prefetch(Lookup()).value().get().staged, 0u);
}

TEST_F(PrefetchTest, ATimeoutTellsHowManyDidNotCome) {
  gate_.shut();
  const PrefetchResult result =
      manager_.prefetch(look_up(), {.timeout = milliseconds(1)}).value().get();
  EXPECT_EQ(result.staged, 0u);
  EXPECT_EQ(result.failed, 3u);
  gate_.open();
  ASSERT_TRUE(manager_.drain(kTestPatience));
  EXPECT_EQ(manager_.host()->available_blocks(), 8u);
}

// --- forgetting one tier ---------------------------------------------------------------------

TEST(TierResetTest, OneTierForgetsAndTheOthersServe) {
  auto manager = ReferenceBlockManager::create(test_config()).value();
  const auto tokens = test_prompt(0, 3);
  compute_and_drain(manager, tokens.blocks());
  ASSERT_EQ(where(manager, tokens.blocks()[1]), "GHD");
  manager.reset(Tier::Host).value();
  EXPECT_EQ(where(manager, tokens.blocks()[1]), "G-D");
  manager.reset(Tier::Device).value();
  EXPECT_EQ(where(manager, tokens.blocks()[1]), "--D");
  Lookup found = manager.lookup(tokens.sequence_hashes());
  ASSERT_EQ(found.count(Tier::Disk), 3u);
  const auto loaded = manager.onboard(std::move(found)).value().get();
  ASSERT_EQ(loaded.valid_prefix(), 3u);
  EXPECT_TRUE(is_right(*loaded.blocks[1]));
  ASSERT_TRUE(manager.drain(kTestPatience));
  manager.reset(Tier::Disk).value();
  EXPECT_EQ(where(manager, tokens.blocks()[1]), "GH-");
}

TEST(TierResetTest, ACopyUnderWayToTheTierArrivesForgotten) {
  TestGate gate;
  auto manager = gate.manager(test_config());
  const auto tokens = test_prompt(0, 2);
  gate.shut();
  compute(manager, tokens.blocks());
  while (gate.waiting() == 0) std::this_thread::yield();
  manager.reset(Tier::Host).value();
  gate.open();
  ASSERT_TRUE(manager.drain(kTestPatience));
  EXPECT_EQ(where(manager, tokens.blocks()[0]), "G--");
}

TEST(TierResetTest, ATierThatIsNotThereHasNothingToForget) {
  auto manager = ReferenceBlockManager::create(test_config(8, 0, 0)).value();
  compute(manager, test_prompt(0, 2).blocks());
  EXPECT_TRUE(manager.reset(Tier::Disk).has_value());
  EXPECT_EQ(manager.lookup(test_prompt(0, 2).sequence_hashes()).size(), 2u);
  manager.close();
  EXPECT_EQ(manager.reset(Tier::Device).error().code, ErrorCode::ProgressEngineShutdown);
}

}  // namespace
}  // namespace kvbm::detail
