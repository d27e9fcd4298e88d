// The body of the copy kernel, lane by lane.
#include "platform/cuda/copy_range.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace kvbm::cuda {
namespace {

// Copies between buffers at the given places after a multiple of 16, and looks at every byte.
void copies_exactly(std::size_t source_offset, std::size_t target_offset, std::size_t bytes) {
  SCOPED_TRACE(std::to_string(source_offset) + " " + std::to_string(target_offset) + " " +
               std::to_string(bytes));
  alignas(16) static unsigned char source[8192];
  alignas(16) static unsigned char target[8192];
  for (std::size_t i = 0; i < sizeof source; ++i) {
    source[i] = static_cast<unsigned char>(i * 31 + i / 251);
    target[i] = 0xEE;
  }
  const CopyRange range{reinterpret_cast<std::uintptr_t>(source + source_offset),
                        reinterpret_cast<std::uintptr_t>(target + target_offset), bytes};
  for (unsigned lane = 0; lane < kLanes; ++lane) copy_range(range, lane);
  for (std::size_t i = 0; i < sizeof target; ++i) {
    const bool inside = i >= target_offset && i < target_offset + bytes;
    ASSERT_EQ(target[i], inside ? source[i - target_offset + source_offset] : 0xEE) << i;
  }
}

TEST(CopyRangeTest, AllPlacesOfSmallRanges) {
  for (std::size_t source = 0; source < 16; ++source) {
    for (std::size_t target = 0; target < 16; ++target) {
      for (std::size_t bytes : {0, 1, 3, 15, 16, 17, 33, 100}) {
        copies_exactly(source, target, bytes);
      }
    }
  }
}

TEST(CopyRangeTest, LoadsOfManyWordsAndTheirTails) {
  for (std::size_t offset : {0, 1, 4, 8}) {
    for (std::size_t words : {31, 32, 127, 128, 129, 255, 256, 300}) {
      for (std::size_t more : {0, 5}) {
        copies_exactly(offset, offset, words * 16 + more);
        copies_exactly(offset, offset + 4, words * 16 + more);
        copies_exactly(offset, offset + 3, words * 16 + more);
      }
    }
  }
}

TEST(CopyRangeTest, EachByteIsCopiedByOneLane) {
  std::vector<unsigned char> source(5000, 1);
  std::vector<unsigned char> target(5000, 0);
  const CopyRange range{reinterpret_cast<std::uintptr_t>(source.data()),
                        reinterpret_cast<std::uintptr_t>(target.data()), source.size()};
  std::size_t copied = 0;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    std::fill(target.begin(), target.end(), static_cast<unsigned char>(0));
    copy_range(range, lane);
    for (unsigned char byte : target) copied += byte;
  }
  EXPECT_EQ(copied, source.size());
}

}  // namespace
}  // namespace kvbm::cuda
