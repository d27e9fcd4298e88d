#include <gtest/gtest.h>

#include <type_traits>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;
using detail::WeakHold;

static_assert(!std::is_copy_constructible_v<WeakHold>);
static_assert(std::is_nothrow_move_constructible_v<WeakHold>);

BlockStore::Owner make_store(std::size_t blocks) {
  return BlockStore::create({.capacity = blocks}).value();
}

TEST(BlockStoreWeakTest, RemembersWithoutKeeping) {
  const auto store = make_store(1);
  const BlockId id = put(*store, 1, 0).id();
  const WeakHold weak(store.get(), {name(1, 0)});
  EXPECT_EQ(store->available_blocks(), 1u);
  {
    const ImmutableHold strong = detail::upgrade(weak);
    EXPECT_EQ(strong.id(), id);
    EXPECT_EQ(store->available_blocks(), 0u);
  }
  EXPECT_EQ(store->stats().matches, 1u) << "an upgrade counts as a match";
  store->check_invariants();
}

TEST(BlockStoreWeakTest, UpgradeAfterEvictionIsEmpty) {
  const auto store = make_store(1);
  put(*store, 1, 0);
  const WeakHold weak(store.get(), {name(1, 0)});
  const MutableHold other = allocate_one(*store);
  EXPECT_FALSE(detail::upgrade(weak));
}

TEST(BlockStoreWeakTest, UpgradeFindsTheBlockThatHasTheNameNow) {
  const auto store = make_store(2);
  ImmutableHold first = put(*store, 1, 0);
  const WeakHold weak(store.get(), {name(1, 0)});
  store->detach(first.id());
  EXPECT_FALSE(detail::upgrade(weak));
  const ImmutableHold second = put(*store, 1, 0);
  EXPECT_NE(second.id(), first.id());
  EXPECT_EQ(detail::upgrade(weak).id(), second.id());
  store->check_invariants();
}

TEST(BlockStoreWeakTest, AnUpgradeRefreshesTheBlock) {
  const auto store = make_store(2);
  put(*store, 1, 0);
  put(*store, 2, 0);
  detail::upgrade(WeakHold(store.get(), {name(1, 0)}));
  const MutableHold taken = allocate_one(*store);
  EXPECT_TRUE(store->contains(name(1, 0)));
  EXPECT_FALSE(store->contains(name(2, 0)));
}

// ASan is the judge of all below.
TEST(BlockStoreWeakTest, AWeakHoldOutlivesItsStore) {
  const auto backing = std::make_shared<int>(1);
  auto store = BlockStore::create({.capacity = 2}, backing).value();
  put(*store, 1, 0);
  WeakHold weak(store.get(), {name(1, 0)});
  store.reset();
  ImmutableHold strong = detail::upgrade(weak);
  EXPECT_TRUE(strong) << "the block is still there";
  weak = {};
  EXPECT_EQ(backing.use_count(), 2) << "a block is held";
  strong = {};
  EXPECT_EQ(backing.use_count(), 1);
}

TEST(BlockStoreWeakTest, TheLastWeakHoldDeletesTheStore) {
  const auto backing = std::make_shared<int>(1);
  auto store = BlockStore::create({.capacity = 2}, backing).value();
  ImmutableHold strong = put(*store, 1, 0);
  WeakHold first(store.get(), {name(1, 0)});
  WeakHold second(store.get(), {name(2, 0)});
  store.reset();
  strong = {};
  EXPECT_EQ(backing.use_count(), 2);
  second = std::move(first);  // assignment swaps
  EXPECT_EQ(second.key().hash, name(1, 0));
  second = {};
  EXPECT_FALSE(second);
  {
    const WeakHold last = std::move(first);
  }
  EXPECT_EQ(backing.use_count(), 1);
}

}  // namespace
}  // namespace kvbm
