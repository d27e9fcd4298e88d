#include <gtest/gtest.h>

#include <cmath>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;

BlockStore::Owner make_store(std::size_t blocks) {
  return BlockStore::create({.capacity = blocks}).value();
}

// --- touch -----------------------------------------------------------------------------------

TEST(BlockStoreTouchTest, MakesAChainTheMostRecentlyUsed) {
  const auto store = make_store(4);
  put_chain(*store, 1, 2);
  put_chain(*store, 2, 2);
  EXPECT_EQ(store->touch(chain(1, 2)), 2u);
  const auto taken = detail::allocate(*store, 2).value();
  EXPECT_EQ(resident(*store, 1, 2), "01");
  EXPECT_EQ(resident(*store, 2, 2), "--");
  store->check_invariants();
}

TEST(BlockStoreTouchTest, StopsAtTheFirstMiss) {
  const auto store = make_store(3);
  put(*store, 1, 0);
  put(*store, 1, 2);
  put(*store, 2, 0);
  EXPECT_EQ(store->touch(chain(1, 3)), 1u);
  {
    const auto taken = detail::allocate(*store, 1).value();
    EXPECT_EQ(resident(*store, 1, 3), "0--") << "block 2 was not touched";
  }
  EXPECT_EQ(store->touch(chain(3, 2)), 0u);
  EXPECT_EQ(store->touch(chain(1, 0)), 0u);
  store->check_invariants();
}

TEST(BlockStoreTouchTest, KeepsChildrenBeforeParents) {
  const auto store = make_store(3);
  put_chain(*store, 1, 3);
  EXPECT_EQ(store->touch(chain(1, 3)), 3u);
  store->check_invariants();
  std::vector<MutableHold> taken;
  for (const char* left : {"01-", "0--", "---"}) {
    taken.push_back(allocate_one(*store));
    EXPECT_EQ(resident(*store, 1, 3), left);
  }
}

// Killed mutant: moving the touched block alone to the end would do for whole chains only.
TEST(BlockStoreTouchTest, TouchingAPrefixLeavesTheRestOfTheChainColder) {
  const auto store = make_store(4);
  put_chain(*store, 1, 3);
  put(*store, 2, 0);
  EXPECT_EQ(store->touch(chain(1, 1)), 1u);
  store->check_invariants();
  std::vector<MutableHold> taken;
  for (int i = 0; i < 3; ++i) taken.push_back(allocate_one(*store));
  EXPECT_EQ(resident(*store, 1, 3), "0--");
  EXPECT_EQ(resident(*store, 2, 1), "-");
}

TEST(BlockStoreTouchTest, TakesNoHoldAndIsNoMatch) {
  const auto store = make_store(3);
  const auto held = put_chain(*store, 1, 2);
  put(*store, 2, 0);
  const std::vector<SequenceHash> twice = {name(2, 0), name(2, 0), name(1, 0)};
  EXPECT_EQ(store->touch(twice), 3u);
  EXPECT_EQ(store->available_blocks(), 1u);
  EXPECT_EQ(store->stats().matches, 0u);
  store->check_invariants();
}

// --- scan ------------------------------------------------------------------------------------

TEST(BlockStoreScanTest, SkipsMissesAndTellsPositions) {
  const auto store = make_store(4);
  const BlockId zero = put(*store, 1, 0).id();
  const BlockId two = put(*store, 1, 2).id();
  const std::vector<SequenceHash> hashes = {name(9, 0), name(1, 2), name(1, 1), name(1, 0)};
  {
    const auto found = detail::scan(*store, hashes);
    ASSERT_EQ(found.size(), 2u);
    EXPECT_EQ(found[0].first, 1u);
    EXPECT_EQ(found[0].second.id(), two);
    EXPECT_EQ(found[1].first, 3u);
    EXPECT_EQ(found[1].second.id(), zero);
    EXPECT_EQ(store->available_blocks(), 2u) << "both are held";
    store->check_invariants();
  }
  EXPECT_EQ(store->available_blocks(), 4u);
  EXPECT_EQ(store->stats().matches, 2u);
  EXPECT_TRUE(detail::scan(*store, chain(1, 0)).empty());
}

TEST(BlockStoreScanTest, ANameThatIsAskedTwiceIsHeldTwice) {
  const auto store = make_store(2);
  put(*store, 1, 0);
  const std::vector<SequenceHash> hashes = {name(1, 0), name(1, 0)};
  auto found = detail::scan(*store, hashes);
  ASSERT_EQ(found.size(), 2u);
  found.pop_back();
  EXPECT_EQ(store->available_blocks(), 1u);
  found.pop_back();
  EXPECT_EQ(store->available_blocks(), 2u);
  store->check_invariants();
}

TEST(BlockStoreScanTest, AppendsToWhatIsThere) {
  const auto store = make_store(2);
  put(*store, 1, 0);
  std::vector<std::pair<std::size_t, BlockId>> found = {{7, 7}};
  const auto hashes = chain(1, 1);
  store->scan(hashes, found);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].first, 7u);
  EXPECT_EQ(found[1].first, 0u);
  store->release(found[1].second);
}

// --- reset -----------------------------------------------------------------------------------

TEST(BlockStoreResetTest, ForgetsWhatNobodyHolds) {
  const auto store = make_store(5);
  put_chain(*store, 1, 3);
  put(*store, 2, 1);  // without its parent
  const ResetCounts counts = store->reset();
  EXPECT_EQ(counts.evictable, 4u);
  EXPECT_EQ(counts.still_held, 0u);
  EXPECT_EQ(store->available_blocks(), 5u);
  EXPECT_EQ(store->stats().registered, 0u);
  EXPECT_EQ(resident(*store, 1, 3), "---");
  store->check_invariants();
}

TEST(BlockStoreResetTest, HeldBlocksStayValidAndAreNeverMatchedAgain) {
  const auto store = make_store(6);
  put_chain(*store, 1, 4);
  auto run = detail::match_run(*store, chain(1, 3));
  const std::vector<BlockId> ids = detail::ids(run);

  const ResetCounts counts = store->reset();
  EXPECT_EQ(counts.evictable, 1u) << "block 3";
  EXPECT_EQ(counts.still_held, 3u) << "one hold keeps the chain";
  store->check_invariants();
  EXPECT_EQ(detail::ids(run), ids);
  EXPECT_EQ(store->identity(ids[2]).sequence_hash, name(1, 2));
  EXPECT_TRUE(detail::match(*store, chain(1, 4)).empty());
  EXPECT_TRUE(detail::scan(*store, chain(1, 4)).empty());
  EXPECT_EQ(store->touch(chain(1, 4)), 0u);
  EXPECT_EQ(store->available_blocks(), 3u);

  run = {};
  EXPECT_EQ(store->available_blocks(), 6u);
  store->check_invariants();
}

TEST(BlockStoreResetTest, ThePoolIsUsableAfterwards) {
  const auto store = make_store(4);
  const auto old = put_chain(*store, 1, 2);
  store->reset();
  const auto fresh = put_chain(*store, 1, 2);
  EXPECT_NE(fresh[0].id(), old[0].id());
  EXPECT_EQ(detail::match_run(*store, chain(1, 2)).count(), 2u);
  store->check_invariants();
  EXPECT_EQ(store->reset().still_held, 2u);
  EXPECT_EQ(store->reset().still_held, 0u) << "those were forgotten before";
  EXPECT_EQ(store->available_blocks(), 0u);
  store->check_invariants();
}

TEST(BlockStoreResetTest, BlocksOfTheirOwnersAreLeftAlone) {
  const auto store = make_store(3);
  MutableHold writing = allocate_one(*store);
  CompleteHold named = detail::complete(allocate_one(*store), identity(1, 0));
  const ResetCounts counts = store->reset();
  EXPECT_EQ(counts.evictable + counts.still_held, 0u);
  store->check_invariants();
  store->complete(writing.id(), identity(1, 0));
  EXPECT_TRUE(store->is_complete(writing.id()));
}

// What it holds was computed before the reset, perhaps by another model.
TEST(BlockStoreResetTest, ABlockNamedBeforeAndRegisteredAfterIsNeverMatched) {
  const auto store = make_store(3);
  std::vector<CompleteHold> blocks;
  blocks.push_back(detail::complete(allocate_one(*store), identity(1, 0)));
  store->reset();
  auto registered = detail::register_blocks(*store, std::move(blocks)).value();
  EXPECT_FALSE(store->contains(name(1, 0)));
  EXPECT_EQ(store->identity(registered[0].id()).sequence_hash, name(1, 0))
      << "valid for its holder";
  store->check_invariants();
  registered.clear();
  EXPECT_EQ(store->stats().free, 3u);
  store->check_invariants();
}

TEST(BlockStoreResetTest, WhatWasForgottenIsEvictedFirst) {
  const auto store = make_store(4);
  put_chain(*store, 1, 2);
  store->reset();
  put_chain(*store, 2, 2);
  detail::match_run(*store, chain(2, 2));
  std::vector<SequenceHash> evicted;
  const auto two = detail::allocate(*store, 2, &evicted).value();
  EXPECT_TRUE(evicted.empty()) << "those had no names any more";
  EXPECT_EQ(resident(*store, 2, 2), "01");
  store->check_invariants();
}

TEST(BlockStoreResetTest, ANamespaceIsForgottenAlone) {
  const auto store = make_store(6);
  for (const NamespaceId space : {NamespaceId{0}, NamespaceId{7}}) {
    std::vector<CompleteHold> blocks;
    for (std::uint32_t i = 0; i < 2; ++i) {
      BlockIdentity named = identity(1, i);
      named.name_space = space;
      blocks.push_back(detail::complete(allocate_one(*store), named));
    }
    EXPECT_EQ(detail::register_blocks(*store, std::move(blocks)).value().size(), 2u);
  }
  EXPECT_EQ(store->stats().registered, 4u) << "equal hashes of two namespaces are two names";
  EXPECT_EQ(store->reset(7).evictable, 2u);
  const auto hashes = chain(1, 2);
  EXPECT_EQ(detail::match_run(*store, {hashes, {}, 7}).count(), 0u);
  EXPECT_EQ(detail::match_run(*store, hashes).count(), 2u);
  EXPECT_EQ(store->reset(3).evictable, 0u) << "nothing was there";
  EXPECT_EQ(store->stats().registered, 2u);
  store->check_invariants();
}

// Epochs have 16 bits: after 65,536 resets the first one comes again.
TEST(BlockStoreResetTest, NamesOfTheSameEpochNumberLongAgoStayForgotten) {
  const auto store = make_store(4);
  const auto held = put(*store, 1, 0);
  put(*store, 2, 0);
  for (int i = 0; i < 65'536; ++i) store->reset(0);
  EXPECT_FALSE(store->contains(name(1, 0)));
  EXPECT_FALSE(store->contains(name(2, 0)));
  store->check_invariants();
  put(*store, 1, 0);
  EXPECT_TRUE(store->contains(name(1, 0)));
  store->check_invariants();
}

TEST(BlockStoreResetTest, DuplicatesStayWithTheirHolders) {
  const auto store =
      BlockStore::create(
          {.capacity = 3, .duplicates = BlockRegistrationDuplicationSetting::Allowed})
          .value();
  put(*store, 1, 0);
  ImmutableHold duplicate = put(*store, 1, 0);
  EXPECT_EQ(store->reset().still_held, 1u) << "the primary, which the duplicate holds";
  EXPECT_EQ(store->available_blocks(), 1u);
  store->check_invariants();
  duplicate = {};
  EXPECT_EQ(store->available_blocks(), 3u);
  store->check_invariants();
}

// The epochs begin anew while the block waits for its registration.
TEST(BlockStoreResetTest, ANameThatWasGivenEpochsAgoIsForgotten) {
  const auto store = make_store(2);
  std::vector<CompleteHold> blocks;
  blocks.push_back(detail::complete(allocate_one(*store), identity(1, 0)));
  for (int i = 0; i < 65'535; ++i) store->reset(0);
  const auto registered = detail::register_blocks(*store, std::move(blocks)).value();
  EXPECT_FALSE(store->contains(name(1, 0)));
  store->check_invariants();
}

// --- the miss-ratio curve --------------------------------------------------------------------

TEST(BlockStoreCurveTest, CountsWhatMatchesAskForWhetherTheyFindItOrNot) {
  const auto store = BlockStore::create({.capacity = 2, .curve_samples = 100}).value();
  EXPECT_TRUE(std::isnan(store->hit_ratio_at(1))) << "nothing was asked for yet";
  for (int round = 0; round < 5; ++round) {
    detail::match_run(*store, chain(1, 4));
    detail::match(*store, chain(1, 4));
  }
  EXPECT_DOUBLE_EQ(store->hit_ratio_at(3), 0) << "four blocks in turn are too many for three";
  EXPECT_DOUBLE_EQ(store->hit_ratio_at(4), 0.9) << "all but the first round";
  ASSERT_FALSE(store->miss_ratio_curve().empty());
  EXPECT_DOUBLE_EQ(store->miss_ratio_curve().back().hit_ratio, 0.9);
}

TEST(BlockStoreCurveTest, AStoreMayGoWithout) {
  const auto store = make_store(2);
  detail::match_run(*store, chain(1, 4));
  EXPECT_TRUE(std::isnan(store->hit_ratio_at(1)));
  EXPECT_TRUE(store->miss_ratio_curve().empty());
}

// --- add_blocks ------------------------------------------------------------------------------

TEST(BlockStoreAddBlocksTest, AStoreMayStartEmpty) {
  const auto store = BlockStore::create({.capacity = 4, .start_empty = true}).value();
  EXPECT_EQ(store->total_blocks(), 0u);
  EXPECT_EQ(store->capacity(), 4u);
  const auto refused = detail::allocate(*store, 1);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().requested, 1u);
  EXPECT_EQ(refused.error().available, 0u);
  store->check_invariants();

  const std::vector<BlockId> some = {3, 1};
  ASSERT_TRUE(store->add_blocks(some).has_value());
  EXPECT_EQ(store->total_blocks(), 2u);
  store->check_invariants();
  const auto blocks = detail::allocate(*store, 2).value();
  EXPECT_EQ(blocks[0].id(), 3u);
  EXPECT_EQ(blocks[1].id(), 1u);
}

TEST(BlockStoreAddBlocksTest, RefusalsNameTheBlockAndAddNothing) {
  const auto store = BlockStore::create({.capacity = 4, .start_empty = true}).value();
  ASSERT_TRUE(store->add_blocks(std::vector<BlockId>{0}).has_value());
  for (const BlockId bad : {BlockId{0}, BlockId{4}, kNoBlock}) {
    const auto refused = store->add_blocks(std::vector<BlockId>{1, bad});
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::InvalidMutableBlock);
    EXPECT_EQ(refused.error().requested, bad);
    EXPECT_EQ(refused.error().available, 4u);
  }
  EXPECT_EQ(store->total_blocks(), 1u);
  store->check_invariants();
}

TEST(BlockStoreAddBlocksTest, ABlockNamedTwiceIsAddedOnce) {
  const auto store = BlockStore::create({.capacity = 2, .start_empty = true}).value();
  ASSERT_TRUE(store->add_blocks(std::vector<BlockId>{1, 1}).has_value());
  EXPECT_EQ(store->total_blocks(), 1u);
  EXPECT_EQ(store->available_blocks(), 1u);
  store->check_invariants();
}

}  // namespace
}  // namespace kvbm
