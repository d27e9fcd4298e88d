// What a block holds, wherever it lies: regions of bytes in a fixed order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kvbm/layout.h"

namespace kvbm {

// More than any model has; bounds what a sum of sums keeps on the stack.
inline constexpr std::size_t kMaxRegionsPerBlock = 1024;

// One layer and outer part of a block.
struct ContentRegion {
  std::size_t layer = 0;
  std::size_t outer = 0;
  std::size_t offset = 0;  // in the block's bytes, regions one after the other
  std::size_t bytes = 0;
};

const char* name_of(DType dtype) noexcept;  // "fp16" ...

// Immutable, hence thread-safe.
class BlockContent {
 public:
  // A region before it has a place in the block.
  struct Part {
    std::size_t layer;
    std::size_t outer;
    std::size_t bytes;
    // The order of the bytes within, such as "N16C1024:fp16": 16 tokens of 1024 elements each.
    std::string order;
  };
  // `parts` in order of layer and outer part. Errors: InvalidConfig {regions, limit} for too many,
  // or for a block whose size overflows.
  static Result<std::shared_ptr<const BlockContent>> create(const std::vector<Part>& parts,
                                                            const std::string& packing);
  static Result<std::shared_ptr<const BlockContent>> create(const LayoutConfig& config);

  std::span<const ContentRegion> regions() const noexcept { return regions_; }
  std::size_t num_layers() const noexcept { return first_of_layer_.size() - 1; }
  // The regions of a layer: first, and one after the last. Requires: layer < num_layers().
  std::size_t first_region(std::size_t layer) const noexcept { return first_of_layer_[layer]; }
  std::size_t bytes() const noexcept { return bytes_; }

  // For people, and what the digest is made from: packing and regions, such as
  // "kvbm-block-1 32x(2xN16C1024:fp16)".
  const std::string& description() const noexcept { return description_; }
  // The same on every machine for blocks that hold the same data in the same order.
  std::uint64_t digest() const noexcept { return digest_; }

 private:
  BlockContent() = default;

  std::vector<ContentRegion> regions_;
  std::vector<std::size_t> first_of_layer_;
  std::size_t bytes_ = 0;
  std::string description_;
  std::uint64_t digest_ = 0;
};

}  // namespace kvbm
