#include "tiers/lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tiers/test_tiers.h"

namespace kvbm::detail {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

class LookupTiersTest : public testing::Test {
 protected:
  using Segments = std::vector<std::pair<Tier, std::size_t>>;

  TierPool& pool(Tier tier) { return tier == Tier::Device ? *device_ : *host_; }
  // Puts the blocks of these positions of conversation 1 into a tier, one after the other.
  void put(Tier tier, std::initializer_list<std::uint32_t> positions) {
    std::vector<ImmutableHold> held;
    for (const std::uint32_t at : positions) held.push_back(put_test_block(pool(tier), 1, at));
  }
  void put_on_disk(std::initializer_list<std::uint32_t> positions) {
    for (const std::uint32_t at : positions) {
      const auto source = put_test_block(*host_, 1, at);
      auto target = std::move(allocate(disk_->store(), 1).value().front());
      const BlockCopy copy{source.id(), target.id(), host_->payload_sum(source)};
      const TransferRequest request{
          .plan = CopyPlan::create(host_->layout(), disk_->layout()).value(), .blocks = {}};
      auto token = ManualExecutor::run(request, copy).value();
      register_transferred(*disk_, complete(std::move(target), test_identity(1, at)),
                           std::move(token))
          .value();
    }
    host_->store().reset();
  }
  Plan find(std::uint32_t length) {
    return lookup_tiers({device_.get(), host_.get(), disk_.get()}, test_chain(1, length));
  }
  static Segments segments(const Plan& plan) { return view_of(plan)->segments; }

  const std::shared_ptr<TierPool> device_ = make_test_pool(Tier::Device, 16);
  const std::shared_ptr<TierPool> host_ = make_test_pool(Tier::Host, 16);
  const std::shared_ptr<TierPool> disk_ = make_test_pool(Tier::Disk, 16);
};

TEST_F(LookupTiersTest, WhatNoTierHasEndsThePrefix) {
  EXPECT_THAT(segments(find(4)), IsEmpty());
  EXPECT_THAT(segments(find(0)), IsEmpty());
  put(Tier::Device, {0, 1});
  put(Tier::Host, {3});
  EXPECT_THAT(segments(find(4)), ElementsAre(Pair(Tier::Device, 2)));
  EXPECT_THAT(segments(find(1)), ElementsAre(Pair(Tier::Device, 1)));
}

TEST_F(LookupTiersTest, AGapOfOneTierIsFilledByTheOthers) {
  put_on_disk({2, 3});
  put(Tier::Device, {0, 5});
  put(Tier::Host, {1, 4});
  const Plan plan = find(6);
  EXPECT_THAT(segments(plan),
              ElementsAre(Pair(Tier::Device, 1), Pair(Tier::Host, 1), Pair(Tier::Disk, 2),
                          Pair(Tier::Host, 1), Pair(Tier::Device, 1)));
  EXPECT_EQ(plan.size(), 6u);
  EXPECT_EQ(plan.count(Tier::Host), 2u);
}

TEST_F(LookupTiersTest, EachBlockComesFromTheFastestTierThatHasIt) {
  put_on_disk({0, 1, 2, 3, 4, 5});
  put(Tier::Host, {0, 1, 2, 4});
  put(Tier::Device, {1, 3});
  EXPECT_THAT(segments(find(6)),
              ElementsAre(Pair(Tier::Host, 1), Pair(Tier::Device, 1), Pair(Tier::Host, 1),
                          Pair(Tier::Device, 1), Pair(Tier::Host, 1), Pair(Tier::Disk, 1)));
}

TEST_F(LookupTiersTest, WhatIsFoundIsHeldAsLongAsThePlan) {
  put(Tier::Device, {0, 1});
  put(Tier::Host, {2, 3, 4});
  {
    const Plan plan = find(5);
    EXPECT_EQ(device_->store().available_blocks(), 14u);
    EXPECT_EQ(host_->store().available_blocks(), 13u);
  }
  EXPECT_EQ(device_->store().available_blocks(), 16u);
  EXPECT_EQ(host_->store().available_blocks(), 16u);
}

TEST_F(LookupTiersTest, AManagerMayHaveTheDeviceAlone) {
  put(Tier::Device, {0, 1});
  EXPECT_EQ(lookup_tiers({device_.get(), nullptr, nullptr}, test_chain(1, 3)).size(), 2u);
}

// What a Lookup sees of its plan.
class LookupHandleTest : public LookupTiersTest {
 protected:
  Lookup look_up() {
    put(Tier::Device, {0, 1});
    put(Tier::Host, {2, 3});
    Plan plan = find(4);
    auto view = view_of(plan);
    view->table = table_;
    view->id = table_->add(std::move(plan), TimePoint::max());
    return Lookup(std::move(view));
  }
  const std::shared_ptr<PlanTable> table_ = std::make_shared<PlanTable>(7);
};

TEST_F(LookupHandleTest, TellsWhereEachBlockIs) {
  const Lookup found = look_up();
  EXPECT_EQ(found.size(), 4u);
  EXPECT_EQ(found.tier(1), Tier::Device);
  EXPECT_EQ(found.tier(2), Tier::Host);
  EXPECT_EQ(found.count(Tier::Host), 2u);
  EXPECT_EQ(found.plan_id(), 7u);
}

TEST_F(LookupHandleTest, WhatIsCutOffIsGivenBack) {
  Lookup found = look_up();
  found.truncate(9);
  EXPECT_EQ(found.size(), 4u);
  found.truncate(3);
  EXPECT_EQ(found.count(Tier::Host), 1u);
  EXPECT_EQ(host_->store().available_blocks(), 15u);
  found.truncate(0);
  EXPECT_EQ(found.size(), 0u);
  EXPECT_EQ(device_->store().available_blocks(), 16u);
}

TEST_F(LookupHandleTest, ReleasesItsPlanWhenItGoes) {
  {
    Lookup found = look_up();
    Lookup other(std::move(found));
    EXPECT_EQ(table_->size(), 1u);
    EXPECT_EQ(other.size(), 4u);
    other = Lookup();
    EXPECT_EQ(table_->size(), 0u) << "assigning to it lets the old plan go";
    EXPECT_EQ(other.plan_id(), 0u);
    found = look_up();
  }
  EXPECT_EQ(table_->size(), 0u);
}

TEST_F(LookupHandleTest, WhatIsLeftStays) {
  {
    Lookup found = look_up();
    EXPECT_EQ(found.leave(), 7u);
    EXPECT_EQ(found.size(), 0u);
    EXPECT_EQ(found.plan_id(), 0u);
    EXPECT_EQ(found.leave(), 0u);
    found.truncate(1);
  }
  EXPECT_EQ(table_->size(), 1u);
  EXPECT_EQ(table_->take(7).value().size(), 4u);
}

TEST_F(LookupHandleTest, TakesItsPlanOnce) {
  Lookup found = look_up();
  EXPECT_EQ(LookupAccess::take(found).value().size(), 4u);
  EXPECT_EQ(LookupAccess::take(found).value().size(), 0u) << "it has found nothing any more";
  Lookup expired = look_up();
  table_->close();
  EXPECT_EQ(LookupAccess::take(expired).error().code, ErrorCode::PlanExpired);
}

// Blocks 0, 1, 4, 5 of a chain are in the device tier, 2 and 3 in the host tier.
TEST(LookupTest, ATierCountsEachNameOnceHoweverManyGapsItHas) {
  const auto device = make_test_pool(Tier::Device, 8);
  const auto host = make_test_pool(Tier::Host, 8);
  for (const std::uint32_t position : {0u, 1u, 4u, 5u}) put_test_block(*device, 1, position);
  for (const std::uint32_t position : {2u, 3u}) put_test_block(*host, 1, position);
  const auto chain = test_chain(1, 6);
  for (int time = 0; time < 2; ++time) {
    const Plan plan = lookup_tiers({device.get(), host.get(), nullptr}, chain);
    ASSERT_EQ(plan.segments.size(), 3u);
    EXPECT_EQ(plan.count(Tier::Device), 4u);
    EXPECT_EQ(plan.count(Tier::Host), 2u);
  }
  for (const auto& pool : {device, host}) {
    ASSERT_FALSE(pool->store().miss_ratio_curve().empty());
    EXPECT_DOUBLE_EQ(pool->store().miss_ratio_curve().back().hit_ratio, 0.5)
        << "of two accesses the second hits";
  }
}

}  // namespace
}  // namespace kvbm::detail
