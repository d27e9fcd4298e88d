#include "apps/kvbm/text.h"

#include <gtest/gtest.h>

#include <limits>

namespace kvbm::app {
namespace {

TEST(TextTest, DigitsAreGroupedByThree) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(123456), "123,456");
  EXPECT_EQ(grouped(1234567), "1,234,567");
  EXPECT_EQ(grouped(std::numeric_limits<std::uint64_t>::max()), "18,446,744,073,709,551,615");
}

TEST(TextTest, SizesAreInTheLargestUnitThatFits) {
  EXPECT_EQ(size_text(0), "0 B");
  EXPECT_EQ(size_text(1023), "1023 B");
  EXPECT_EQ(size_text(1536), "1.5 KiB");
  EXPECT_EQ(size_text(404'226'048), "385.5 MiB");
  EXPECT_EQ(size_text(std::uint64_t{5} << 50), "5120.0 TiB");
}

TEST(TextTest, APartOfNothingIsZeroPerCent) {
  EXPECT_EQ(percent(0, 0), 0.0);
  EXPECT_EQ(percent(1, 4), 25.0);
}

}  // namespace
}  // namespace kvbm::app
