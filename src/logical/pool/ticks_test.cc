#include "logical/pool/ticks.h"

#include <gtest/gtest.h>

namespace kvbm {
namespace {

constexpr std::uint64_t kWrap = std::uint64_t{1} << 32;

static_assert(widen_tick(5, 5) == 5);
static_assert(widen_tick(5, 0) == 0);

// Killed mutant: joining the two halves as they are puts what was before the wrap behind it.
TEST(TicksTest, AreWholeAgainAcrossEveryWrapOfTheLowHalf) {
  for (const std::uint64_t wrap : {kWrap, 2 * kWrap, 1000 * kWrap}) {
    for (const std::uint64_t now : {wrap - 1, wrap, wrap + 1, wrap + 12345}) {
      for (const std::uint64_t ago : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{12346},
                                      std::uint64_t{1} << 31, kWrap - 1}) {
        const std::uint64_t tick = now - ago;
        EXPECT_EQ(widen_tick(now, static_cast<std::uint32_t>(tick)), tick)
            << "now " << now << ", " << ago << " ago";
      }
    }
  }
}

}  // namespace
}  // namespace kvbm
