#include "tiers/write_budget.h"

#include <gtest/gtest.h>

namespace kvbm::detail {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kHourly = 1000;
constexpr std::uint64_t kBlock = 100;

class WriteBudgetTest : public testing::Test {
 protected:
  // Offers so many new blocks; how many were admitted.
  int offer_new(int count) {
    int admitted = 0;
    for (int i = 0; i < count; ++i) admitted += budget_.admit(SequenceHash(next_++), kBlock, now_);
    return admitted;
  }
  WriteBudget budget_{24 * kHourly};
  WriteBudget::TimePoint now_{1000s};
  std::uint64_t next_ = 1;
};

TEST_F(WriteBudgetTest, NewBlocksGetHalfOfTheHoursShare) {
  EXPECT_EQ(offer_new(100), 6);  // the bucket is half full before the sixth
}

TEST_F(WriteBudgetTest, BlocksThatComeBackGetTheRestAndNoMore) {
  EXPECT_EQ(offer_new(20), 6);
  int admitted = 0;
  for (std::uint64_t hash = 7; hash <= 20; ++hash) {
    admitted += budget_.admit(SequenceHash(hash), kBlock, now_);
  }
  EXPECT_EQ(admitted, 4);
  EXPECT_FALSE(budget_.admit(SequenceHash(20), kBlock, now_));
  EXPECT_LT(budget_.bytes_left(), kBlock);
}

TEST_F(WriteBudgetTest, TimeFillsItUpToAnHoursShare) {
  offer_new(20);
  EXPECT_EQ(offer_new(1), 0);
  now_ += 6min;  // a tenth of an hour: 100 bytes
  EXPECT_EQ(offer_new(5), 1);
  now_ += 48h;
  offer_new(0);
  EXPECT_EQ(offer_new(100), 6) << "no more is saved than an hour's share";
}

TEST_F(WriteBudgetTest, OverAnyDayItHolds) {
  int admitted = 0;
  for (int minute = 0; minute < 24 * 60; ++minute) {
    now_ += 1min;
    const auto first = next_;
    admitted += offer_new(5);
    for (auto hash = first; hash < next_; ++hash) {
      admitted += budget_.admit(SequenceHash(hash), kBlock, now_);
    }
  }
  EXPECT_LE(admitted * static_cast<int>(kBlock), static_cast<int>(25 * kHourly));
  EXPECT_GE(admitted * static_cast<int>(kBlock), static_cast<int>(24 * kHourly));
}

TEST_F(WriteBudgetTest, AClockThatStandsStillOrGoesBackGivesNothing) {
  EXPECT_EQ(offer_new(10), 6);
  now_ -= 10min;
  EXPECT_EQ(offer_new(10), 0);
  now_ += 10min;
  EXPECT_EQ(offer_new(10), 0);
}

TEST(WriteBudgetOfConfigTest, IsGivenOrFollowsFromEndurance) {
  EXPECT_EQ(write_budget({}), 0u);
  EXPECT_EQ(write_budget({.write_budget_bytes_per_day = 7}), 7u);
  EXPECT_EQ(write_budget({.rated_endurance_bytes = 365000, .rated_years = 10}), 100u);
  EXPECT_EQ(write_budget({.write_budget_bytes_per_day = 7, .rated_endurance_bytes = 365000}), 7u);
}

}  // namespace
}  // namespace kvbm::detail
