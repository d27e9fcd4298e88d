// Plans: how long they keep their blocks, and who may use them.
#include <gtest/gtest.h>

#include <thread>

#include "manager/test_manager.h"

namespace kvbm::detail {
namespace {

using std::chrono::hours;
using std::chrono::nanoseconds;

class ManagerPlansTest : public testing::Test {
 protected:
  ManagerPlansTest() { compute_and_drain(manager_, tokens_.blocks()); }

  Lookup look_up(const LookupOptions& options = {}) {
    return manager_.lookup(tokens_.sequence_hashes(), 0, options);
  }
  std::size_t pinned() const {
    return manager_.device()->total_blocks() - manager_.device()->available_blocks();
  }
  // Waits for the end of a lease that is over.
  void wait_until_free() const {
    while (pinned() > 0) std::this_thread::yield();
  }

  const TokenBlockSequence tokens_ = test_prompt(0, 4);
  ReferenceBlockManager manager_ = ReferenceBlockManager::create(test_config()).value();
};

TEST_F(ManagerPlansTest, ALookupHoldsItsBlocksUntilItGoes) {
  {
    const Lookup found = look_up();
    EXPECT_NE(found.plan_id(), 0u);
    EXPECT_EQ(pinned(), 4u);
  }
  EXPECT_EQ(pinned(), 0u);
}

TEST_F(ManagerPlansTest, WhatIsCutOffIsGivenBackAtOnce) {
  Lookup found = look_up();
  found.truncate(1);
  EXPECT_EQ(pinned(), 1u);
  EXPECT_EQ(manager_.onboard(std::move(found)).value().get().blocks.size(), 1u);
}

TEST_F(ManagerPlansTest, ALeaseThatIsOverFreesTheBlocksAndThePlanIsExpired) {
  for (const nanoseconds lease : {nanoseconds(0), nanoseconds(-5), nanoseconds(1000)}) {
    Lookup found = look_up({.lease = lease});
    const PlanId id = found.plan_id();
    EXPECT_EQ(found.size(), 4u);
    wait_until_free();
    const auto refused = manager_.onboard(std::move(found));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::PlanExpired);
    EXPECT_EQ(refused.error().requested, id);
  }
}

// The later lease must not hide the earlier one from whoever waits for the end of leases.
TEST_F(ManagerPlansTest, AShortLeaseEndsBeforeALongOne) {
  Lookup longer = look_up({.lease = hours(1)});
  longer.truncate(1);
  const Lookup shorter = look_up({.lease = nanoseconds(1000)});
  while (pinned() > 1) std::this_thread::yield();
  EXPECT_EQ(manager_.onboard(std::move(longer)).value().get().valid_prefix(), 1u);
}

TEST_F(ManagerPlansTest, APlanThatWasLeftIsTakenUpByItsId) {
  clear(*manager_.device());
  const PlanId id = look_up().leave();
  Lookup taken = manager_.take_plan(id).value();
  ASSERT_EQ(taken.size(), 4u);
  EXPECT_EQ(taken.count(Tier::Host), 4u);
  EXPECT_EQ(taken.plan_id(), id);
  const auto loaded = manager_.onboard(std::move(taken)).value().get();
  ASSERT_EQ(loaded.valid_prefix(), 4u);
  for (const auto& block : loaded.blocks) EXPECT_TRUE(is_right(*block));
}

TEST_F(ManagerPlansTest, APlanIsUsedOnceWhoeverTookItUp) {
  const PlanId id = look_up().leave();
  Lookup first = manager_.take_plan(id).value();
  Lookup second = manager_.take_plan(id).value();
  ASSERT_TRUE(manager_.onboard(std::move(first)).has_value());
  EXPECT_EQ(manager_.onboard(std::move(second)).error().code, ErrorCode::PlanExpired);
  const auto third = manager_.take_plan(id);
  ASSERT_FALSE(third.has_value());
  EXPECT_EQ(third.error().code, ErrorCode::PlanExpired);
  EXPECT_EQ(third.error().requested, id);
}

TEST_F(ManagerPlansTest, WhoTookAPlanUpReleasesIt) {
  const PlanId id = look_up().leave();
  EXPECT_EQ(pinned(), 4u);
  {
    const Lookup taken = manager_.take_plan(id).value();
  }
  EXPECT_EQ(pinned(), 0u);
}

TEST_F(ManagerPlansTest, IdsOfNoPlanAreExpired) {
  const PlanId id = look_up().leave();
  for (const PlanId other : {PlanId{0}, id - 1, id + 1}) {
    EXPECT_EQ(manager_.take_plan(other).error().code, ErrorCode::PlanExpired);
  }
  auto next = ReferenceBlockManager::create(test_config()).value();
  EXPECT_EQ(next.take_plan(id).error().code, ErrorCode::PlanExpired) << "of another manager";
  EXPECT_EQ(manager_.lookup(test_prompt(900, 2).sequence_hashes()).plan_id(), 0u);
}

TEST_F(ManagerPlansTest, ClosingEndsAllPlans) {
  const PlanId left = look_up().leave();
  Lookup found = look_up();
  manager_.close();
  EXPECT_EQ(manager_.take_plan(left).error().code, ErrorCode::PlanExpired);
  EXPECT_EQ(manager_.onboard(std::move(found)).error().code, ErrorCode::ProgressEngineShutdown);
}

// A model must compute at least the last token of a prompt.
TEST_F(ManagerPlansTest, TheLastTokenOfAPromptIsLeftOutUnlessAskedFor) {
  EXPECT_EQ(manager_.lookup(tokens_).size(), 3u) << "its last block ends with it";
  EXPECT_EQ(manager_.lookup(tokens_, 0, {.whole_prompt = true}).size(), 4u);
  std::vector<Token> longer(4 * kTestPage + 1);
  std::iota(longer.begin(), longer.end(), Token{0});
  EXPECT_EQ(manager_.lookup(TokenBlockSequence::create(longer, kTestPage).value()).size(), 4u);

  const auto with = [this](std::size_t prompt_tokens, bool whole = false) {
    return look_up({.prompt_tokens = prompt_tokens, .whole_prompt = whole}).size();
  };
  EXPECT_EQ(with(17), 4u);
  EXPECT_EQ(with(16), 3u);
  EXPECT_EQ(with(16, true), 4u);
  EXPECT_EQ(with(5), 1u);
  EXPECT_EQ(with(4), 0u);
  EXPECT_EQ(with(0), 0u);
  EXPECT_EQ(look_up().size(), 4u) << "nobody told how long the prompt is";
}

}  // namespace
}  // namespace kvbm::detail
