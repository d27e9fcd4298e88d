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

std::uint64_t copy_and_sum(std::byte* target, const std::byte* source, std::size_t bytes) {
  if (bytes <= kStripBytes) {
    std::memcpy(target, source, bytes);
    return xxh3(target, bytes);
  }
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (std::size_t at = 0; at < bytes; at += kStripBytes) {
    const std::size_t strip = std::min(kStripBytes, bytes - at);
    std::memcpy(target + at, source + at, strip);
    XXH3_64bits_update(&state, target + at, strip);
  }
  return XXH3_64bits_digest(&state);
}

// Calls sum(layer, outer) for each region in order and folds the answers into the payload sum.
template <class SumRegion>
std::uint64_t fold_regions(const Layout& layout, SumRegion sum) {
  std::array<std::uint64_t, MAX_NUM_LAYERS * MAX_OUTER_DIM> sums;
  std::size_t count = 0;
  for (std::size_t layer = 0; layer < layout.config().num_layers; ++layer) {
    for (std::size_t outer = 0; outer < layout.config().outer_dim; ++outer) {
      sums[count++] = sum(layer, outer);
    }
  }
  return xxh3(sums.data(), count * sizeof sums[0]);
}

void zero_block(const Layout& layout, BlockId block) {
  for (std::size_t layer = 0; layer < layout.config().num_layers; ++layer) {
    for (std::size_t outer = 0; outer < layout.config().outer_dim; ++outer) {
      const Region region = layout.region_unchecked(block, layer, outer);
      std::memset(region.data(), 0, region.bytes);
    }
  }
}

std::uint64_t sum_in_memory(const Layout& layout, BlockId block) {
  return fold_regions(layout, [&](std::size_t layer, std::size_t outer) {
    const Region region = layout.region_unchecked(block, layer, outer);
    return xxh3(region.data(), region.bytes);
  });
}

Result<std::uint64_t> verify(const Layout& target, const BlockCopy& copy, std::uint64_t sum) {
  if (!copy.payload_sum || *copy.payload_sum == sum) return sum;
  zero_block(target, copy.target);  // before anyone hears of it: wrong bytes must not stay around
  return Error{ErrorCode::ChecksumMismatch, 0, 0, 0, {}};
}

bool in_memory(const Layout& layout) { return layout.memory(0).data() != nullptr; }

bool is_file(const Layout& layout) { return layout.memory(0).file() != nullptr; }

Result<void> check_ids(const Layout& source, const Layout& target, const BlockCopy& copy) {
  if (source.content_digest() != target.content_digest()) {
    return Error{ErrorCode::InvalidConfig, 0, source.config().block_bytes(),
                 target.config().block_bytes(), "the layouts hold different data per block"};
  }
  KVBM_CHECK_OK(source.region(copy.source, 0, 0));
  KVBM_CHECK_OK(target.region(copy.target, 0, 0));
  return {};
}

Result<void> check_contiguous(const Layout& source, const Layout& target) {
  if (source.is_contiguous() && target.is_contiguous()) return {};
  return Error{ErrorCode::NotAccessible, 0, 0, 0,
               "blocks move between a file and memory only where both are contiguous"};
}

std::size_t smaller_stride(const Layout& a, const Layout& b) {
  return std::min(a.block_stride(), b.block_stride());
}

// A block in memory with as much of its padding as the file's I/O unit asks for. `stride` is the
// smaller one of the two sides, so that no unit reaches into a neighbour on either.
Result<std::span<std::byte>> io_span(const Region& extent, std::size_t stride, const File& file) {
  const std::size_t unit = file.io_alignment();
  const std::size_t bytes = (extent.bytes + unit - 1) / unit * unit;
  if (bytes > stride || extent.offset + bytes > extent.memory->bytes()) {
    return Error{ErrorCode::OutOfBounds, 0, bytes, stride,
                 "a block's padding is smaller than the file's I/O unit"};
  }
  return std::span(extent.data(), bytes);
}

Result<std::uint64_t> write_block(const Layout& source, const Layout& target,
                                  const BlockCopy& copy) {
  KVBM_CHECK_OK(check_contiguous(source, target));
  File& file = *target.memory(0).file();
  KVBM_TRY(const auto bytes,
           io_span(source.extent(copy.source), smaller_stride(source, target), file));
  const std::uint64_t sum =
      copy.payload_sum ? *copy.payload_sum : sum_in_memory(source, copy.source);
  KVBM_CHECK_OK(file.write(bytes, target.extent(copy.target).offset));
  return sum;
}

Result<std::uint64_t> read_block(const Layout& source, const Layout& target,
                                 const BlockCopy& copy) {
  KVBM_CHECK_OK(check_contiguous(source, target));
  File& file = *source.memory(0).file();
  KVBM_TRY(const auto bytes,
           io_span(target.extent(copy.target), smaller_stride(source, target), file));
  KVBM_CHECK_OK(file.read(bytes, source.extent(copy.source).offset));
  return verify(target, copy, sum_in_memory(target, copy.target));
}

}  // namespace

Result<std::uint64_t> copy_block(const Layout& source, const Layout& target,
                                 const BlockCopy& copy) {
  KVBM_CHECK_OK(check_ids(source, target, copy));
  if (in_memory(source) && in_memory(target)) {
    const std::uint64_t sum = fold_regions(source, [&](std::size_t layer, std::size_t outer) {
      const Region from = source.region_unchecked(copy.source, layer, outer);
      const Region to = target.region_unchecked(copy.target, layer, outer);
      return copy_and_sum(to.data(), from.data(), from.bytes);
    });
    return verify(target, copy, sum);
  }
  if (in_memory(source) && is_file(target)) return write_block(source, target, copy);
  if (is_file(source) && in_memory(target)) return read_block(source, target, copy);
  return Error{ErrorCode::NotAccessible, 0, 0, 0,
               "one side must be memory that the CPU can address, the other that or a file"};
}

Result<std::uint64_t> sum_block(const Layout& layout, BlockId block) {
  KVBM_CHECK_OK(layout.region(block, 0, 0));
  if (!in_memory(layout)) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0, "only blocks in memory can be summed in place"};
  }
  return sum_in_memory(layout, block);
}

}  // namespace kvbm
