#include "physical/transfer/copy_block.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "base/xxh3.h"

namespace kvbm {
namespace {

// Copy and sum alternate in pieces that fit the first-level cache, so that memory is read once.
constexpr std::size_t kStripBytes = std::size_t{8} << 10;

void copy_strip(std::uint64_t target, std::uint64_t source, std::size_t bytes) {
  std::memcpy(reinterpret_cast<std::byte*>(target), reinterpret_cast<const std::byte*>(source),
              bytes);
}

// The runs of one region.
std::uint64_t copy_and_sum(std::span<const CopyPiece> pieces, const BlockCopy& copy) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (const CopyPiece& piece : pieces) {
    const std::uint64_t source = piece.source_of(copy.source);
    const std::uint64_t target = piece.target_of(copy.target);
    for (std::size_t at = 0; at < piece.bytes; at += kStripBytes) {
      const std::size_t strip = std::min(kStripBytes, piece.bytes - at);
      copy_strip(target + at, source + at, strip);
      XXH3_64bits_update(&state, reinterpret_cast<const std::byte*>(target + at), strip);
    }
  }
  return XXH3_64bits_digest(&state);
}

// Adds up the sums of regions.
class PayloadSum {
 public:
  void add(std::uint64_t region_sum) noexcept { sums_[count_++] = region_sum; }
  std::uint64_t value() const noexcept { return xxh3(sums_.data(), count_ * sizeof sums_[0]); }

 private:
  std::array<std::uint64_t, kMaxRegionsPerBlock> sums_;
  std::size_t count_ = 0;
};

std::uint64_t sum_in_memory(const Layout& layout, BlockId block) {
  PayloadSum sum;
  for (std::size_t region = 0; region < layout.content()->regions().size(); ++region) {
    const auto runs = layout.fragments(region);
    if (runs.size() == 1) {
      const Region run = layout.place(runs.front(), block);
      sum.add(xxh3(run.data(), run.bytes));
      continue;
    }
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (const Fragment& fragment : runs) {
      const Region run = layout.place(fragment, block);
      XXH3_64bits_update(&state, run.data(), run.bytes);
    }
    sum.add(XXH3_64bits_digest(&state));
  }
  return sum.value();
}

std::uint64_t copy_in_memory(const CopyPlan& plan, const BlockCopy& copy) {
  PayloadSum sum;
  for (std::size_t region = 0; region < plan.num_regions(); ++region) {
    sum.add(copy_and_sum(plan.region_pieces(region), copy));
  }
  return sum.value();
}

Result<std::uint64_t> verified(const Layout& target, const BlockCopy& copy, std::uint64_t sum) {
  if (!copy.payload_sum || *copy.payload_sum == sum) return sum;
  zero_block(target, copy.target);  // before anyone hears of it: wrong bytes must not stay around
  return Error{ErrorCode::ChecksumMismatch, 0, 0, 0, {}};
}

Result<std::uint64_t> write_block(const CopyPlan& plan, const BlockCopy& copy) {
  KVBM_TRY(const FileBlock block, file_block(plan, copy));
  const std::uint64_t sum =
      copy.payload_sum ? *copy.payload_sum : sum_in_memory(plan.source(), copy.source);
  KVBM_CHECK_OK(block.file->write(block.memory, block.offset));
  return sum;
}

Result<std::uint64_t> read_block(const CopyPlan& plan, const BlockCopy& copy) {
  KVBM_TRY(const FileBlock block, file_block(plan, copy));
  KVBM_CHECK_OK(block.file->read(block.memory, block.offset));
  return verify_block(plan.target(), copy);
}

}  // namespace

Result<std::uint64_t> copy_block(const CopyPlan& plan, const BlockCopy& copy) {
  using Side = CopyPlan::Side;
  KVBM_CHECK_OK(plan.check(copy));
  const Side from = plan.source_side();
  const Side to = plan.target_side();
  if (from == Side::Device || to == Side::Device) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0,
                 "the CPU cannot address device memory; such a copy needs the CUDA executor"};
  }
  if (to == Side::File) return write_block(plan, copy);
  if (from == Side::File) return read_block(plan, copy);
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
  const bool writes = plan.target_side() == CopyPlan::Side::File;
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

}  // namespace kvbm
