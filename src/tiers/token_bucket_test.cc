#include "tiers/token_bucket.h"

#include <gtest/gtest.h>

namespace kvbm::detail {
namespace {

using namespace std::chrono_literals;

class TokenBucketTest : public testing::Test {
 protected:
  TokenBucket bucket_{10, 40};
  TokenBucket::TimePoint now_{1000s};
};

TEST_F(TokenBucketTest, BeginsFullWheneverThatIs) {
  EXPECT_EQ(bucket_.left(), 40);
  EXPECT_EQ(bucket_.left(now_), 40);
  EXPECT_EQ(bucket_.capacity(), 40);
}

TEST_F(TokenBucketTest, WhatIsTakenComesBackAtItsRateUpToTheCapacity) {
  bucket_.left(now_);
  bucket_.take(30);
  EXPECT_EQ(bucket_.left(), 10);
  EXPECT_DOUBLE_EQ(bucket_.left(now_ + 500ms), 15);
  EXPECT_DOUBLE_EQ(bucket_.left(now_ + 1s), 20);
  EXPECT_DOUBLE_EQ(bucket_.left(now_ + 1h), 40);
}

TEST_F(TokenBucketTest, DebtIsPaidFirst) {
  bucket_.left(now_);
  bucket_.take(60);
  EXPECT_DOUBLE_EQ(bucket_.left(now_ + 1s), -10);
  EXPECT_DOUBLE_EQ(bucket_.left(now_ + 3s), 10);
}

TEST_F(TokenBucketTest, AClockThatStandsStillOrGoesBackGivesNothing) {
  bucket_.left(now_);
  bucket_.take(40);
  EXPECT_EQ(bucket_.left(now_), 0);
  EXPECT_EQ(bucket_.left(now_ - 10s), 0);
  EXPECT_DOUBLE_EQ(bucket_.left(now_ + 1s), 10) << "the way back is not counted twice";
}

}  // namespace
}  // namespace kvbm::detail
