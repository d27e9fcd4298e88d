#include "physical/layout/fragments.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/checked.h"

namespace kvbm {
namespace {

constexpr const char* kSize = "the layout's size in bytes";

Result<void> check_ranges(std::span<const Fragment> fragments,
                          std::span<const MemoryRange> memories, std::size_t num_blocks) {
  for (const Fragment& fragment : fragments) {
    const std::size_t available = memories[fragment.memory].bytes;
    KVBM_TRY(const std::size_t before_last,
             checked_mul(num_blocks - 1, fragment.block_stride, kSize));
    KVBM_TRY(const std::size_t begin, checked_add(before_last, fragment.offset, kSize));
    KVBM_TRY(const std::size_t end, checked_add(begin, fragment.bytes, kSize));
    if (end > available) {
      return Error{ErrorCode::InvalidConfig, 0, end, available,
                   "a storage is too small for this layout"};
    }
  }
  return {};
}

// Two runs repeat at their block strides. Where the strides are equal, it is enough to look at the
// two blocks of one that come nearest to a block of the other.
Result<void> check_overlaps(std::span<const Fragment> fragments,
                            std::span<const MemoryRange> memories, std::size_t num_blocks) {
  struct Run {
    const void* space;
    std::uint64_t begin;
    std::uint64_t end;  // of the last block
    const Fragment* fragment;
  };
  std::vector<Run> runs;
  for (const Fragment& fragment : fragments) {
    const MemoryRange& memory = memories[fragment.memory];
    const std::uint64_t begin = memory.address + fragment.offset;
    const std::uint64_t last = begin + (num_blocks - 1) * fragment.block_stride;
    runs.push_back({memory.space, begin, last + fragment.bytes, &fragment});
  }
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
    return std::pair(a.space, a.begin) < std::pair(b.space, b.begin);
  });
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const Run& a = runs[i];
    for (std::size_t j = i + 1; j < runs.size(); ++j) {
      const Run& b = runs[j];
      if (b.space != a.space || b.begin >= a.end) break;
      const std::size_t stride = a.fragment->block_stride;
      bool overlaps = b.fragment->block_stride != stride;
      if (!overlaps) {
        const std::uint64_t ahead = stride == 0 ? 0 : (b.begin - a.begin) / stride;
        const std::uint64_t in_block = b.begin - a.begin - ahead * stride;
        const bool next_exists = ahead + 1 < num_blocks;
        overlaps =
            in_block < a.fragment->bytes || (next_exists && in_block + b.fragment->bytes > stride);
      }
      if (overlaps) {
        return Error{ErrorCode::InvalidConfig, 0, b.begin, a.end,
                     "two parts of the layout overlap: one begins at address " +
                         std::to_string(b.begin) + ", another ends at " + std::to_string(a.end)};
      }
    }
  }
  return {};
}

}  // namespace

Result<void> check_fragments(std::span<const Fragment> fragments,
                             std::span<const MemoryRange> memories, std::size_t num_blocks) {
  if (fragments.size() > kMaxFragmentsPerBlock) {
    return Error{ErrorCode::InvalidConfig, 0, fragments.size(), kMaxFragmentsPerBlock,
                 "a block lies in too many pieces"};
  }
  KVBM_CHECK_OK(check_ranges(fragments, memories, num_blocks));
  return check_overlaps(fragments, memories, num_blocks);
}

}  // namespace kvbm
