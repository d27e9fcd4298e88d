// Onboarding into blocks that the caller names: those of the pool, and those of an engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "manager/test_gate.h"
#include "manager/test_manager.h"

namespace kvbm::detail {
namespace {

using testing::HasSubstr;

// --- blocks of the pool ----------------------------------------------------------------------

class OnboardIntoGivenTest : public testing::Test {
 protected:
  OnboardIntoGivenTest() {
    compute_and_drain(manager_, tokens_.blocks());
    clear(*manager_.device());
  }
  auto allocate(std::size_t count) {
    return manager_.device()->allocate_blocks_blocking(count).value();
  }
  Lookup look_up() { return manager_.lookup(tokens_.sequence_hashes()); }

  const TokenBlockSequence tokens_ = test_prompt(0, 3);
  ReferenceBlockManager manager_ = ReferenceBlockManager::create(test_config()).value();
};

TEST_F(OnboardIntoGivenTest, EachBlockArrivesWhereItWasSent) {
  auto targets = allocate(3);
  std::vector<BlockId> ids;
  for (const auto& target : targets) ids.push_back(target.block_id());
  const auto loaded = manager_.onboard(look_up(), std::move(targets)).value().get();
  ASSERT_EQ(loaded.valid_prefix(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(loaded.blocks[i]->block_id(), ids[i]);
    EXPECT_TRUE(is_right(*loaded.blocks[i]));
  }
  EXPECT_EQ(manager_.device()->available_blocks(), 5u);
}

TEST_F(OnboardIntoGivenTest, OnlyBlocksThatAreMissingNeedATarget) {
  const auto held = manager_.onboard(manager_.lookup(tokens_.blocks().first(2))).value().get();
  Lookup found = look_up();
  ASSERT_EQ(found.count(Tier::Device), 2u);
  const auto loaded = manager_.onboard(std::move(found), allocate(1)).value().get();
  EXPECT_EQ(loaded.valid_prefix(), 3u);
  EXPECT_EQ(loaded.blocks[0]->block_id(), held.blocks[0]->block_id());
}

TEST_F(OnboardIntoGivenTest, WhatArrivedForSomebodyElseMeanwhileIsShared) {
  Lookup first = look_up();
  Lookup second = look_up();
  const auto loaded = manager_.onboard(std::move(first)).value().get();
  const auto again = manager_.onboard(std::move(second), allocate(3)).value().get();
  ASSERT_EQ(again.valid_prefix(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(again.blocks[i]->block_id(), loaded.blocks[i]->block_id());
  }
  EXPECT_EQ(manager_.device()->available_blocks(), 5u) << "the given ones are free again";
}

TEST_F(OnboardIntoGivenTest, AWrongNumberIsRefusedAndAllIsFree) {
  for (const std::size_t given : {0u, 2u, 4u}) {
    const auto refused = manager_.onboard(look_up(), allocate(given));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::InvalidConfig);
    EXPECT_EQ(refused.error().requested, given);
    EXPECT_EQ(refused.error().available, 3u);
  }
  EXPECT_EQ(manager_.device()->available_blocks(), 8u);
  EXPECT_EQ(manager_.host()->available_blocks(), 8u);
}

TEST_F(OnboardIntoGivenTest, ABlockOfAnotherPoolOrWithANameIsRefused) {
  auto other = ReferenceBlockManager::create(test_config()).value();
  auto targets = allocate(3);
  targets[1] = std::move(other.device()->allocate_blocks_blocking(1).value()[0]);
  auto refused = manager_.onboard(look_up(), std::move(targets));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::InvalidMutableBlock);
  EXPECT_EQ(refused.error().requested, 1u);

  targets = allocate(3);
  targets[2].apply_token_block(test_prompt(50, 1).blocks()[0]).value();
  refused = manager_.onboard(look_up(), std::move(targets));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().requested, 2u);

  targets = allocate(3);
  targets[0] = {};
  EXPECT_EQ(manager_.onboard(look_up(), std::move(targets)).error().requested, 0u);
  EXPECT_EQ(manager_.device()->available_blocks(), 8u);
}

TEST_F(OnboardIntoGivenTest, ExternalBlocksNeedAnExternalLayout) {
  const ExternalBlocks external{.ids = {0, 1, 2}};
  EXPECT_THAT(manager_.onboard(look_up(), external).error().message,
              HasSubstr("device_layout.external is not set"));
  EXPECT_THAT(manager_.offload(external, tokens_.blocks()).error().message,
              HasSubstr("device_layout.external is not set"));
}

// --- blocks of an engine ---------------------------------------------------------------------

// An engine that hands out the blocks of its memory itself.
class ExternalBlocksTest : public testing::Test {
 protected:
  static KvBlockManagerConfig config(const DeviceStorage& memory) {
    KvBlockManagerConfig config = test_config(kBlocks);
    config.device_layout = {.num_blocks = kBlocks, .storage = {memory}, .external = true};
    return config;
  }
  ~ExternalBlocksTest() override { gate_.open(); }

  std::span<std::byte> block(BlockId id) {
    return {memory_.as_mut_ptr() + id * kTestBlockBytes, kTestBlockBytes};
  }
  void fill(BlockId id, const TokenBlock& tokens) {
    fill_test_bytes(block(id), tokens.sequence_hash());
  }
  bool holds(BlockId id, const TokenBlock& tokens) {
    return has_test_bytes(block(id), tokens.sequence_hash());
  }
  // Computes the prompt in these blocks and copies it to the host.
  ExternalResult offload(std::vector<BlockId> ids) {
    for (std::size_t i = 0; i < ids.size(); ++i) fill(ids[i], tokens_.blocks()[i]);
    return manager_.offload({.ids = std::move(ids)}, tokens_.blocks()).value().get();
  }
  Lookup look_up() { return manager_.lookup(tokens_.sequence_hashes()); }

  static constexpr std::size_t kBlocks = 8;
  const TokenBlockSequence tokens_ = test_prompt(0, 3);
  DeviceStorage memory_ = HostBackedDeviceAllocator().allocate(kBlocks * kTestBlockBytes).value();
  TestGate gate_;
  ReferenceBlockManager manager_ = gate_.manager(config(memory_));
};

TEST_F(ExternalBlocksTest, BytesComeBackToWhicheverBlocksAreNamed) {
  EXPECT_EQ(manager_.device(), nullptr);
  EXPECT_EQ(offload({6, 0, 3}).valid_prefix(), 3u);
  ASSERT_TRUE(manager_.drain(kTestPatience));
  Lookup found = look_up();
  ASSERT_EQ(found.count(Tier::Host), 3u) << "the engine's blocks are no tier of ours";
  std::ranges::fill(std::span(memory_.as_mut_ptr(), kBlocks * kTestBlockBytes), std::byte{1});
  const auto loaded = manager_.onboard(std::move(found), {.ids = {1, 7, 2}}).value().get();
  EXPECT_EQ(loaded.valid_prefix(), 3u);
  EXPECT_TRUE(holds(1, tokens_.blocks()[0]));
  EXPECT_TRUE(holds(7, tokens_.blocks()[1]));
  EXPECT_TRUE(holds(2, tokens_.blocks()[2]));
  for (const BlockId other : {0u, 3u, 4u, 5u, 6u}) EXPECT_EQ(block(other)[0], std::byte{1});
}

TEST_F(ExternalBlocksTest, NobodyWaitsForLayersOfARequestThatIsNotBegun) {
  const auto none = std::make_shared<LayerProgress>();
  ASSERT_TRUE(manager_.onboard(look_up(), ExternalBlocks{}, {.layers = none}).has_value());
  none->wait(1);
  ASSERT_EQ(offload({6, 0, 3}).valid_prefix(), 3u);
  const auto refused = std::make_shared<LayerProgress>();
  EXPECT_FALSE(
      manager_.onboard(look_up(), ExternalBlocks{.ids = {1}}, {.layers = refused}).has_value());
  refused->wait(1);
  EXPECT_EQ(refused->arrived(), 0u);
}

TEST_F(ExternalBlocksTest, BlocksFromDiskComeThroughTheHost) {
  ASSERT_EQ(offload({0, 1, 2}).valid_prefix(), 3u);
  ASSERT_TRUE(manager_.drain(kTestPatience));
  clear(*manager_.host());
  Lookup found = look_up();
  ASSERT_EQ(found.count(Tier::Disk), 3u);
  EXPECT_EQ(manager_.onboard(std::move(found), {.ids = {5, 4, 3}}).value().get().valid_prefix(),
            3u);
  EXPECT_TRUE(holds(5, tokens_.blocks()[0]));
  EXPECT_TRUE(holds(3, tokens_.blocks()[2]));
}

TEST_F(ExternalBlocksTest, ABlockIsBusyUntilItsCopyHasEnded) {
  ASSERT_EQ(offload({0, 1, 2}).valid_prefix(), 3u);
  ASSERT_TRUE(manager_.drain(kTestPatience));
  gate_.shut();
  auto loading = manager_.onboard(look_up(), {.ids = {5, 6, 7}}).value();
  EXPECT_TRUE(manager_.is_external_busy(5));
  EXPECT_TRUE(manager_.is_external_busy(7));
  EXPECT_FALSE(manager_.is_external_busy(0));
  loading.cancel();
  EXPECT_TRUE(loading.done());
  EXPECT_TRUE(manager_.is_external_busy(5)) << "its bytes may still move";
  gate_.open();
  ASSERT_TRUE(manager_.drain(kTestPatience));
  EXPECT_FALSE(manager_.is_external_busy(5));
}

TEST_F(ExternalBlocksTest, ABlockThatIsBusyFailsAlone) {
  ASSERT_EQ(offload({0, 1, 2}).valid_prefix(), 3u);
  ASSERT_TRUE(manager_.drain(kTestPatience));
  gate_.shut();
  auto first = manager_.onboard(look_up(), {.ids = {5, 6, 7}}).value();
  auto second = manager_.onboard(look_up(), {.ids = {4, 5, 3}}).value();
  gate_.open();
  EXPECT_EQ(std::move(first).get().valid_prefix(), 3u);
  const ExternalResult result = std::move(second).get();
  ASSERT_EQ(result.blocks.size(), 3u);
  EXPECT_TRUE(result.blocks[0].has_value());
  ASSERT_FALSE(result.blocks[1].has_value());
  EXPECT_EQ(result.blocks[1].error().code, ErrorCode::InvalidMutableBlock);
  EXPECT_EQ(result.blocks[1].error().requested, 5u);
  EXPECT_TRUE(result.blocks[2].has_value());
  EXPECT_TRUE(holds(4, tokens_.blocks()[0]));
  EXPECT_TRUE(holds(5, tokens_.blocks()[0])) << "of the first request";
}

TEST_F(ExternalBlocksTest, BadNumbersAreRefused) {
  ASSERT_EQ(offload({0, 1, 2}).valid_prefix(), 3u);
  const auto few = manager_.onboard(look_up(), {.ids = {0, 1}});
  ASSERT_FALSE(few.has_value());
  EXPECT_EQ(few.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(few.error().requested, 2u);
  EXPECT_EQ(few.error().available, 3u);
  const auto beyond = manager_.onboard(look_up(), {.ids = {0, 8, 1}});
  ASSERT_FALSE(beyond.has_value());
  EXPECT_EQ(beyond.error().code, ErrorCode::InvalidBlockIndex);
  EXPECT_EQ(beyond.error().requested, 8u);
  EXPECT_EQ(beyond.error().available, kBlocks);
  EXPECT_EQ(manager_.offload({.ids = {0}}, tokens_.blocks()).error().code,
            ErrorCode::InvalidConfig);
  EXPECT_EQ(manager_.offload({.ids = {0, 1, 9}}, tokens_.blocks()).error().code,
            ErrorCode::InvalidBlockIndex);
  EXPECT_THAT(manager_.onboard(look_up()).error().message,
              HasSubstr("device_layout.external is set"));
}

TEST_F(ExternalBlocksTest, NothingToDoIsDoneAtOnce) {
  auto nothing = manager_.onboard(look_up(), ExternalBlocks{}).value();
  EXPECT_TRUE(nothing.done());
  EXPECT_TRUE(manager_.offload(ExternalBlocks{}, {}).value().get().blocks.empty());
}

}  // namespace
}  // namespace kvbm::detail
