#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;
using testing::ElementsAre;
using testing::IsEmpty;

BlockStore::Owner make_empty(std::size_t blocks, EvictionPolicy policy = EvictionPolicy::Lru) {
  return BlockStore::create({.capacity = blocks, .start_empty = true, .policy = policy}).value();
}

// Block `position` of conversation `conversation` in place `id`.
RestoredBlock block(BlockId id, std::uint64_t conversation, std::uint32_t position,
                    BlockId parent_guess = kNoBlock) {
  return {.id = id, .parent_guess = parent_guess, .identity = identity(conversation, position)};
}

// Returns what was refused.
std::vector<BlockId> restore(BlockStore& store, const std::vector<RestoredBlock>& blocks,
                             const RestoredAges* ages = nullptr) {
  store.restore(blocks);
  store.check_invariants();
  std::vector<BlockId> refused = store.finish_restore(ages);
  store.check_invariants();
  return refused;
}

// Gives the holds back one by one.
void release(BlockStore& store, const std::vector<BlockId>& ids) {
  for (const BlockId id : ids) {
    store.release(id);
    store.check_invariants();
  }
}

std::vector<BlockId> run_of(BlockStore& store, std::uint64_t conversation, std::uint32_t length) {
  const detail::RunHold run = detail::match_run(store, chain(conversation, length));
  return run ? detail::ids(run) : std::vector<BlockId>();
}

// The blocks in the order in which they are evicted.
std::vector<BlockId> evict_all(BlockStore& store) {
  std::vector<BlockId> ids(store.available_blocks());
  EXPECT_TRUE(store.allocate(ids).has_value());
  store.check_invariants();
  return ids;
}

TEST(BlockStoreRestoreTest, ChainsAreMatchedBeforeAnyHoldIsGivenBack) {
  const auto store = make_empty(6);
  EXPECT_THAT(restore(*store, {block(4, 1, 0), block(0, 1, 1, 4), block(2, 1, 2, 0)}), IsEmpty());
  EXPECT_THAT(run_of(*store, 1, 4), ElementsAre(4, 0, 2));
  EXPECT_EQ(store->identity(2).parent_hash, name(1, 1));
  EXPECT_EQ(store->identity(2).token_count, 16u);

  const BlockStoreStats stats = store->stats();
  EXPECT_EQ(stats.total, 6u);
  EXPECT_EQ(stats.free, 3u);
  EXPECT_EQ(stats.available, 3u) << "restored blocks are held";
  EXPECT_EQ(stats.registered, 3u);
  EXPECT_EQ(stats.registrations, 0u) << "they were registered in an earlier life";
  EXPECT_EQ(stats.allocations, 0u);
  release(*store, {4, 0, 2});
  EXPECT_EQ(store->available_blocks(), 6u);
}

TEST(BlockStoreRestoreTest, OtherBlocksAreFreeAndHandedOutUpwards) {
  const auto store = make_empty(6);
  restore(*store, {block(4, 1, 0), block(1, 2, 0)});
  EXPECT_THAT(evict_all(*store), ElementsAre(0, 2, 3, 5));
  release(*store, {0, 2, 3, 5, 1, 4});
}

TEST(BlockStoreRestoreTest, WithoutBlocksItIsAnEmptyStore) {
  const auto store = make_empty(3);
  EXPECT_THAT(restore(*store, {}), IsEmpty());
  EXPECT_THAT(evict_all(*store), ElementsAre(0, 1, 2));
  release(*store, {0, 1, 2});
}

TEST(BlockStoreRestoreTest, OfTwoBlocksWithOneNameTheFirstStays) {
  const auto store = make_empty(5);
  RestoredBlock other = block(3, 1, 0);
  other.identity.digest = 7;
  other.priority = 2;
  // The child's guess leads to a block that is refused.
  EXPECT_THAT(restore(*store, {block(0, 1, 1, 4), block(1, 1, 0), other, block(4, 1, 0)}),
              ElementsAre(3, 4));
  EXPECT_THAT(run_of(*store, 1, 2), ElementsAre(1, 0));
  EXPECT_EQ(store->stats().registered, 2u);
  EXPECT_THAT(evict_all(*store), ElementsAre(2, 3, 4)) << "what was refused is free";
  EXPECT_EQ(store->basic_metadata(3).priority, DEFAULT_PRIORITY);
  release(*store, {2, 3, 4, 0, 1});
}

TEST(BlockStoreRestoreTest, OfSeveralBlocksWithOneNameTheNewestStays) {
  struct Ages final : RestoredAges {
    bool is_newer(BlockId one, BlockId than) const noexcept override {
      constexpr int kPuts[] = {5, 9, 7, 1, 2, 3};
      return kPuts[one] > kPuts[than];
    }
  };
  for (const EvictionPolicy policy : {EvictionPolicy::Lru, EvictionPolicy::AgeIndex}) {
    const auto store =
        BlockStore::create({.capacity = 6, .start_empty = true, .policy = policy}).value();
    const Ages ages;
    EXPECT_THAT(restore(*store,
                        {block(0, 1, 0), block(1, 1, 0), block(2, 1, 0), block(3, 1, 1, 0),
                         block(4, 2, 0), block(5, 2, 0)},
                        &ages),
                ElementsAre(0, 2, 4));
    EXPECT_THAT(run_of(*store, 1, 2), ElementsAre(1, 3));
    EXPECT_THAT(run_of(*store, 2, 1), ElementsAre(5));
    EXPECT_EQ(store->stats().registered, 3u);
    release(*store, {1, 3, 5});
    const std::vector<BlockId> evicted = evict_all(*store);
    EXPECT_EQ(evicted.size(), 6u);
    release(*store, evicted);
  }
}

TEST(BlockStoreRestoreTest, WrongGuessesChangeNothing) {
  // Another block, a free one, a child, itself, none that exists.
  for (const BlockId guess : {3u, 5u, 2u, 1u, 6u, 77u, kNoBlock}) {
    const auto store = make_empty(6);
    EXPECT_THAT(restore(*store, {block(0, 1, 0, guess), block(1, 1, 1, guess), block(2, 1, 2, 1),
                                 block(3, 2, 0)}),
                IsEmpty());
    EXPECT_THAT(run_of(*store, 1, 3), ElementsAre(0, 1, 2)) << guess;
    release(*store, {2, 1, 0, 3});
    EXPECT_EQ(store->available_blocks(), 6u);
  }
}

TEST(BlockStoreRestoreTest, CraftedNamesMakeNoCycle) {
  for (const std::uint32_t position : {1u, 2u}) {
    const auto store = make_empty(2);
    RestoredBlock first = block(0, 1, 1, 1);
    RestoredBlock second = block(1, 1, 2, 0);
    second.identity.position = position;
    first.identity.parent_hash = second.identity.sequence_hash;
    restore(*store, {first, second});
    release(*store, {0, 1});
    EXPECT_EQ(store->available_blocks(), 2u);
    evict_all(*store);
    release(*store, {0, 1});
  }
}

TEST(BlockStoreRestoreTest, AChildWithoutAParentIsAdoptedLater) {
  const auto store = make_empty(3);
  restore(*store, {block(0, 1, 1, 2), block(1, 1, 2, 0)});
  EXPECT_THAT(run_of(*store, 1, 3), IsEmpty());
  EXPECT_EQ(store->identity(0).parent_hash, name(1, 0)) << "what it waits for";
  const ImmutableHold parent = put(*store, 1, 0);
  EXPECT_THAT(run_of(*store, 1, 3), ElementsAre(parent.id(), 0, 1));
  release(*store, {0, 1});
}

TEST(BlockStoreRestoreTest, NamespacesStayApart) {
  const auto store = make_empty(4);
  RestoredBlock parent = block(0, 1, 0);
  RestoredBlock child = block(1, 1, 1, 0);
  RestoredBlock same = block(2, 1, 0);
  child.identity.name_space = same.identity.name_space = 5;
  EXPECT_THAT(restore(*store, {parent, child, same}), IsEmpty());
  EXPECT_THAT(run_of(*store, 1, 2), ElementsAre(0));
  const std::vector<SequenceHash> names = chain(1, 2);
  const RunRef run = store->match_run({names, {}, 5});
  EXPECT_EQ(run.count, 2u);
  EXPECT_EQ(run.deepest, 1u);
  store->release(run.deepest);
  EXPECT_EQ(store->reset(5).still_held, 2u);
  release(*store, {0, 1, 2});
}

TEST(BlockStoreRestoreTest, TheOldestPutIsEvictedFirstAndLeavesBeforeTheirParents) {
  const auto store = make_empty(5);
  restore(*store, {block(3, 1, 0), block(0, 1, 1, 3), block(4, 2, 0), block(1, 1, 2, 0),
                   block(2, 2, 1, 4)});
  // Put in this order; the second conversation's leaf is older than the first one's.
  release(*store, {3, 0, 4, 2, 1});
  EXPECT_THAT(evict_all(*store), ElementsAre(2, 4, 1, 0, 3));
  release(*store, {0, 1, 2, 3, 4});
}

TEST(BlockStoreRestoreTest, WhatIsUsedMeanwhileIsYoung) {
  const auto store = make_empty(2);
  restore(*store, {block(0, 1, 0), block(1, 2, 0)});
  {
    const detail::RunHold run = detail::match_run(*store, chain(1, 1));
    release(*store, {0, 1});
  }
  EXPECT_THAT(evict_all(*store), ElementsAre(1, 0));
  release(*store, {0, 1});
}

TEST(BlockStoreRestoreTest, PrioritiesAreKept) {
  const auto store = make_empty(3);
  std::vector<RestoredBlock> blocks = {block(0, 1, 0), block(1, 2, 0), block(2, 3, 0)};
  blocks[0].priority = MAX_PRIORITY;
  blocks[2].priority = 0;
  restore(*store, blocks);
  EXPECT_EQ(store->basic_metadata(0).priority, MAX_PRIORITY);
  release(*store, {0, 1, 2});
  EXPECT_THAT(evict_all(*store), ElementsAre(2, 1, 0));
  EXPECT_EQ(store->basic_metadata(0).priority, DEFAULT_PRIORITY);
  release(*store, {0, 1, 2});
}

TEST(BlockStoreRestoreTest, EveryOrderTakesThem) {
  for (const auto policy : {EvictionPolicy::Fifo, EvictionPolicy::AgeIndex}) {
    const auto store = make_empty(3, policy);
    restore(*store, {block(2, 1, 0), block(0, 1, 1, 2), block(1, 2, 0)});
    detail::match_run(*store, chain(1, 2));
    release(*store, {2, 0, 1});
    const std::vector<BlockId> order = evict_all(*store);
    EXPECT_THAT(order, testing::UnorderedElementsAre(0, 1, 2));
    EXPECT_LT(std::find(order.begin(), order.end(), 0u), std::find(order.begin(), order.end(), 2u))
        << "the child before its parent";
    release(*store, {0, 1, 2});
  }
}

// --- metadata and events ---------------------------------------------------------------------

struct Ticks {
  int acquired = 0;
  void on_acquired(std::uint64_t) { ++acquired; }
  void on_returned(std::uint64_t) {}
  void reset_metadata() { acquired = 0; }
  std::optional<std::uint64_t> offload_priority() const { return 0; }
};

TEST(BlockStoreRestoreTest, MetadataOfACallersTypeIsTold) {
  const auto store =
      BlockStore::create(
          {.capacity = 3, .start_empty = true, .metadata = detail::metadata_table<Ticks>()})
          .value();
  restore(*store, {block(0, 1, 0), block(1, 1, 0)});
  EXPECT_EQ(static_cast<Ticks*>(store->metadata(0))->acquired, 1);
  EXPECT_EQ(static_cast<Ticks*>(store->metadata(1))->acquired, 0) << "refused";
  EXPECT_EQ(static_cast<Ticks*>(store->metadata(2))->acquired, 0);
  release(*store, {0});
}

class Recorder final : public EventSink {
 public:
  void put(std::span<const BlockEvent> events) noexcept override {
    for (const BlockEvent& event : events) {
      if (event.kind == BlockEvent::Kind::Registered) announced.push_back(event.block_id);
    }
  }
  std::vector<BlockId> announced;
};

TEST(BlockStoreRestoreTest, TheCallerSaysWhenTheyAreAnnounced) {
  const auto sink = std::make_shared<Recorder>();
  const auto store =
      BlockStore::create({.capacity = 4, .start_empty = true, .events = sink}).value();
  RestoredBlock other = block(3, 2, 0);
  other.identity.name_space = 1;
  restore(*store, {block(0, 1, 0), block(1, 1, 1, 0), block(2, 3, 0), other});
  EXPECT_THAT(sink->announced, IsEmpty());
  store->detach(2);
  store->reset(1);
  const std::vector<BlockId> ids = {0, 1, 2, 3};
  store->announce(ids);
  EXPECT_THAT(sink->announced, ElementsAre(0, 1)) << "the others cannot be matched any more";
  release(*store, ids);
}

TEST(BlockStoreRestoreTest, AnnouncingInAStoreWithoutEventsDoesNothing) {
  const auto store = make_empty(1);
  restore(*store, {block(0, 1, 0)});
  store->announce(std::vector<BlockId>{0});
  store->check_invariants();
  release(*store, {0});
}

// --- many ------------------------------------------------------------------------------------

// More than are looked ahead, in random places, of trees; guesses are right, wrong or missing.
TEST(BlockStoreRestoreTest, ARandomForestIsWhatItWasWhereverItLies) {
  const char* const given = std::getenv("KVBM_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::fprintf(stderr, "KVBM_SEED=%" PRIu64 "\n", seed);
  std::mt19937_64 random(seed);
  constexpr std::size_t kBlocks = 5000;
  std::vector<BlockId> places(kBlocks + kBlocks / 4);
  std::iota(places.begin(), places.end(), BlockId{0});
  std::shuffle(places.begin(), places.end(), random);

  std::vector<RestoredBlock> blocks;  // parents first
  std::vector<std::size_t> parents;   // positions in `blocks`
  for (std::size_t i = 0; i < kBlocks; ++i) {
    RestoredBlock block{.id = places[i], .identity = {SequenceHash(random()), SequenceHash()}};
    const std::size_t parent = random() % 8 == 0 ? i : std::min(i, i - random() % 20 - 1);
    if (parent < i) {
      block.identity.parent_hash = blocks[parent].identity.sequence_hash;
      block.identity.position = blocks[parent].identity.position + 1;
      const BlockId guesses[] = {blocks[parent].id, kNoBlock, places[random() % places.size()]};
      block.parent_guess = guesses[random() % 3];
    }
    parents.push_back(parent);
    blocks.push_back(block);
  }

  const auto store = make_empty(places.size());
  for (std::size_t i = 0; i < kBlocks; i += 777) {
    store->restore(std::span(blocks).subspan(i, std::min<std::size_t>(777, kBlocks - i)));
  }
  EXPECT_THAT(store->finish_restore(), IsEmpty());
  store->check_invariants();
  for (std::size_t i = 0; i < kBlocks; ++i) {
    std::vector<SequenceHash> names;
    std::vector<BlockId> ids;
    for (std::size_t at = i;; at = parents[at]) {
      names.insert(names.begin(), blocks[at].identity.sequence_hash);
      ids.insert(ids.begin(), blocks[at].id);
      if (parents[at] == at) break;
    }
    const detail::RunHold run = detail::match_run(*store, names);
    ASSERT_EQ(run.count(), names.size());
    ASSERT_EQ(detail::ids(run), ids);
  }
  store->release(std::vector<BlockId>(places.begin(), places.begin() + kBlocks));
  store->check_invariants();
  EXPECT_EQ(store->available_blocks(), places.size());
}

}  // namespace
}  // namespace kvbm
