#include "logical/pool/block_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <type_traits>

#include "logical/pool/hold_ops.h"

namespace kvbm {
namespace {

using detail::CompleteHold;
using detail::ImmutableHold;
using detail::MutableHold;
using detail::RunHold;

static_assert(!std::is_copy_constructible_v<ImmutableHold>, "share with share()");
static_assert(std::is_nothrow_move_constructible_v<ImmutableHold>);
static_assert(std::is_nothrow_destructible_v<RunHold>);
static_assert(sizeof(RunHold) == 16, "handles travel in vectors of thousands");

// Names of a chain: block i of conversation c. Any values do; the store never computes a hash.
SequenceHash name(std::uint64_t conversation, std::uint32_t position) {
  return SequenceHash((conversation << 32) + position + 1);
}

std::vector<SequenceHash> chain(std::uint64_t conversation, std::uint32_t length) {
  std::vector<SequenceHash> hashes;
  for (std::uint32_t i = 0; i < length; ++i) hashes.push_back(name(conversation, i));
  return hashes;
}

BlockIdentity identity(std::uint64_t conversation, std::uint32_t position) {
  return {name(conversation, position),
          position == 0 ? SequenceHash() : name(conversation, position - 1), position, 16};
}

BlockStore::Owner make_store(std::size_t blocks) {
  return BlockStore::create({.capacity = blocks}).value();
}

ImmutableHold put(BlockStore& store, std::uint64_t conversation, std::uint32_t position) {
  auto block = detail::allocate(store, 1).value();
  std::vector<CompleteHold> completes;
  completes.push_back(detail::complete(std::move(block[0]), identity(conversation, position)));
  return std::move(detail::register_blocks(store, std::move(completes)).value()[0]);
}

std::vector<ImmutableHold> put_chain(BlockStore& store, std::uint64_t conversation,
                                     std::uint32_t length) {
  std::vector<ImmutableHold> holds;
  for (std::uint32_t i = 0; i < length; ++i) holds.push_back(put(store, conversation, i));
  return holds;
}

std::size_t resident(BlockStore& store, std::uint64_t conversation, std::uint32_t length) {
  const auto hashes = chain(conversation, length);
  return static_cast<std::size_t>(std::count_if(
      hashes.begin(), hashes.end(), [&](SequenceHash hash) { return store.contains(hash); }));
}

TEST(BlockStoreTest, RefusesSizesOutsideTheRange) {
  for (std::size_t blocks : {std::size_t{0}, std::size_t{kNoBlock}}) {
    const auto store = BlockStore::create({.capacity = blocks});
    ASSERT_FALSE(store.has_value());
    EXPECT_EQ(store.error().code, ErrorCode::InvalidConfig);
    EXPECT_EQ(store.error().requested, blocks);
  }
}

TEST(BlockStoreTest, AllocationIsAllOrNothingAndEvictsNothingWhenRefused) {
  const auto store = make_store(4);
  put_chain(*store, 1, 4);

  const auto result = detail::allocate(*store, 5);

  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::NotEnoughBlocksAvailable);
  EXPECT_EQ(result.error().requested, 5u);
  EXPECT_EQ(result.error().available, 4u);
  EXPECT_EQ(resident(*store, 1, 4), 4u);
  EXPECT_EQ(store->stats().evictions, 0u);
  store->check_invariants();
}

TEST(BlockStoreTest, DroppedMutableBlockIsFreeAgain) {
  const auto store = make_store(2);
  {
    const auto blocks = detail::allocate(*store, 2).value();
    EXPECT_EQ(store->available_blocks(), 0u);
    store->check_invariants();
  }
  EXPECT_EQ(store->available_blocks(), 2u);
  store->check_invariants();
}

TEST(BlockStoreTest, RegisteredBlocksAreMatchedUntilTheFirstMiss) {
  const auto store = make_store(8);
  put_chain(*store, 1, 3);
  put(*store, 1, 4);  // block 3 is missing

  EXPECT_EQ(detail::match(*store, chain(1, 5)).size(), 3u);
  const RunHold run = detail::match_run(*store, chain(1, 5));
  EXPECT_EQ(run.count(), 3u);
  EXPECT_FALSE(detail::match_run(*store, chain(2, 5)));
  store->check_invariants();
}

TEST(BlockStoreTest, RegistrationRefusesIncompleteBlocksAndRegistersNone) {
  const auto store = make_store(4);
  auto blocks = detail::allocate(*store, 2).value();
  store->complete(blocks[0].id(), identity(1, 0));
  std::vector<BlockId> ids = {blocks[0].id(), blocks[1].id()};

  const auto result = store->register_blocks(ids);

  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::BlockNotComplete);
  EXPECT_EQ(result.error().requested, 1u);
  EXPECT_FALSE(store->contains(name(1, 0)));
}

TEST(BlockStoreTest, RegistrationRefusesBlocksOfAnotherStore) {
  const auto mine = make_store(2);
  const auto other = make_store(2);
  std::vector<CompleteHold> blocks;
  blocks.push_back(
      detail::complete(std::move(detail::allocate(*other, 1).value()[0]), identity(1, 0)));

  const auto result = detail::register_blocks(*mine, std::move(blocks));

  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::InvalidMutableBlock);
  EXPECT_FALSE(mine->contains(name(1, 0)));
  EXPECT_FALSE(other->contains(name(1, 0)));
  mine->check_invariants();
  other->check_invariants();
}

TEST(BlockStoreTest, DuplicateRegistrationAnswersWithTheFirstBlock) {
  const auto store = make_store(4);
  const ImmutableHold first = put(*store, 1, 0);
  const ImmutableHold second = put(*store, 1, 0);

  EXPECT_EQ(first.id(), second.id());
  EXPECT_EQ(store->available_blocks(), 3u);
  EXPECT_EQ(store->stats().duplicates, 1u);
  store->check_invariants();
}

TEST(BlockStoreTest, EvictsTheColdestLeafFirst) {
  const auto store = make_store(6);
  put_chain(*store, 1, 3);
  put_chain(*store, 2, 3);
  detail::match_run(*store, chain(1, 3));  // conversation 2 is now the colder one

  for (std::uint32_t left = 2; left > 0; --left) {
    const auto taken = detail::allocate(*store, 6 - 3 - left).value();
    EXPECT_EQ(detail::match(*store, chain(2, 3)).size(), left);
    EXPECT_EQ(resident(*store, 1, 3), 3u);
    store->check_invariants();
    detail::match_run(*store, chain(1, 3));
  }
}

// Killed mutant: evicting the root of a chain first leaves its children unreachable.
TEST(BlockStoreTest, AChainShrinksFromItsDeepEnd) {
  const auto store = make_store(4);
  put_chain(*store, 1, 4);
  for (std::uint32_t left : {3u, 2u, 1u, 0u}) {
    const auto taken = detail::allocate(*store, 4 - left).value();
    EXPECT_EQ(detail::match(*store, chain(1, 4)).size(), left);
  }
}

TEST(BlockStoreTest, OneHoldOnTheDeepestBlockKeepsTheChain) {
  const auto store = make_store(5);
  put_chain(*store, 1, 4);
  const RunHold run = detail::match_run(*store, chain(1, 4));
  ASSERT_EQ(run.count(), 4u);
  EXPECT_EQ(store->available_blocks(), 1u);

  EXPECT_FALSE(detail::allocate(*store, 2).has_value());
  EXPECT_EQ(resident(*store, 1, 4), 4u);
  store->check_invariants();
}

TEST(BlockStoreTest, ARunKnowsItsBlocksInOrder) {
  const auto store = make_store(5);
  const auto holds = put_chain(*store, 1, 4);
  const RunHold run = detail::match_run(*store, chain(1, 3));
  const std::vector<BlockId> ids = detail::ids(run);
  ASSERT_EQ(ids.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(ids[i], holds[i].id());
}

TEST(BlockStoreTest, ASplitRunHoldsEveryBlockOnItsOwn) {
  const auto store = make_store(5);
  put_chain(*store, 1, 3);
  RunHold run = detail::match_run(*store, chain(1, 3));
  auto holds = detail::split(run);
  run = RunHold();
  store->check_invariants();

  holds.erase(holds.begin() + 1, holds.end());  // keep the root only
  EXPECT_EQ(store->available_blocks(), 4u);
  store->check_invariants();
}

TEST(BlockStoreTest, ARunEndsWhereTheHashesAreNoChain) {
  const auto store = make_store(8);
  put_chain(*store, 1, 2);
  put_chain(*store, 2, 2);
  const std::vector<SequenceHash> mixed = {name(1, 0), name(2, 1)};
  EXPECT_EQ(detail::match_run(*store, mixed).count(), 1u);
  EXPECT_EQ(detail::match(*store, mixed).size(), 2u);
}

TEST(BlockStoreTest, HoldsDroppedRootFirstStillLeaveDeepestFirst) {
  const auto store = make_store(3);
  auto holds = put_chain(*store, 1, 3);
  for (ImmutableHold& hold : holds) hold = ImmutableHold();
  store->check_invariants();
  const auto taken = detail::allocate(*store, 1).value();
  EXPECT_EQ(detail::match(*store, chain(1, 3)).size(), 2u);
}

TEST(BlockStoreTest, AParentThatArrivesLateAdoptsItsChildren) {
  const auto store = make_store(4);
  put(*store, 1, 1);
  put(*store, 1, 2);
  store->check_invariants();
  EXPECT_FALSE(detail::match_run(*store, chain(1, 3)));

  put(*store, 1, 0);
  store->check_invariants();
  const RunHold run = detail::match_run(*store, chain(1, 3));
  EXPECT_EQ(run.count(), 3u);
  EXPECT_EQ(store->available_blocks(), 1u);
}

TEST(BlockStoreTest, AnOrphanThatIsEvictedIsForgotten) {
  const auto store = make_store(1);
  put(*store, 1, 1);
  put(*store, 2, 0);
  store->check_invariants();
  EXPECT_FALSE(store->contains(name(1, 1)));
}

// Hashes of crafted prompts could name each other as parents; a cycle of pins would never end.
TEST(BlockStoreTest, NamesThatFormACycleAreNotLinked) {
  const auto store = make_store(4);
  const SequenceHash a(1);
  const SequenceHash b(2);
  for (const BlockIdentity& id : {BlockIdentity{a, b, 5, 16}, BlockIdentity{b, a, 5, 16},
                                  BlockIdentity{SequenceHash(3), SequenceHash(3), 1, 16}}) {
    std::vector<CompleteHold> blocks;
    blocks.push_back(detail::complete(std::move(detail::allocate(*store, 1).value()[0]), id));
    detail::register_blocks(*store, std::move(blocks)).value();
    store->check_invariants();
  }
  EXPECT_EQ(store->available_blocks(), 4u);
}

TEST(BlockStoreTest, ADetachedBlockIsNeverMatchedAndItsRunStaysValid) {
  const auto store = make_store(4);
  put_chain(*store, 1, 3);
  RunHold run = detail::match_run(*store, chain(1, 3));
  const std::vector<BlockId> ids = detail::ids(run);

  store->detach(ids[1]);
  store->detach(ids[1]);  // twice is once

  EXPECT_EQ(detail::match(*store, chain(1, 3)).size(), 1u);
  EXPECT_EQ(detail::ids(run), ids);
  EXPECT_EQ(store->available_blocks(), 1u);
  EXPECT_EQ(store->stats().detached, 1u);
  store->check_invariants();

  const ImmutableHold fresh = put(*store, 1, 1);  // good bytes under the same name
  EXPECT_NE(fresh.id(), ids[1]);
  EXPECT_EQ(detail::match(*store, chain(1, 3)).size(), 3u);
  store->check_invariants();

  run = RunHold();
  store->check_invariants();
  EXPECT_EQ(store->available_blocks(), 3u - 1u);  // root and `fresh` are pinned by `fresh`
}

TEST(BlockStoreTest, HoldsOutliveTheirStore) {
  auto store = make_store(2);
  const auto backing = std::make_shared<int>(7);
  store = BlockStore::create({.capacity = 2}, backing).value();
  ImmutableHold hold = put(*store, 1, 0);
  store.reset();
  EXPECT_EQ(hold.store()->identity(hold.id()).sequence_hash, name(1, 0));
  EXPECT_EQ(backing.use_count(), 2);
  hold = ImmutableHold();  // ASan is the judge
  EXPECT_EQ(backing.use_count(), 1);
}

TEST(BlockStoreTest, StatsAddUp) {
  const auto store = make_store(3);
  put_chain(*store, 1, 3);
  put_chain(*store, 2, 2);
  const BlockStoreStats stats = store->stats();
  EXPECT_EQ(stats.total, 3u);
  EXPECT_EQ(stats.available, 3u);
  EXPECT_EQ(stats.registered, 3u);
  EXPECT_EQ(stats.allocations, 5u);
  EXPECT_EQ(stats.registrations, 5u);
  EXPECT_EQ(stats.evictions, 2u);
}

// A replay must not depend on how fast memory was filled.
TEST(BlockStoreTest, WhoGetsWhichBlockDoesNotDependOnWhenTheyBecameReady) {
  for (const std::size_t first : {1, 3, 5}) {
    auto store = BlockStore::create({.capacity = 5, .ready_blocks = first}).value();
    store->make_ready(1);
    store->check_invariants();
    store->make_ready(5);
    store->check_invariants();
    const auto blocks = detail::allocate(*store, 5).value();
    for (BlockId id = 0; id < 5; ++id) EXPECT_EQ(blocks[id].id(), id) << first;
  }
}

TEST(BlockStoreTest, BlocksThatAreNotReadyAreCountedAndNotHandedOut) {
  const auto store = BlockStore::create({.capacity = 3000, .ready_blocks = 2}).value();
  EXPECT_EQ(store->total_blocks(), 3000u);
  EXPECT_EQ(store->available_blocks(), 2u);
  store->check_invariants();
  std::vector<BlockId> ids(3);
  const auto early = store->allocate(ids);
  ASSERT_FALSE(early.has_value());
  EXPECT_EQ(early.error().available, 2u);
  EXPECT_EQ(store->add_blocks(std::vector<BlockId>{2}).error().code, ErrorCode::InvalidMutableBlock)
      << "nobody else brings it";

  store->make_ready(1);
  EXPECT_EQ(store->available_blocks(), 3u);
  ASSERT_TRUE(store->allocate(ids).has_value());
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(ids, (std::vector<BlockId>{0, 1, 2}));
  EXPECT_EQ(store->basic_metadata(2).priority, DEFAULT_PRIORITY);

  store->make_ready(1'000'000);
  EXPECT_EQ(store->total_blocks(), 3000u);
  EXPECT_EQ(store->available_blocks(), 2997u);
  store->check_invariants();
  store->reset();
  store->check_invariants();
  store->release(ids);
  EXPECT_EQ(store->available_blocks(), 3000u);
  store->check_invariants();
}

}  // namespace
}  // namespace kvbm
