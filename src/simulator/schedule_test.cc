#include "simulator/schedule.h"

#include <gtest/gtest.h>

#include <random>

namespace kvbm::simulator {
namespace {

TEST(ScheduleTest, RandomSchedulesFindNothing) {
  const std::uint64_t first = std::random_device{}();
  SCOPED_TRACE("first seed " + std::to_string(first));
  for (std::uint64_t seed = first; seed < first + 200; ++seed) {
    const ScheduleResult result = run_schedule(seed);
    for (const std::string& finding : result.findings) {
      ADD_FAILURE() << "seed " << seed << ": " << finding;
    }
    EXPECT_GE(result.requests, 50u);
  }
}

}  // namespace
}  // namespace kvbm::simulator
