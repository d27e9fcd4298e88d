#include "logical/policy/age_order.h"

#include <gtest/gtest.h>

#include <vector>

namespace kvbm {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::size_t kLevel = 51;

struct Fixture {
  static constexpr std::size_t kCapacity = 400;

  Fixture() : table(kCapacity, 0), order(table) {}

  void register_block(BlockId id, std::uint64_t name, std::uint8_t hint = 0) {
    table.name(id).hash = name;
    table.set_tag(id, {.stage = BlockStage::Registered});
    table.rest(id).flags = static_cast<std::uint8_t>(block_flags::kProtected | hint);
    order.registered(id);
  }
  // A request that ends `seconds` after the one before.
  void release(std::vector<BlockId> path, std::int64_t seconds = 1) {
    now += seconds * kSecond;
    order.advance(now);
    order.released(path);
  }
  BlockId pop() {
    const BlockId id = order.pop();
    EXPECT_EQ(table.ties(id).listed, 0u);
    order.check_invariants();
    return id;
  }

  BlockTable table;
  AgeOrder order;
  std::int64_t now = 0;
};

TEST(AgeOrderTest, OnlyLeavesAreListed) {
  Fixture f;
  for (const BlockId id : {0u, 1u, 2u}) f.register_block(id, 100 + id);
  f.table.ties(1).children = 1;
  f.release({0, 1});
  f.release({2});
  f.order.add(0, kLevel);
  f.order.add(1, kLevel);
  f.order.add(2, kLevel);
  f.order.check_invariants();
  EXPECT_EQ(f.table.ties(0).listed, 1u);
  EXPECT_EQ(f.table.ties(1).listed, 0u);
  EXPECT_EQ(f.pop(), 0u);
  f.table.ties(1).children = 0;
  f.order.add_leaf(1, kLevel);
  EXPECT_EQ(f.pop(), 1u);
  EXPECT_EQ(f.pop(), 2u);
}

TEST(AgeOrderTest, APinnedOrRemovedBlockIsNotListed) {
  Fixture f;
  for (const BlockId id : {0u, 1u, 2u}) {
    f.register_block(id, 100 + id);
    f.release({id});
    f.order.add(id, kLevel);
  }
  f.order.pinned(0);
  f.order.remove(1);
  EXPECT_EQ(f.table.ties(0).listed, 0u);
  EXPECT_EQ(f.table.ties(1).listed, 0u);
  EXPECT_EQ(f.pop(), 2u);
}

TEST(AgeOrderTest, LevelsGoFirst) {
  Fixture f;
  for (const BlockId id : {0u, 1u}) {
    f.register_block(id, 100 + id);
    f.release({id});
  }
  f.order.add(0, kLevelProtected);
  f.order.add_leaf(1, kLevelForgotten);
  EXPECT_EQ(f.pop(), 1u);
  EXPECT_EQ(f.pop(), 0u);
}

TEST(AgeOrderTest, ForgottenOnesGoFirst) {
  Fixture f;
  for (const BlockId id : {0u, 1u}) f.register_block(id, 100 + id);
  f.release({0});
  f.order.add(0, kLevelProtected);
  f.order.forget_all();
  f.release({1});
  f.order.add(1, 1);
  EXPECT_EQ(f.pop(), 0u);
}

// Only what is evicted while it is registered may come back.
TEST(AgeOrderTest, ADetachedBlockIsNotRemembered) {
  Fixture f;
  for (const BlockId id : {0u, 1u}) f.register_block(id, 100 + id);
  f.release({0});
  f.release({1});
  f.table.set_stage(1, BlockStage::Detached);
  for (const BlockId id : {0u, 1u}) {
    f.order.evicted(id);
    f.register_block(id, 100 + id);
    f.order.add(id, kLevel);
  }
  EXPECT_EQ(f.pop(), 1u) << "its last use is unknown, that of block 0 is not";
}

// Of requests of two blocks, those without a hint come back after 2 s, the others never.
struct Trained : Fixture {
  Trained() {
    for (BlockId id = 100; id < 200; id += 2) {
      const auto hint = static_cast<std::uint8_t>(id % 4);  // 0 or 2
      register_block(id, id, 7);  // the root; the deepest block's hint counts
      register_block(id + 1, id + 1, hint);
      release({id + 1, id}, 0);
    }
    now += 2 * kSecond;
    for (BlockId id = 100; id < 200; id += 4) {
      order.advance(now);
      order.matched(std::vector<BlockId>{id, id + 1});
      release({id + 1, id}, 0);
    }
    now += 60 * kSecond;
    for (BlockId id = 200; id < 264; ++id) {  // so that the model is made anew
      register_block(id, id);
      release({id}, 0);
    }
  }
};

TEST(AgeOrderTest, TheHintOfTheDeepestBlockIsTheClassOfThePath) {
  Trained f;
  f.register_block(0, 1000, 2);
  f.register_block(1, 1001, 0);
  f.release({1, 0}, 0);
  f.register_block(2, 1002, 0);
  f.register_block(3, 1003, 2);
  f.release({3, 2}, 0);
  for (const BlockId id : {1u, 3u}) f.order.add(id, kLevel);
  f.order.advance(f.now + kSecond);
  EXPECT_EQ(f.pop(), 3u) << "the younger one, but its class never comes back";
}

TEST(AgeOrderTest, BlocksAgeWithTheTimeItIsTold) {
  Trained f;
  f.register_block(0, 1000, 0);
  f.release({0}, 0);
  f.register_block(1, 1001, 2);
  f.release({1}, 0);
  for (const BlockId id : {0u, 1u}) f.order.add(id, kLevel);
  f.order.advance(f.now + 10 * kSecond);
  EXPECT_EQ(f.pop(), 0u) << "neither comes back at that age; the older one";
}

TEST(AgeOrderTest, WantsWhatItLearnsFrom) {
  Fixture f;
  EXPECT_TRUE(f.order.wants_paths());
  EXPECT_TRUE(f.order.wants_time());
}

TEST(AgeOrderTest, TakesSoManyBytes) {
  const auto bytes = [](std::size_t capacity) {
    BlockTable table(capacity, 0);
    return static_cast<double>(AgeOrder(table).bytes());
  };
  const double each = (bytes(20'000) - bytes(10'000)) / 10'000;
  EXPECT_NEAR(each, 105 + sizeof(PathBlock), 10);
  EXPECT_NEAR(bytes(10'000) - 10'000 * each, 1.2e6, 2e5);
}

}  // namespace
}  // namespace kvbm
