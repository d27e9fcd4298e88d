// Addresses of blocks: (block, layer, outer part) -> region of a memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kvbm/layout.h"
#include "physical/memory/memory.h"

namespace kvbm {

// A range of one memory; `offset` counts from the memory's first byte.
struct Region {
  const detail::Memory* memory = nullptr;
  std::uint64_t offset = 0;
  std::size_t bytes = 0;

  // Null unless the CPU can address it.
  std::byte* data() const noexcept {
    std::byte* base = memory->data();
    return base ? base + offset : nullptr;
  }
};

// Immutable, hence thread-safe. Keeps its memories alive.
class Layout {
 public:
  using Memories = std::vector<std::shared_ptr<detail::Memory>>;

  // Errors: InvalidConfig if a field is out of range, the number of memories is not
  // config.storage_count(type), or one of them is too small {requested, available bytes}.
  static Result<std::shared_ptr<const Layout>> create(LayoutType type, const LayoutConfig& config,
                                                      Memories memories);

  // Errors: InvalidBlockIndex, InvalidLayerIndex, InvalidOuterIndex {index, limit}, checked in that
  // order.
  Result<Region> region(std::size_t block, std::size_t layer, std::size_t outer) const;
  // The same without the checks, for indices that were checked.
  Region region_unchecked(std::size_t block, std::size_t layer, std::size_t outer) const noexcept;

  // A block's data as one range. Requires: is_contiguous() and a valid index.
  Region extent(std::size_t block) const noexcept;
  bool is_contiguous() const noexcept { return type_ == LayoutType::FullyContiguous; }

  // From one block to the next, padding included.
  std::size_t block_stride() const noexcept { return block_stride_; }
  std::size_t regions_per_block() const noexcept { return config_.num_layers * config_.outer_dim; }
  const LayoutConfig& config() const noexcept { return config_; }
  const detail::Memory& memory(std::size_t index) const noexcept { return *memories_[index]; }

  // The same for layouts whose blocks hold the same data, wherever it lies: block i of one can be
  // copied to block j of the other.
  std::uint64_t content_digest() const noexcept { return content_digest_; }

 private:
  Layout(LayoutType type, const LayoutConfig& config, Memories memories);

  LayoutType type_;
  LayoutConfig config_;
  Memories memories_;
  std::vector<std::size_t> base_offsets_;  // to the first aligned byte of each memory
  std::size_t region_bytes_ = 0;
  std::size_t block_stride_ = 0;
  std::size_t layer_stride_ = 0;  // FullyContiguous only
  std::size_t outer_stride_ = 0;
  std::uint64_t content_digest_ = 0;
};

}  // namespace kvbm
