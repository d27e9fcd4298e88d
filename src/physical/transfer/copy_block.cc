#include "physical/transfer/copy_block.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "base/xxh3.h"
#include "physical/copy/copy.h"

namespace kvbm {
namespace {

using Side = CopyPlan::Side;

bool has_file(const CopyPlan& plan) {
  return plan.source_side() == Side::File || plan.target_side() == Side::File;
}

CopyRun run_of(const CopyPiece& piece, const BlockCopy& copy) {
  return {reinterpret_cast<std::byte*>(piece.target_of(copy.target)),
          reinterpret_cast<const std::byte*>(piece.source_of(copy.source)), piece.bytes};
}

std::uint64_t sum_region(const Layout& layout, std::size_t region, BlockId block) {
  const auto fragments = layout.fragments(region);
  std::size_t bytes = 0;
  for (const Fragment& fragment : fragments) bytes += fragment.bytes;
  RunningSum sum(bytes);
  for (const Fragment& fragment : fragments) {
    sum.add(layout.place(fragment, block).data(), fragment.bytes);
  }
  return sum.finish();
}

std::uint64_t sum_of(std::span<const std::uint64_t> region_sums) {
  return xxh3(region_sums.data(), region_sums.size_bytes());
}

std::uint64_t sum_in_memory(const Layout& layout, BlockId block) {
  std::array<std::uint64_t, kMaxRegionsPerBlock> sums;
  std::array<CopyRun, kMaxRegionsPerBlock> runs;
  // Regions that are one run each are read several at a time.
  std::size_t first = 0;
  std::size_t count = 0;
  const std::size_t regions = layout.content()->regions().size();
  for (std::size_t region = 0; region < regions; ++region) {
    const auto fragments = layout.fragments(region);
    if (fragments.size() == 1) {
      const std::byte* const bytes = layout.place(fragments.front(), block).data();
      runs[count++] = {nullptr, bytes, fragments.front().bytes};
      continue;
    }
    sum_runs(std::span(runs).first(count), std::span(sums).subspan(first, count));
    sums[region] = sum_region(layout, region, block);
    first = region + 1;
    count = 0;
  }
  sum_runs(std::span(runs).first(count), std::span(sums).subspan(first, count));
  return sum_of(std::span(sums).first(regions));
}

std::uint64_t copy_region(std::span<const CopyPiece> pieces, const BlockCopy& copy, Store store) {
  std::size_t bytes = 0;
  for (const CopyPiece& piece : pieces) bytes += piece.bytes;
  SummedCopy summed(bytes, store);
  for (const CopyPiece& piece : pieces) {
    const CopyRun run = run_of(piece, copy);
    summed.add(run.target, run.source, run.bytes);
  }
  return summed.finish();
}

std::uint64_t copy_in_memory(const CopyPlan& plan, const BlockCopy& copy) {
  // Layers that are copied one by one amount to as much as the whole block.
  const std::size_t block_bytes = plan.target().content()->bytes();
  const Store store = block_bytes >= kStreamingBytes ? Store::Streaming : Store::Cached;
  std::array<std::uint64_t, kMaxRegionsPerBlock> sums;
  std::array<CopyRun, kMaxRegionsPerBlock> runs;
  // Regions that are one run each are copied several at a time.
  std::size_t first = 0;
  std::size_t count = 0;
  for (std::size_t region = 0; region < plan.num_regions(); ++region) {
    const auto pieces = plan.region_pieces(region);
    if (pieces.size() == 1) {
      runs[count++] = run_of(pieces.front(), copy);
      continue;
    }
    copy_and_sum_runs(std::span(runs).first(count), std::span(sums).subspan(first, count), store);
    sums[region] = copy_region(pieces, copy, store);
    first = region + 1;
    count = 0;
  }
  copy_and_sum_runs(std::span(runs).first(count), std::span(sums).subspan(first, count), store);
  return sum_of(std::span(sums).first(plan.num_regions()));
}

Result<std::uint64_t> verified(const Layout& target, const BlockCopy& copy, std::uint64_t sum) {
  if (!copy.payload_sum || *copy.payload_sum == sum) return sum;
  zero_block(target, copy.target);  // before anyone hears of it: wrong bytes must not stay around
  return Error{ErrorCode::ChecksumMismatch, 0, 0, 0, {}};
}

Result<std::uint64_t> move_file_block(const CopyPlan& plan, const BlockCopy& copy) {
  KVBM_TRY(const FileBlock block, file_block(plan, copy));
  const bool writes = plan.target_side() == Side::File;
  return finish_file_block(plan, copy,
                           writes ? block.file->write(block.memory, block.offset)
                                  : block.file->read(block.memory, block.offset));
}

}  // namespace

Result<void> check_copy(const CopyPlan& plan, const BlockCopy& copy) {
  KVBM_CHECK_OK(plan.check(copy));
  if (plan.source_side() == Side::Device || plan.target_side() == Side::Device) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0,
                 "the CPU cannot address device memory; such a copy needs the CUDA executor"};
  }
  if (has_file(plan)) KVBM_CHECK_OK(file_block(plan, copy));
  return {};
}

Result<std::uint64_t> copy_block(const CopyPlan& plan, const BlockCopy& copy) {
  KVBM_CHECK_OK(check_copy(plan, copy));
  if (has_file(plan)) return move_file_block(plan, copy);
  return verified(plan.target(), copy, copy_in_memory(plan, copy));
}

Result<std::uint64_t> sum_block(const Layout& layout, BlockId block) {
  if (block >= layout.config().num_blocks) {
    return Error{ErrorCode::InvalidBlockIndex, 0, block, layout.config().num_blocks, {}};
  }
  if (!layout.memory(0).data()) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0, "only blocks in memory can be summed in place"};
  }
  return sum_in_memory(layout, block);
}

Result<std::uint64_t> verify_source(const CopyPlan& plan, const BlockCopy& copy) {
  KVBM_CHECK_OK(plan.check(copy));
  KVBM_TRY(const std::uint64_t sum, sum_block(plan.source(), copy.source));
  if (!copy.payload_sum || *copy.payload_sum == sum) return sum;
  return Error{ErrorCode::ChecksumMismatch, 0, 0, 0, {}};
}

void zero_block(const Layout& layout, BlockId block) noexcept {
  for (const Fragment& fragment : layout.fragments()) {
    const Region run = layout.place(fragment, block);
    std::memset(run.data(), 0, run.bytes);
  }
}

Result<std::uint64_t> verify_block(const Layout& target, const BlockCopy& copy) {
  return verified(target, copy, sum_in_memory(target, copy.target));
}

Result<FileBlock> file_block(const CopyPlan& plan, const BlockCopy& copy) {
  const bool writes = plan.target_side() == Side::File;
  const Region in_memory =
      writes ? plan.source().extent(copy.source) : plan.target().extent(copy.target);
  const Region in_file =
      writes ? plan.target().extent(copy.target) : plan.source().extent(copy.source);
  File& file = *in_file.memory->file();
  const std::size_t unit = file.io_alignment();
  const std::size_t bytes = (in_memory.bytes + unit - 1) / unit * unit;
  // The smaller stride of the two, so that no unit reaches into a neighbour on either side.
  const std::size_t stride = std::min(plan.source().block_stride(), plan.target().block_stride());
  if (bytes > stride || in_memory.offset + bytes > in_memory.memory->bytes()) {
    return Error{ErrorCode::OutOfBounds, 0, bytes, stride,
                 "a block's padding is smaller than the file's I/O unit"};
  }
  return FileBlock{&file, std::span(in_memory.data(), bytes), in_file.offset};
}

Result<std::uint64_t> finish_file_block(const CopyPlan& plan, const BlockCopy& copy,
                                        const Result<void>& moved) {
  if (plan.target_side() == Side::File) {
    if (!moved) return moved.error();
    return copy.payload_sum ? *copy.payload_sum : sum_in_memory(plan.source(), copy.source);
  }
  if (moved) return verify_block(plan.target(), copy);
  zero_block(plan.target(), copy.target);  // it may hold a part, or what was there before
  return moved.error();
}

}  // namespace kvbm
