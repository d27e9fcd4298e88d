#include "base/checked.h"

#include <gtest/gtest.h>

#include <limits>

namespace kvbm {
namespace {

constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();

void expect_overflow(const Result<std::size_t>& result, std::size_t a, std::size_t b) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(result.error().requested, a);
  EXPECT_EQ(result.error().available, b);
  EXPECT_EQ(result.error().message.find("the size"), 0u) << result.error().message;
}

TEST(CheckedTest, ProductsUpToTheLastBitAreExact) {
  EXPECT_EQ(checked_mul(0, kMax, "the size").value(), 0u);
  EXPECT_EQ(checked_mul(kMax, 1, "the size").value(), kMax);
  EXPECT_EQ(checked_mul(std::size_t{1} << 32, (std::size_t{1} << 32) - 1, "the size").value(),
            kMax - 0xFFFFFFFFu);
}

TEST(CheckedTest, ProductsBeyondAreRefused) {
  const std::size_t half = std::size_t{1} << 32;
  expect_overflow(checked_mul(half, half, "the size"), half, half);
  expect_overflow(checked_mul(kMax, 2, "the size"), kMax, 2);
}

TEST(CheckedTest, SumsUpToTheLastBitAreExactAndBeyondRefused) {
  EXPECT_EQ(checked_add(kMax - 1, 1, "the size").value(), kMax);
  expect_overflow(checked_add(kMax, 1, "the size"), kMax, 1);
  expect_overflow(checked_add(1, kMax, "the size"), 1, kMax);
}

TEST(CheckedTest, AlignsUpToTheNextMultiple) {
  for (std::size_t alignment : {std::size_t{1}, std::size_t{2}, std::size_t{64}}) {
    for (std::size_t value = 0; value < 200; ++value) {
      std::size_t expected = value;
      while (expected % alignment != 0) ++expected;
      EXPECT_EQ(checked_align_up(value, alignment, "the size").value(), expected);
    }
  }
}

TEST(CheckedTest, AlignsTheLargestMultipleAndRefusesWhatIsBeyond) {
  const std::size_t last = kMax - 4095;  // the largest multiple of 4096
  EXPECT_EQ(checked_align_up(last, 4096, "the size").value(), last);
  expect_overflow(checked_align_up(last + 1, 4096, "the size"), last + 1, 4095);
  EXPECT_EQ(checked_align_up(kMax, 1, "the size").value(), kMax);
}

}  // namespace
}  // namespace kvbm
