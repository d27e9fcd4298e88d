#include "apps/kvbm/pattern.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace kvbm::app {
namespace {

std::vector<std::byte> pattern(std::size_t bytes, const RegionName& name) {
  std::vector<std::byte> region(bytes);
  fill_pattern(region, name);
  return region;
}

TEST(PatternTest, AnyByteThatDiffersIsSeen) {
  const RegionName name{SequenceHash(77), 3, 1};
  for (const std::size_t bytes : {1u, 7u, 8u, 9u, 64u, 131u}) {
    auto region = pattern(bytes, name);
    EXPECT_TRUE(has_pattern(region, name));
    for (std::byte& byte : region) {
      byte ^= std::byte{1};
      EXPECT_FALSE(has_pattern(region, name));
      byte ^= std::byte{1};
    }
  }
}

TEST(PatternTest, HashLayerOuterPartAndPlaceAllMatter) {
  std::set<std::vector<std::byte>> patterns;
  for (const std::uint64_t hash : {1u, 2u}) {
    for (const std::size_t layer : {0u, 1u, 2u}) {
      for (const std::size_t outer : {0u, 1u}) {
        patterns.insert(pattern(64, {SequenceHash(hash), layer, outer}));
      }
    }
  }
  EXPECT_EQ(patterns.size(), 12u);

  const RegionName name{SequenceHash(1), 0, 0};
  auto shifted = pattern(72, name);
  shifted.erase(shifted.begin(), shifted.begin() + 8);
  EXPECT_FALSE(has_pattern(shifted, name)) << "right bytes in a wrong place";
}

}  // namespace
}  // namespace kvbm::app
