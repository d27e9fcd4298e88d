// A block that is registered under a name that is taken: see BlockRegistrationDuplicationSetting.
#include <gtest/gtest.h>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;
using Setting = BlockRegistrationDuplicationSetting;

BlockStore::Owner make_store(std::size_t blocks, Setting duplicates) {
  return BlockStore::create({.capacity = blocks, .duplicates = duplicates}).value();
}

// Two blocks of one name in one call.
std::vector<ImmutableHold> put_twice(BlockStore& store) {
  std::vector<CompleteHold> blocks;
  for (int i = 0; i < 2; ++i) {
    blocks.push_back(detail::complete(allocate_one(store), identity(1, 0)));
  }
  return detail::register_blocks(store, std::move(blocks)).value();
}

TEST(BlockStoreDuplicatesTest, DisabledFreesTheSecondBlockAtOnce) {
  const auto store = make_store(4, Setting::Disabled);
  const auto holds = put_twice(*store);
  ASSERT_EQ(holds.size(), 2u);
  EXPECT_EQ(holds[0].id(), holds[1].id());
  EXPECT_EQ(store->stats().free, 3u);
  EXPECT_EQ(store->stats().registrations, 1u);
  EXPECT_EQ(store->stats().duplicates, 1u);
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, DisabledRevivesAnEvictableBlock) {
  const auto store = make_store(2, Setting::Disabled);
  const BlockId first = put(*store, 1, 0).id();
  EXPECT_EQ(store->available_blocks(), 2u);
  const ImmutableHold again = put(*store, 1, 0);
  EXPECT_EQ(again.id(), first);
  EXPECT_EQ(store->available_blocks(), 1u);
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, AllowedAnswersWithTheBlockItself) {
  const auto store = make_store(4, Setting::Allowed);
  const auto holds = put_twice(*store);
  ASSERT_EQ(holds.size(), 2u);
  EXPECT_NE(holds[0].id(), holds[1].id());
  EXPECT_EQ(store->identity(holds[1].id()).sequence_hash, name(1, 0));
  EXPECT_EQ(store->available_blocks(), 2u);
  EXPECT_EQ(store->stats().registered, 1u) << "one name";
  EXPECT_EQ(store->stats().duplicates, 1u);
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, MatchesFindThePrimaryOnly) {
  const auto store = make_store(4, Setting::Allowed);
  auto holds = put_twice(*store);
  const BlockId primary = holds[0].id();
  const auto hashes = chain(1, 1);
  EXPECT_EQ(detail::match(*store, hashes).at(0).id(), primary);
  EXPECT_EQ(detail::match_run(*store, hashes).id(), primary);
  holds.erase(holds.begin());  // the primary's own hold
  EXPECT_EQ(detail::match(*store, hashes).at(0).id(), primary);
}

// Killed mutant: a duplicate that does not hold its primary lets the name be evicted under it.
TEST(BlockStoreDuplicatesTest, ADuplicateHoldsItsPrimary) {
  const auto store = make_store(3, Setting::Allowed);
  auto holds = put_twice(*store);
  holds.erase(holds.begin());
  const auto refused = detail::allocate(*store, 2);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().requested, 2u);
  EXPECT_EQ(refused.error().available, 1u);
  store->check_invariants();

  holds.clear();
  EXPECT_EQ(store->stats().free, 2u) << "the duplicate is free, its primary evictable";
  EXPECT_EQ(store->available_blocks(), 3u);
  EXPECT_TRUE(store->contains(name(1, 0)));
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, ADuplicateKeepsThePrimarysWholeChain) {
  const auto store = make_store(4, Setting::Allowed);
  put_chain(*store, 1, 2);
  const ImmutableHold duplicate = put(*store, 1, 1);
  EXPECT_EQ(store->available_blocks(), 1u);
  const auto rest = detail::allocate(*store, 1).value();
  EXPECT_EQ(resident(*store, 1, 2), "01");
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, DroppingTheDuplicateFirstIsTheSame) {
  const auto store = make_store(3, Setting::Allowed);
  auto holds = put_twice(*store);
  holds.pop_back();
  EXPECT_EQ(store->available_blocks(), 2u);
  EXPECT_TRUE(store->contains(name(1, 0)));
  store->check_invariants();
  holds.pop_back();
  EXPECT_EQ(store->available_blocks(), 3u);
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, ACloneKeepsTheDuplicate) {
  const auto store = make_store(3, Setting::Allowed);
  auto holds = put_twice(*store);
  const ImmutableHold clone = detail::share(holds[1]);
  EXPECT_EQ(clone.id(), holds[1].id());
  holds.clear();
  EXPECT_EQ(store->available_blocks(), 1u);
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, ThirdAndFourthBlocksAllHoldThePrimary) {
  const auto store = make_store(4, Setting::Allowed);
  auto first = put_twice(*store);
  auto second = put_twice(*store);
  EXPECT_EQ(store->available_blocks(), 0u);
  EXPECT_EQ(store->stats().duplicates, 3u);
  first.clear();
  EXPECT_EQ(store->available_blocks(), 1u) << "the primary is still held by two";
  second.clear();
  EXPECT_EQ(store->available_blocks(), 4u);
  EXPECT_EQ(store->stats().free, 3u);
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, ADuplicateOfADetachedBlockStaysValid) {
  const auto store = make_store(4, Setting::Allowed);
  auto holds = put_twice(*store);
  store->detach(holds[0].id());
  EXPECT_FALSE(store->contains(name(1, 0)));
  ImmutableHold fresh = put(*store, 1, 0);
  EXPECT_NE(fresh.id(), holds[0].id());
  EXPECT_NE(fresh.id(), holds[1].id());
  EXPECT_EQ(detail::match(*store, chain(1, 1)).at(0).id(), fresh.id());
  store->check_invariants();
  holds.clear();
  fresh = {};
  EXPECT_EQ(store->available_blocks(), 4u);
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, DetachingADuplicateDoesNothing) {
  const auto store = make_store(3, Setting::Allowed);
  const auto holds = put_twice(*store);
  store->detach(holds[1].id());
  EXPECT_TRUE(store->contains(name(1, 0)));
  EXPECT_EQ(store->stats().detached, 0u);
  store->check_invariants();
}

TEST(BlockStoreDuplicatesTest, ADuplicateOutlivesItsStore) {
  auto store = make_store(3, Setting::Allowed);
  auto holds = put_twice(*store);
  holds.erase(holds.begin());
  store.reset();
  EXPECT_EQ(holds[0].store()->identity(holds[0].id()).sequence_hash, name(1, 0));
  holds.clear();  // two holds end at once; ASan is the judge
}

}  // namespace
}  // namespace kvbm
