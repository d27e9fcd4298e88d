// Where the runs of a layout's blocks lie, and what must be true of them, in this process or
// another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kvbm/result.h"

namespace kvbm {

// More than any engine has, few enough to compare all with all.
inline constexpr std::size_t kMaxFragmentsPerBlock = 16384;

// Where one run of every block lies.
struct Fragment {
  std::uint32_t memory = 0;  // index of the layout's memories
  std::uint64_t offset = 0;  // of block 0, in that memory
  std::size_t bytes = 0;
  std::size_t block_stride = 0;  // from one block to the next

  friend bool operator==(const Fragment&, const Fragment&) = default;
};

struct MemoryRange {
  const void* space = nullptr;  // what its addresses count in: a file's are its own
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
};

// Whether all runs of so many blocks lie within their memories and none overlaps another. Errors:
// InvalidConfig {fragments, limit} for too many, {first byte past the end, bytes} for a memory that
// is too small, {addresses} for an overlap. Requires: memories that do not wrap, and as many as the
// fragments name. Cost: about n log n; n^2 where all runs lie between each other.
Result<void> check_fragments(std::span<const Fragment> fragments,
                             std::span<const MemoryRange> memories, std::size_t num_blocks);

}  // namespace kvbm
