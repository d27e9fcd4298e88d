// How a block of one layout becomes a block of another: a list of runs, made once per pair of
// layouts and used again for every pair of blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

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

struct LayerRange {
  std::size_t first = 0;
  std::size_t count = ~std::size_t{0};  // or as many as there are
};

// Bytes that lie in one run on both sides. Addresses are those of block 0: absolute in memory,
// offsets in a file.
struct CopyPiece {
  std::uint64_t source = 0;
  std::uint64_t target = 0;
  std::size_t bytes = 0;
  std::size_t source_stride = 0;  // from one block to the next
  std::size_t target_stride = 0;

  std::uint64_t source_of(BlockId block) const noexcept { return source + block * source_stride; }
  std::uint64_t target_of(BlockId block) const noexcept { return target + block * target_stride; }
};

// Immutable, hence thread-safe. Keeps its layouts alive.
class CopyPlan {
 public:
  enum class Side : std::uint8_t { Memory, File, Device };

  // Errors: InvalidConfig naming both contents if the blocks hold different data; InvalidLayerIndex
  // {index, limit} for layers that do not exist, or none; NotAccessible for a file between which
  // and the other side blocks do not move whole and contiguous.
  static Result<std::shared_ptr<const CopyPlan>> create(std::shared_ptr<const Layout> source,
                                                        std::shared_ptr<const Layout> target,
                                                        LayerRange layers = {});

  const Layout& source() const noexcept { return *source_; }
  const Layout& target() const noexcept { return *target_; }
  Side source_side() const noexcept { return source_side_; }
  Side target_side() const noexcept { return target_side_; }
  LayerRange layers() const noexcept { return layers_; }
  // All layers: only such a copy can be verified, and only its target can be registered.
  bool is_whole() const noexcept { return whole_; }
  // Of one block.
  std::size_t bytes() const noexcept { return bytes_; }

  // As few and as long runs as there are, in the order of the content.
  std::span<const CopyPiece> pieces() const noexcept { return pieces_; }
  // The same, cut where regions end, since each region has a sum of its own.
  std::size_t num_regions() const noexcept { return first_of_region_.size() - 1; }
  std::span<const CopyPiece> region_pieces(std::size_t region) const noexcept {
    return std::span(summed_pieces_)
        .subspan(first_of_region_[region], first_of_region_[region + 1] - first_of_region_[region]);
  }

  // Whether a copy may be made. Errors: InvalidBlockIndex {index, limit}; InvalidConfig for a sum
  // that a part of a block cannot be verified with, and for a source and target that overlap
  // {target's, source's address}.
  Result<void> check(const BlockCopy& copy) const;

 private:
  CopyPlan() = default;
  void add_region(std::size_t region);

  std::shared_ptr<const Layout> source_;
  std::shared_ptr<const Layout> target_;
  Side source_side_ = Side::Memory;
  Side target_side_ = Side::Memory;
  LayerRange layers_;
  bool whole_ = true;
  bool may_overlap_ = false;
  std::size_t bytes_ = 0;
  std::vector<CopyPiece> pieces_;
  std::vector<CopyPiece> summed_pieces_;
  std::vector<std::uint32_t> first_of_region_;
};

}  // namespace kvbm
