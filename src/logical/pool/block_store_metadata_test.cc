#include <gtest/gtest.h>

#include <string>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;

TEST(BlockStoreMetadataTest, TicksOnlyGrow) {
  const auto store = BlockStore::create({.capacity = 2}).value();
  MutableHold first = allocate_one(*store);
  MutableHold second = allocate_one(*store);
  const BasicMetadata a = store->basic_metadata(first.id());
  const BasicMetadata b = store->basic_metadata(second.id());
  EXPECT_LT(a.returned_tick, a.acquired_tick) << "it was free before";
  EXPECT_LT(a.acquired_tick, b.acquired_tick);

  const BlockId id = first.id();
  first = {};
  first = allocate_one(*store);
  ASSERT_EQ(first.id(), id);
  const BasicMetadata again = store->basic_metadata(id);
  EXPECT_GT(again.returned_tick, b.acquired_tick);
  EXPECT_GT(again.acquired_tick, again.returned_tick);
}

TEST(BlockStoreMetadataTest, ABlockIsReturnedWhenItBecomesEvictable) {
  const auto store = BlockStore::create({.capacity = 1}).value();
  const BlockId id = put(*store, 1, 0).id();
  auto matched = detail::match(*store, chain(1, 1));
  const BasicMetadata once = store->basic_metadata(id);
  EXPECT_GT(once.returned_tick, once.acquired_tick);
  matched.clear();
  matched = detail::match(*store, chain(1, 1));
  const BasicMetadata twice = store->basic_metadata(id);
  EXPECT_GT(twice.returned_tick, once.returned_tick);
  EXPECT_EQ(twice.acquired_tick, once.acquired_tick) << "a match is no allocation";
}

TEST(BlockStoreMetadataTest, PriorityLastsAsLongAsTheContent) {
  const auto store = BlockStore::create({.capacity = 1}).value();
  MutableHold block = allocate_one(*store);
  EXPECT_EQ(store->basic_metadata(block.id()).priority, DEFAULT_PRIORITY);
  ASSERT_TRUE(store->set_priority(block.id(), 7).has_value());
  const BlockId id = block.id();
  {
    std::vector<CompleteHold> blocks;
    blocks.push_back(detail::complete(std::move(block), identity(1, 0)));
    detail::register_blocks(*store, std::move(blocks)).value();
  }
  EXPECT_EQ(detail::match(*store, chain(1, 1)).size(), 1u);
  EXPECT_EQ(store->basic_metadata(id).priority, 7u) << "neither registration nor a match";
  EXPECT_EQ(store->offload_priority(id), 7u);

  block = allocate_one(*store);  // evicts it
  EXPECT_EQ(store->basic_metadata(id).priority, DEFAULT_PRIORITY);
  ASSERT_TRUE(store->set_priority(id, 8).has_value());
  block = {};
  block = allocate_one(*store);
  EXPECT_EQ(store->basic_metadata(id).priority, DEFAULT_PRIORITY) << "it was free meanwhile";
  ASSERT_TRUE(store->set_priority(id, 9).has_value());
  store->uncomplete(id);
  EXPECT_EQ(store->basic_metadata(id).priority, DEFAULT_PRIORITY);
}

TEST(BlockStoreMetadataTest, CopyTakesThePriorityOnly) {
  const auto from = BlockStore::create({.capacity = 1}).value();
  const auto to = BlockStore::create({.capacity = 2}).value();
  const MutableHold source = allocate_one(*from);
  ASSERT_TRUE(from->set_priority(source.id(), 5).has_value());
  const MutableHold other = allocate_one(*to);
  const MutableHold target = allocate_one(*to);
  const BasicMetadata before = to->basic_metadata(target.id());
  to->copy_metadata(target.id(), *from, source.id());
  const BasicMetadata after = to->basic_metadata(target.id());
  EXPECT_EQ(after.priority, 5u);
  EXPECT_EQ(after.acquired_tick, before.acquired_tick);
  EXPECT_EQ(to->basic_metadata(other.id()).priority, DEFAULT_PRIORITY);
}

// Writes down what it is told.
struct alignas(64) Diary {
  static inline int alive = 0;
  std::string log;
  std::uint64_t last_tick = 0;
  std::optional<std::uint64_t> priority;

  Diary() { ++alive; }
  Diary(const Diary& other) : log(other.log) { ++alive; }
  Diary& operator=(const Diary&) = default;
  ~Diary() { --alive; }
  void on_acquired(std::uint64_t tick) { note('a', tick); }
  void on_returned(std::uint64_t tick) { note('r', tick); }
  void reset_metadata() { log += '0'; }
  std::optional<std::uint64_t> offload_priority() const { return priority; }

 private:
  void note(char what, std::uint64_t tick) {
    log += tick > last_tick ? what : '!';
    last_tick = tick;
  }
};
static_assert(BlockMetadata<Diary>);

BlockStore::Owner make_diaries(std::size_t blocks) {
  return BlockStore::create({.capacity = blocks, .metadata = detail::metadata_table<Diary>()})
      .value();
}

Diary& diary(BlockStore& store, BlockId id) { return *static_cast<Diary*>(store.metadata(id)); }

TEST(BlockStoreMetadataTest, ACustomTypeIsBuiltAndDestroyedOncePerBlock) {
  ASSERT_EQ(Diary::alive, 0);
  auto store = make_diaries(3);
  EXPECT_EQ(Diary::alive, 3);
  for (BlockId id = 0; id < 3; ++id) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(store->metadata(id)) % alignof(Diary), 0u);
  }
  MutableHold hold = allocate_one(*store);
  store.reset();
  EXPECT_EQ(Diary::alive, 3) << "a block is held";
  hold = {};
  EXPECT_EQ(Diary::alive, 0);
}

TEST(BlockStoreMetadataTest, ACustomTypeIsToldEveryChangeOnce) {
  const auto store = make_diaries(1);
  std::string& log = diary(*store, 0).log;
  const auto told = [&log] { return std::exchange(log, {}); };
  EXPECT_EQ(told(), "0r");
  MutableHold block = allocate_one(*store);
  EXPECT_EQ(told(), "a");
  block = {};
  EXPECT_EQ(told(), "0r");
  ImmutableHold held = put(*store, 1, 0);
  EXPECT_EQ(told(), "a");
  held = {};
  EXPECT_EQ(told(), "r") << "evictable, with its content";
  held = std::move(detail::match(*store, chain(1, 1)).at(0));
  EXPECT_EQ(told(), "");
  held = {};
  EXPECT_EQ(told(), "r");
  store->touch(chain(1, 1));
  EXPECT_EQ(told(), "r");
  block = allocate_one(*store);
  EXPECT_EQ(told(), "0a") << "evicted, then allocated; it was returned long ago";
  store->uncomplete(block.id());
  EXPECT_EQ(told(), "0");
}

TEST(BlockStoreMetadataTest, AParentIsReturnedAfterItsChild) {
  const auto store = make_diaries(2);
  put_chain(*store, 1, 2);
  auto run = detail::match_run(*store, chain(1, 2));
  const auto ids = detail::ids(run);
  run = {};
  EXPECT_LT(diary(*store, ids[1]).last_tick, diary(*store, ids[0]).last_tick);
}

TEST(BlockStoreMetadataTest, ACustomTypeSaysItsPriorityAndIsCopied) {
  const auto from = make_diaries(1);
  const auto to = make_diaries(1);
  const MutableHold source = allocate_one(*from);
  const MutableHold target = allocate_one(*to);
  EXPECT_FALSE(from->offload_priority(source.id()).has_value());
  diary(*from, source.id()).priority = 11;
  EXPECT_EQ(from->offload_priority(source.id()), 11u);
  diary(*from, source.id()).log = "mine";
  to->copy_metadata(target.id(), *from, source.id());
  EXPECT_EQ(diary(*to, target.id()).log, "mine");
  EXPECT_EQ(to->offload_priority(target.id()), 11u);
}

}  // namespace
}  // namespace kvbm
