#include "logical/policy/list_order.h"

#include <gtest/gtest.h>

#include <vector>

namespace kvbm {
namespace {

using Ids = std::vector<BlockId>;

struct Fixture {
  static constexpr std::size_t kCapacity = 12;

  explicit Fixture(EvictionPolicy policy) : table(kCapacity, kLevels), order(table, policy) {}

  void add(const Ids& ids, std::size_t level) {
    for (const BlockId id : ids) order.add(id, level);
    order.check_invariants();
  }
  Ids pop(std::size_t count) {
    Ids ids;
    for (std::size_t i = 0; i < count; ++i) {
      ids.push_back(order.pop());
      EXPECT_EQ(table.ties(ids.back()).listed, 0u);
      order.check_invariants();
    }
    return ids;
  }
  void hold(BlockId id) {
    table.ties(id).holds = 1;
    order.pinned(id);
    order.check_invariants();
  }
  void release(BlockId id, std::size_t level) {
    table.ties(id).holds = 0;
    add({id}, level);
  }

  BlockTable table;
  ListOrder order;
};

// What both orders have in common.
class ListOrderTest : public testing::TestWithParam<EvictionPolicy> {
 protected:
  Fixture f{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Policies, ListOrderTest,
                         testing::Values(EvictionPolicy::Lru, EvictionPolicy::Fifo));

TEST_P(ListOrderTest, TheOneThatWasAddedFirstGoesFirst) {
  f.add({2, 0, 1}, 5);
  EXPECT_EQ(f.table.ties(0).listed, 1u);
  EXPECT_EQ(f.pop(3), (Ids{2, 0, 1}));
}

TEST_P(ListOrderTest, TheLowestLevelGoesFirst) {
  f.add({0}, kLevelProtected);
  f.add({1, 2}, 64);
  f.add({3}, 63);
  f.add({4}, 1);
  f.add({5}, kLevelForgotten);
  EXPECT_EQ(f.pop(3), (Ids{5, 4, 3}));
  f.add({6}, 1);
  EXPECT_EQ(f.pop(4), (Ids{6, 1, 2, 0}));
}

TEST_P(ListOrderTest, ANewLeafIsTheNextOfItsLevel) {
  f.add({0, 1}, 5);
  f.add({2}, 4);
  f.order.add_leaf(3, 5);
  f.order.add_leaf(4, 70);
  f.order.check_invariants();
  EXPECT_EQ(f.pop(5), (Ids{2, 3, 0, 1, 4}));
}

TEST_P(ListOrderTest, RemovesFromAnywhere) {
  f.add({0, 1, 2, 3}, 5);
  f.add({4}, 64);
  for (const BlockId id : {1u, 0u, 3u, 4u}) {
    f.order.remove(id);
    EXPECT_EQ(f.table.ties(id).listed, 0u);
    f.order.check_invariants();
  }
  EXPECT_EQ(f.pop(1), (Ids{2}));
}

TEST_P(ListOrderTest, ForgottenOnesGoBeforeAllThatComeLater) {
  f.add({0}, kLevelProtected);
  f.add({1, 2}, 64);
  f.add({3}, 63);
  f.order.forget_all();
  f.order.check_invariants();
  f.add({4}, 2);
  f.add({5}, 64);
  f.order.forget_all();
  f.order.check_invariants();
  f.add({6}, 1);
  EXPECT_EQ(f.pop(7), (Ids{3, 1, 2, 0, 4, 5, 6}));
}

TEST_P(ListOrderTest, NothingIsForgottenWhereNothingIs) {
  f.order.forget_all();
  f.order.check_invariants();
  f.add({1}, 3);
  EXPECT_EQ(f.pop(1), (Ids{1}));
}

TEST_P(ListOrderTest, TheColdestAreToldInTheirOrderAndStay) {
  f.add({2, 0, 1}, 5);
  f.add({3}, 1);
  const auto coldest = [this](std::size_t count) {
    Ids ids(count);
    ids.resize(f.order.coldest(ids));
    return ids;
  };
  EXPECT_EQ(coldest(0), Ids{});
  EXPECT_EQ(coldest(3), (Ids{3, 2, 0}));
  EXPECT_EQ(coldest(9), (Ids{3, 2, 0, 1}));
  f.hold(2);
  EXPECT_EQ(coldest(2), (Ids{3, 0})) << "a block that is pinned goes nowhere";
  f.order.forget_all();
  f.add({4}, 7);
  EXPECT_EQ(coldest(9), (Ids{4})) << "what is forgotten is not worth to be told";
  EXPECT_TRUE(f.order.is_worth_a_victim(0));
}

TEST(LruTest, APinnedBlockLosesItsPlace) {
  Fixture f(EvictionPolicy::Lru);
  EXPECT_FALSE(f.order.wants_paths());
  f.add({0, 1, 2}, 5);
  f.hold(0);
  EXPECT_EQ(f.table.ties(0).listed, 0u);
  f.release(0, 5);
  EXPECT_EQ(f.pop(3), (Ids{1, 2, 0}));
}

TEST(FifoTest, ABlockKeepsThePlaceThatItGotFirst) {
  Fixture f(EvictionPolicy::Fifo);
  EXPECT_TRUE(f.order.wants_paths());
  f.add({0, 1, 2}, 5);
  f.hold(0);
  EXPECT_EQ(f.table.ties(0).listed, 1u);
  f.release(0, 5);
  EXPECT_EQ(f.pop(3), (Ids{0, 1, 2}));
}

TEST(FifoTest, ABlockWhoseTurnCameWhileItWasPinnedIsTheNextOnceItIsNot) {
  Fixture f(EvictionPolicy::Fifo);
  f.add({0, 1, 2, 3}, 5);
  f.hold(0);
  EXPECT_EQ(f.pop(1), (Ids{1}));
  EXPECT_EQ(f.table.ties(0).listed, 0u) << "set aside";
  f.release(0, 5);
  EXPECT_EQ(f.pop(3), (Ids{0, 2, 3}));
}

TEST(FifoTest, ABlockWhoseTurnCameWhileItHadChildrenIsTheNextOnceItHasNone) {
  Fixture f(EvictionPolicy::Fifo);
  f.add({0, 1, 2}, 5);
  f.table.ties(0).children = 1;
  EXPECT_EQ(f.pop(1), (Ids{1}));
  f.add({0}, 5);  // a hold came and went
  EXPECT_EQ(f.table.ties(0).listed, 0u) << "it is no leaf yet";
  f.table.ties(0).children = 0;
  f.order.add_leaf(0, 5);
  EXPECT_EQ(f.pop(2), (Ids{0, 2}));
}

// A path waits behind its deepest block, which alone gets a place.
TEST(FifoTest, TheParentsOfAPathGoWithItsDeepestBlock) {
  Fixture f(EvictionPolicy::Fifo);
  const Ids path = {0, 1};  // deepest first
  f.table.ties(1).children = 1;
  f.add({0}, 5);
  f.order.added(path);
  f.add({2}, 5);
  EXPECT_EQ(f.table.ties(0).listed, 1u);
  EXPECT_EQ(f.table.ties(1).listed, 0u);
  EXPECT_EQ(f.pop(1), (Ids{0}));
  f.table.ties(1).children = 0;
  f.order.add_leaf(1, 5);
  EXPECT_EQ(f.pop(2), (Ids{1, 2}));
}

}  // namespace
}  // namespace kvbm
