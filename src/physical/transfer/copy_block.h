// Moves one block from one layout to another and sums its bytes on the way.
//
// Payload sum of a block: XXH3-64 over the XXH3-64 of each region, layer by layer and outer part by
// outer part. It depends on the bytes alone, not on where they lie, so it stays the same while a
// block moves through the tiers.
#pragma once

#include <cstdint>

#include "physical/transfer/copy_plan.h"

namespace kvbm {

// Whether copy_block() may be tried: its errors that show before a byte moves, which are those of
// CopyPlan::check(), NotAccessible and OutOfBounds.
Result<void> check_copy(const CopyPlan& plan, const BlockCopy& copy);

// Copies the block and returns its payload sum; for a part of the layers, the sum of those. The
// caller holds both blocks.
//   memory -> memory  run by run; summed and verified inside the copy
//   memory -> file    one write; the given sum goes along, without one the memory is summed first
//   file -> memory    one read; summed and verified after it
// Errors: those of CopyPlan::check(); NotAccessible if the CPU cannot reach a side; those of
// file_block(); OperationFailed, OutOfBounds from the file; ChecksumMismatch. After a mismatch or a
// read that failed the target's bytes are zero.
Result<std::uint64_t> copy_block(const CopyPlan& plan, const BlockCopy& copy);

// Sums a block where it lies. Errors: InvalidBlockIndex; NotAccessible unless the CPU can address
// it.
Result<std::uint64_t> sum_block(const Layout& layout, BlockId block);

// Sums the source of a copy where it lies and compares that with copy.payload_sum, where it is
// given. Returns the sum. Errors: those of sum_block(); InvalidBlockIndex of the target;
// ChecksumMismatch; the target is not touched.
Result<std::uint64_t> verify_source(const CopyPlan& plan, const BlockCopy& copy);

// Overwrites a block with zeros. Requires: memory that the CPU can address, and a valid block.
void zero_block(const Layout& layout, BlockId block) noexcept;

// What a block that was read must be before anybody may use it: summed, and compared with
// copy.payload_sum where that is given. Returns the sum. Errors: ChecksumMismatch; the target's
// bytes are zeroed first. Requires: a target that the CPU can address.
Result<std::uint64_t> verify_block(const Layout& target, const BlockCopy& copy);

// A block in memory that moves to or from a file in one piece, with as much of its padding as the
// file's I/O unit asks for. Requires: a plan with a file on one side, and a copy that it allows.
// Errors: OutOfBounds if the padding is smaller than that.
struct FileBlock {
  File* file;
  std::span<std::byte> memory;
  std::uint64_t offset;  // in the file
};
Result<FileBlock> file_block(const CopyPlan& plan, const BlockCopy& copy);

// What must follow when the bytes of a FileBlock have moved, or have not: a block that was read is
// verified, or zeroed if the read failed. Returns the payload sum. Errors: `moved`'s;
// ChecksumMismatch.
Result<std::uint64_t> finish_file_block(const CopyPlan& plan, const BlockCopy& copy,
                                        const Result<void>& moved);

}  // namespace kvbm
