#include "benchmarks/governor_bench.h"

#include <gtest/gtest.h>

namespace kvbm::bench {
namespace {

TEST(GovernorBenchTest, DecisionsAreHardlyWorseThanTheBetterExtreme) {
  const double worst = governor_worst_ratio(1);
  EXPECT_GE(worst, 1) << "on one path nothing is better than the better extreme";
  EXPECT_LE(worst, 1.05);
  EXPECT_EQ(worst, governor_worst_ratio(1));
}

}  // namespace
}  // namespace kvbm::bench
