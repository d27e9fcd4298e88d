#include "tiers/plan_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tiers/test_tiers.h"

namespace kvbm::detail {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::Pair;

class PlanTableTest : public testing::Test {
 protected:
  // Holds the blocks of a conversation in the device pool, from one position to another.
  PlanSegment segment(std::uint32_t conversation, std::uint32_t first, std::uint32_t last,
                      Tier tier = Tier::Device) {
    TierPool& pool = tier == Tier::Device ? *device_ : *host_;
    const auto hashes = test_chain(conversation, last);
    const auto names = std::span(hashes).subspan(first);
    if (!pool.store().contains(hashes.back(), 0)) {
      std::vector<ImmutableHold> held;
      for (std::uint32_t at = first; at < last; ++at) {
        held.push_back(put_test_block(pool, conversation, at));
      }
    }
    return {tier, match_run(pool.store(), names), last - first};
  }
  // Three blocks of the device and two of the host.
  Plan plan(std::uint32_t conversation = 1) {
    Plan plan;
    plan.segments.push_back(segment(conversation, 0, 3));
    plan.segments.push_back(segment(conversation, 3, 5, Tier::Host));
    return plan;
  }
  std::size_t pinned(const TierPool& pool) const {
    return pool.store().capacity() - pool.store().available_blocks();
  }

  const std::shared_ptr<TierPool> device_ = make_test_pool(Tier::Device, 8);
  const std::shared_ptr<TierPool> host_ = make_test_pool(Tier::Host, 8);
  const TimePoint start_{};
  PlanTable table_{100};
};

TEST_F(PlanTableTest, APlanIsTakenOnce) {
  EXPECT_EQ(table_.add(plan(), start_), 100u);
  EXPECT_THAT(table_.segments(100).value(),
              ElementsAre(Pair(Tier::Device, 3), Pair(Tier::Host, 2)));
  {
    const Plan taken = table_.take(100).value();
    EXPECT_EQ(taken.size(), 5u);
    EXPECT_EQ(taken.count(Tier::Host), 2u);
    EXPECT_EQ(taken.count(Tier::Disk), 0u);
    EXPECT_EQ(pinned(*device_), 3u);
  }
  EXPECT_EQ(pinned(*device_), 0u);
  const auto again = table_.take(100);
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code, ErrorCode::PlanExpired);
  EXPECT_EQ(again.error().requested, 100u);
  EXPECT_EQ(table_.segments(100).error().code, ErrorCode::PlanExpired);
  EXPECT_EQ(table_.truncate(100, 1).error().code, ErrorCode::PlanExpired);
  EXPECT_EQ(table_.size(), 0u);
  table_.check_invariants();
}

TEST_F(PlanTableTest, WhatIsCutOffIsGivenBack) {
  const PlanId id = table_.add(plan(), start_);
  EXPECT_THAT(table_.truncate(id, 9).value(), ElementsAre(3, 2, 0));
  EXPECT_EQ(pinned(*host_), 2u);
  EXPECT_THAT(table_.truncate(id, 4).value(), ElementsAre(3, 1, 0));
  EXPECT_EQ(pinned(*device_), 3u);
  EXPECT_EQ(pinned(*host_), 1u);
  EXPECT_THAT(table_.truncate(id, 2).value(), ElementsAre(2, 0, 0));
  EXPECT_EQ(pinned(*device_), 2u);
  EXPECT_EQ(pinned(*host_), 0u);
  EXPECT_THAT(table_.truncate(id, 5).value(), ElementsAre(2, 0, 0)) << "it grows no more";
  EXPECT_THAT(table_.truncate(id, 0).value(), ElementsAre(0, 0, 0));
  EXPECT_EQ(pinned(*device_), 0u);
  table_.check_invariants();
}

TEST_F(PlanTableTest, AReleasedPlanIsGone) {
  const PlanId id = table_.add(plan(), start_);
  table_.release(id);
  table_.release(id);
  EXPECT_EQ(pinned(*device_), 0u);
  EXPECT_FALSE(table_.next_expiry().has_value());
  table_.check_invariants();
}

TEST_F(PlanTableTest, PlansExpireWhenTheirTimeHasCome) {
  table_.add(plan(), start_ + seconds(2));
  const PlanId first = table_.add(plan(), start_ + seconds(1));
  const PlanId third = table_.add(plan(), start_ + seconds(3));
  EXPECT_EQ(table_.next_expiry(), start_ + seconds(1));
  EXPECT_EQ(table_.expire(start_ + seconds(1) - std::chrono::nanoseconds(1)), 0u);
  EXPECT_EQ(table_.expire(start_ + seconds(1)), 1u);
  EXPECT_EQ(table_.take(first).error().code, ErrorCode::PlanExpired);
  EXPECT_EQ(pinned(*device_), 3u) << "others hold the same blocks";
  table_.release(third);
  EXPECT_EQ(table_.next_expiry(), start_ + seconds(2));
  EXPECT_EQ(table_.expire(start_ + seconds(9)), 1u);
  EXPECT_EQ(pinned(*device_), 0u);
  table_.check_invariants();
}

TEST_F(PlanTableTest, AClosedTableKeepsNothing) {
  table_.add(plan(), start_);
  table_.close();
  EXPECT_EQ(pinned(*device_), 0u);
  const PlanId late = table_.add(plan(), start_);
  EXPECT_EQ(table_.take(late).error().code, ErrorCode::PlanExpired);
  EXPECT_EQ(pinned(*device_), 0u);
  table_.close();
  table_.check_invariants();
}

}  // namespace
}  // namespace kvbm::detail
