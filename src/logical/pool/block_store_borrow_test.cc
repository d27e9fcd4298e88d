// Holds that are no use of a block.
#include <gtest/gtest.h>

#include <string>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;

constexpr EvictionPolicy kPolicies[] = {EvictionPolicy::Lru, EvictionPolicy::AgeIndex,
                                        EvictionPolicy::Fifo};

class BorrowTest : public testing::TestWithParam<EvictionPolicy> {
 protected:
  void SetUp() override {
    store_ = BlockStore::create({.capacity = 4, .policy = GetParam()}).value();
  }
  void TearDown() override { store_->check_invariants(); }

  void put_and_drop(std::uint64_t conversation, std::uint32_t position) {
    put(*store_, conversation, position);
  }
  static detail::BlockKey key(std::uint64_t conversation, std::uint32_t position) {
    const BlockIdentity is = identity(conversation, position);
    return {is.sequence_hash, is.digest, is.name_space};
  }
  detail::ImmutableHold borrow(std::uint64_t conversation, std::uint32_t position) {
    return detail::borrow(*store_, key(conversation, position));
  }
  // The conversations that go, in order, when `count` blocks are allocated one by one: "12".
  std::string evict(std::size_t count) {
    std::string text;
    std::vector<detail::MutableHold> taken;
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<SequenceHash> evicted;
      taken.push_back(std::move(detail::allocate(*store_, 1, &evicted).value().front()));
      for (const SequenceHash hash : evicted) text += std::to_string(hash.value() >> 32);
      store_->check_invariants();
    }
    return text;
  }

  BlockStore::Owner store_;
};

INSTANTIATE_TEST_SUITE_P(Policies, BorrowTest, testing::ValuesIn(kPolicies),
                         [](const auto& info) { return "Policy" + std::to_string(info.index); });

TEST_P(BorrowTest, LeavesTheOrderAsItWas) {
  for (std::uint64_t c = 1; c <= 4; ++c) put_and_drop(c, 0);
  for (const std::uint64_t c : {2, 1}) {
    auto block = borrow(c, 0);
    ASSERT_TRUE(block);
    store_->check_invariants();
    detail::give_back(std::move(block));
  }
  EXPECT_EQ(evict(4), "1234");
}

TEST_P(BorrowTest, TheBlockStaysWhileItIsBorrowed) {
  for (std::uint64_t c = 1; c <= 4; ++c) put_and_drop(c, 0);
  auto block = borrow(1, 0);
  EXPECT_EQ(evict(3), "234");
  EXPECT_FALSE(detail::allocate(*store_, 4).has_value());
  detail::give_back(std::move(block));
  EXPECT_EQ(evict(4), "1") << "its turn came meanwhile";
}

TEST_P(BorrowTest, AUseMeanwhileCounts) {
  for (std::uint64_t c = 1; c <= 4; ++c) put_and_drop(c, 0);
  auto block = borrow(1, 0);
  detail::match(*store_, chain(1, 1));
  detail::give_back(std::move(block));
  EXPECT_EQ(evict(4), GetParam() == EvictionPolicy::Fifo ? "1234" : "2341");
}

TEST_P(BorrowTest, WhatIsHeldAnywayIsJustHeldOnceMore) {
  auto held = put(*store_, 1, 0);
  for (std::uint64_t c = 2; c <= 4; ++c) put_and_drop(c, 0);
  auto block = borrow(1, 0);
  held = {};
  detail::give_back(std::move(block));
  // The last to let go counts as a use then.
  EXPECT_EQ(evict(4), "2341");
}

TEST_P(BorrowTest, TheMiddleOfAChainGoesBackBetweenItsNeighbours) {
  {
    std::vector<detail::ImmutableHold> chain;
    for (std::uint32_t i = 0; i < 3; ++i) chain.push_back(put(*store_, 1, i));
  }
  put_and_drop(2, 0);
  auto block = borrow(1, 1);
  EXPECT_EQ(evict(2), "12") << "the leaf, and what may go without its parent";
  detail::give_back(std::move(block));
  EXPECT_EQ(evict(4), "11");
}

TEST_P(BorrowTest, IsNeitherAMatchNorAnEvent) {
  put_and_drop(1, 0);
  const auto before = store_->stats().matches;
  detail::give_back(borrow(1, 0));
  EXPECT_EQ(store_->stats().matches, before);
}

TEST_P(BorrowTest, WhatIsNotThereCannotBeBorrowed) {
  put_and_drop(1, 0);
  EXPECT_FALSE(borrow(2, 0));
  auto other = key(1, 0);
  other.digest ^= 1;
  EXPECT_FALSE(detail::borrow(*store_, other)) << "the same hash, another prefix";
  detail::give_back({});
}

TEST_P(BorrowTest, AResetMeanwhileHoldsNothingUp) {
  put_and_drop(1, 0);
  auto block = borrow(1, 0);
  store_->reset();
  EXPECT_FALSE(borrow(1, 0));
  detail::give_back(std::move(block));
  EXPECT_EQ(store_->available_blocks(), 4u);
}

TEST_P(BorrowTest, ABorrowedBlockKeepsAStoreThatIsClosed) {
  put_and_drop(1, 0);
  auto block = borrow(1, 0);
  store_ = {};
  detail::give_back(std::move(block));
  store_ = BlockStore::create({.capacity = 1, .policy = GetParam()}).value();
}

}  // namespace
}  // namespace kvbm
