#include "logical/policy/lru_shadow.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <vector>

namespace kvbm {
namespace {

TEST(LruShadow, KeepsTheNewestAndTheShallower) {
  LruShadow lru(5);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(lru.use(0));
  lru.finish(10, 3, 5);
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(lru.use(0));
  lru.finish(20, 4, 5);  // leaves room for one of the first three
  EXPECT_EQ(lru.size(), 5u);
  EXPECT_TRUE(lru.use(10));
  EXPECT_FALSE(lru.use(10));
  EXPECT_FALSE(lru.use(10));
  lru.finish(30, 3, 5);
  EXPECT_TRUE(lru.use(20));
  EXPECT_TRUE(lru.use(20));
  EXPECT_FALSE(lru.use(20));
  lru.check_invariants();
}

TEST(LruShadow, ARequestLongerThanTheRoomLeavesWhatFits) {
  LruShadow lru(4);
  lru.finish(1, 9, 4);
  EXPECT_EQ(lru.size(), 4u);
  lru.finish(2, 1, 2);
  EXPECT_EQ(lru.size(), 2u);
  EXPECT_TRUE(lru.use(1));
  EXPECT_FALSE(lru.use(1));
}

// Of ten blocks one stays for ever and the others are used again in turn: the requests between
// become empty, many more than there is room for.
TEST(LruShadow, EmptyRequestsInTheMiddleAreSqueezedOut) {
  LruShadow lru(10);
  std::vector<std::int64_t> last(10);
  std::int64_t now = 0;
  for (std::int64_t& time : last) {
    time = ++now;
    lru.finish(now, 1, 10);
  }
  for (int round = 0; round < 1000; ++round) {
    std::int64_t& time = last[1 + static_cast<std::size_t>(round * 7) % 9];
    ASSERT_TRUE(lru.use(time)) << "round " << round;
    time = ++now;
    lru.finish(now, 1, 10);
    lru.check_invariants();
  }
  EXPECT_TRUE(lru.use(last[0]));
}

// Against a list of blocks in order of use, over random prefixes of random chains that share roots.
TEST(LruShadow, CountsTheHitsOfARealLru) {
  const char* text = std::getenv("KVBM_SEED");
  const unsigned seed = text != nullptr ? unsigned(std::strtoul(text, nullptr, 10)) : 1;
  SCOPED_TRACE(testing::Message() << "KVBM_SEED=" << seed);
  std::mt19937 random(seed);
  constexpr std::size_t kCapacity = 40;
  LruShadow lru(kCapacity);
  std::vector<int> order;  // the coldest first; a child before its parent
  std::map<int, std::int64_t> last_use;
  for (std::int64_t now = 1; now <= 20'000; ++now) {
    // A block is a node of a tree of degree 4, numbered so that its path can be read from it.
    std::vector<int> path;
    int node = 0;
    for (std::size_t depth = 1 + random() % 6; depth > 0; --depth) {
      node = node * 5 + 1 + static_cast<int>(std::min(random() % 4, random() % 4));
      path.push_back(node);
    }
    for (int block : path) {
      const auto found = std::find(order.begin(), order.end(), block);
      ASSERT_EQ(lru.use(last_use[block]), found != order.end()) << "request " << now;
      if (found != order.end()) order.erase(found);
      last_use[block] = now;
    }
    order.insert(order.end(), path.rbegin(), path.rend());
    while (order.size() > kCapacity) order.erase(order.begin());
    lru.finish(now, path.size(), kCapacity);
    ASSERT_EQ(lru.size(), order.size());
  }
  lru.check_invariants();
}

}  // namespace
}  // namespace kvbm
