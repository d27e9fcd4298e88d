// Moves one block from one layout to another and sums its bytes on the way.
//
// Payload sum of a block: XXH3-64 over the XXH3-64 of each region, layer by layer and outer part by
// outer part. It depends on the bytes alone, not on where they lie, so it stays the same while a
// block moves through the tiers.
#pragma once

#include <cstdint>
#include <optional>

#include "kvbm/result.h"
#include "kvbm/types.h"
#include "physical/layout/layout.h"

namespace kvbm {

// One block of a transfer. `payload_sum` is what the source must sum to, where that is known;
// without it nothing is verified.
struct BlockCopy {
  BlockId source = 0;
  BlockId target = 0;
  std::optional<std::uint64_t> payload_sum;
};

// Copies the block and returns its payload sum. The caller holds both blocks.
//   memory -> memory  region by region; summed and verified inside the copy
//   memory -> file    one write; the given sum goes along, without one the memory is summed first
//   file -> memory    one read; summed and verified after it
// Between memory and a file both sides must be contiguous.
// Errors: ChecksumMismatch (the target's bytes are zeroed first); OperationFailed, OutOfBounds from
// the file; NotAccessible if a side cannot be reached this way.
Result<std::uint64_t> copy_block(const Layout& source, const Layout& target, const BlockCopy& copy);

// Sums a block where it lies. Errors: NotAccessible unless the CPU can address it.
Result<std::uint64_t> sum_block(const Layout& layout, BlockId block);

}  // namespace kvbm
