// What would be evicted next, and whether something else is worth its place.
#include <gtest/gtest.h>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;

class ColdestTest : public testing::TestWithParam<EvictionPolicy> {
 protected:
  // The next `count` victims: "1:2 1:1".
  std::string coldest(std::size_t count) const {
    std::vector<detail::BlockKey> keys;
    store_->coldest(count, keys);
    std::string text;
    for (const detail::BlockKey& key : keys) {
      const std::uint64_t value = key.hash.value();
      text += (text.empty() ? "" : " ") + std::to_string(value >> 32) + ":" +
              std::to_string((value & 0xffffffff) - 1);
    }
    return text;
  }

  const BlockStore::Owner store_ =
      BlockStore::create({.capacity = 8, .policy = GetParam()}).value();
};
INSTANTIATE_TEST_SUITE_P(Policies, ColdestTest,
                         testing::Values(EvictionPolicy::Lru, EvictionPolicy::AgeIndex));

TEST_P(ColdestTest, AChainGoesFromItsEndAndTheOldestChainFirst) {
  EXPECT_EQ(coldest(3), "");
  put_chain(*store_, 1, 3);
  put_chain(*store_, 2, 2);
  EXPECT_EQ(coldest(0), "");
  EXPECT_EQ(coldest(2), "1:2 1:1");
  EXPECT_EQ(coldest(4), "1:2 1:1 1:0 2:1");
  EXPECT_EQ(coldest(9), "1:2 1:1 1:0 2:1 2:0");
  EXPECT_EQ(store_->available_blocks(), 8u) << "nothing was taken";
  store_->check_invariants();
}

TEST_P(ColdestTest, WhatIsPinnedIsLeftOut) {
  put_chain(*store_, 1, 3);
  put_chain(*store_, 2, 2);
  const auto held = detail::match(*store_, chain(1, 2));
  EXPECT_EQ(coldest(9), "1:2 2:1 2:0");
}

TEST_P(ColdestTest, AParentWaitsForItsOtherChildren) {
  put_chain(*store_, 1, 2);
  {
    auto blocks = std::vector<CompleteHold>();
    BlockIdentity sibling = identity(1, 1);
    sibling.sequence_hash = name(1, 7);
    blocks.push_back(detail::complete(allocate_one(*store_), sibling));
    detail::register_blocks(*store_, std::move(blocks)).value();
  }
  EXPECT_EQ(coldest(1), "1:1");
  EXPECT_EQ(coldest(2), "1:1 1:7");
}

TEST_P(ColdestTest, WhatWasForgottenIsNoVictimWorthSaving) {
  put_chain(*store_, 1, 3);
  store_->reset();
  EXPECT_EQ(coldest(9), "");
  put_chain(*store_, 2, 2);
  EXPECT_EQ(coldest(9), "2:1 2:0");
}

TEST_P(ColdestTest, ABlockIsWorthAFreePlaceAndThatOfABlockThatNothingIsKnownOf) {
  EXPECT_TRUE(store_->is_worth_a_place(0));
  put_chain(*store_, 1, 8);
  EXPECT_TRUE(store_->is_worth_a_place(0));
}

}  // namespace
}  // namespace kvbm
