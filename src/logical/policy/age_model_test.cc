#include "logical/policy/age_model.h"

#include <gtest/gtest.h>

namespace kvbm {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

TEST(AgeBuckets, AreThirdOctavesFromOneSecondOn) {
  EXPECT_EQ(age_bucket(-5), 0u);
  EXPECT_EQ(age_bucket(0), 0u);
  EXPECT_EQ(age_bucket(kSecond - 1), 0u);
  EXPECT_EQ(age_bucket(kSecond), 1u);
  EXPECT_EQ(age_bucket(1'259'000'000), 1u);
  EXPECT_EQ(age_bucket(1'260'000'000), 2u);
  EXPECT_EQ(age_bucket(1'588'000'000), 3u);
  EXPECT_EQ(age_bucket(2 * kSecond), 4u);
  EXPECT_EQ(age_bucket(1024 * kSecond), 31u);
  EXPECT_EQ(age_bucket(INT64_MAX), kAgeBuckets - 1);
  EXPECT_DOUBLE_EQ(age_bucket_begin_s(0), 0);
  EXPECT_DOUBLE_EQ(age_bucket_begin_s(1), 1);
  EXPECT_DOUBLE_EQ(age_bucket_begin_s(7), 4);
  EXPECT_NEAR(age_bucket_begin_s(kAgeBuckets), 52'016, 1);  // 2^(47/3)
}

TEST(ShrunkHazard, DrawsFewSamplesTowardsThePool) {
  LifeTable table;
  table.reached[0] = 80;
  table.reused[0] = 30;
  table.reached[1] = 0;
  HazardRow pooled{};
  pooled[0] = 0.1;
  pooled[1] = 0.25;
  const HazardRow hazard = shrunk_hazard(table, pooled);
  EXPECT_DOUBLE_EQ(hazard[0], 0.32);  // (30 + 20 * 0.1) / (80 + 20)
  EXPECT_DOUBLE_EQ(hazard[1], 0.25);
  EXPECT_DOUBLE_EQ(hazard[2], 0);
}

TEST(KeepIndex, TakesTheBestHorizon) {
  HazardRow hazard{};
  hazard[0] = 0.2;
  hazard[1] = 0.5;
  const IndexRow row = keep_index(hazard);
  // From bucket 0, one bucket far: 0.2 / (0.9 * 1 s) = 0.2222.
  // Two far: (0.2 + 0.8 * 0.5) / (0.9 + 0.8 * 0.75 * 0.259921) = 0.6 / 1.0559526. The best.
  // Three far: the same uses, but longer.
  EXPECT_NEAR(row[0], 0.568208, 1e-5);
  // From bucket 1: 0.5 / (0.75 * 0.259921).
  EXPECT_NEAR(row[1], 2.564882, 1e-5);
  EXPECT_EQ(row[2], 0);
}

TEST(KeepIndex, LooksOverAGap) {
  HazardRow hazard{};
  hazard[4] = 1;  // all are used between 2 s and 2.52 s
  const IndexRow row = keep_index(hazard);
  EXPECT_NEAR(row[0], 1 / (2 + 0.259921), 1e-5);
  EXPECT_NEAR(row[4], 1 / 0.259921, 1e-5);
  EXPECT_LT(row[0], row[1]);
  EXPECT_LT(row[3], row[4]);
  EXPECT_EQ(row[5], 0);
}

// 40 blocks of one class are used again after 2 s, 40 of another one never.
TEST(AgeModel, LearnsTheHazardOfEachClass) {
  AgeModel model;
  EXPECT_FALSE(model.trained());
  for (std::uint64_t i = 0; i < 40; ++i) {
    model.follow(SequenceHash{i}, 1, 0);
    model.follow(SequenceHash{100 + i}, 2, 0);
  }
  for (std::uint64_t i = 0; i < 40; ++i) EXPECT_TRUE(model.end(SequenceHash{i}, 2 * kSecond));
  EXPECT_FALSE(model.end(SequenceHash{0}, 2 * kSecond));
  model.check_invariants();
  model.rebuild(8 * kSecond);
  // Bucket 4: pooled 40 / 80; class 1 (40 + 10) / 60, class 2 (0 + 10) / 60; width 0.519842 s.
  EXPECT_NEAR(model.index(1, 2 * kSecond), (5. / 6) / ((1 - 5. / 12) * 0.519842), 1e-4);
  EXPECT_NEAR(model.index(2, 2 * kSecond), (1. / 6) / ((1 - 1. / 12) * 0.519842), 1e-4);
  // A class without samples is like all together.
  EXPECT_NEAR(model.index(40, 2 * kSecond), 0.5 / (0.75 * 0.519842), 1e-4);
  EXPECT_EQ(model.index(1, 3 * kSecond), 0);
}

TEST(AgeModel, AnOpenSampleCountsUpToItsPresentAgeOnly) {
  AgeModel model;
  for (std::uint64_t i = 0; i < 20; ++i) model.follow(SequenceHash{i}, 0, 0);
  for (std::uint64_t i = 0; i < 10; ++i) model.end(SequenceHash{i}, 3 * kSecond);
  // Begun later: at the rebuild they are younger than 3 s, so they say nothing about that age.
  for (std::uint64_t i = 50; i < 80; ++i) model.follow(SequenceHash{i}, 0, 4 * kSecond);
  model.rebuild(5 * kSecond);
  EXPECT_NEAR(model.index(0, 3 * kSecond), 0.5 / (0.75 * (3.174802 - 2.519842)), 1e-4);
  // Once they have lived longer they do: 10 of 50.
  model.rebuild(9 * kSecond);
  EXPECT_NEAR(model.index(0, 3 * kSecond), 0.2 / (0.9 * (3.174802 - 2.519842)), 1e-4);
}

TEST(AgeModel, AnOpenSampleReachesABucketAtItsFirstNanosecond) {
  for (const bool reached : {false, true}) {
    AgeModel model;
    for (std::uint64_t i = 0; i < 20; ++i) {
      model.follow(SequenceHash{i}, 0, 0);
      model.end(SequenceHash{i}, kSecond);
    }
    for (std::uint64_t i = 0; i < 20; ++i) model.follow(SequenceHash{100 + i}, 0, 1);
    model.rebuild(kSecond + (reached ? 1 : 0));
    const double hazard = reached ? 0.5 : 1;
    EXPECT_NEAR(model.index(0, kSecond), hazard / ((1 - hazard / 2) * 0.259921), 1e-4);
  }
}

TEST(AgeModel, FollowingAgainEndsTheFirstSample) {
  AgeModel model;
  model.follow(SequenceHash{1}, 0, 0);
  model.follow(SequenceHash{1}, 1, kSecond);
  model.check_invariants();
  EXPECT_TRUE(model.end(SequenceHash{1}, 2 * kSecond));
  EXPECT_FALSE(model.end(SequenceHash{1}, 2 * kSecond));
}

TEST(AgeModel, ForgetsTheOldestSamples) {
  AgeModel model;
  for (std::uint64_t i = 0; i < 30'000; ++i) {
    model.follow(SequenceHash{i}, 0, 0);
    if (i % 2 == 0) model.end(SequenceHash{i}, kSecond);
  }
  for (std::uint64_t i = 0; i < AgeModel::kSamples; ++i) {
    model.follow(SequenceHash{100'000 + i}, 1, 2 * kSecond);
  }
  model.check_invariants();
  EXPECT_FALSE(model.end(SequenceHash{1}, 3 * kSecond));
  EXPECT_TRUE(model.end(SequenceHash{100'000}, 3 * kSecond));
  model.rebuild(4 * kSecond);
  // One reuse, at 1 s, is all that is left: pooled 1 / 40,000 of all.
  EXPECT_NEAR(model.index(0, kSecond), 1. / 40'000 / 0.259921, 1e-6);
}

TEST(AgeModel, IsTrainedAtTheSixteenthRequest) {
  AgeModel model;
  for (int i = 0; i < 15; ++i) model.on_request(i);
  EXPECT_FALSE(model.trained());
  model.on_request(16);
  EXPECT_TRUE(model.trained());
}

TEST(AgeModel, RebuildsEverySixtyFourRequests) {
  AgeModel model;
  for (int i = 0; i < 20; ++i) model.on_request(0);
  for (std::uint64_t i = 0; i < 40; ++i) model.follow(SequenceHash{i}, 0, 0);
  for (std::uint64_t i = 0; i < 40; ++i) model.end(SequenceHash{i}, 2 * kSecond);
  for (int i = 20; i < 63; ++i) model.on_request(3 * kSecond);
  EXPECT_EQ(model.index(0, 2 * kSecond), 0);
  model.on_request(3 * kSecond);
  EXPECT_GT(model.index(0, 2 * kSecond), 1);
}

}  // namespace
}  // namespace kvbm
