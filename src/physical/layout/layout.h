// Addresses of blocks: (block, layer, outer part) -> where its bytes lie.
//
// A block is a list of *fragments* in the order of its content; a fragment is a run of bytes that
// lies at `offset + block * block_stride` of one memory. A region is one fragment, or several where
// an engine keeps, say, the heads of a layer apart. This one form describes every layout.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kvbm/layout.h"
#include "physical/layout/content.h"
#include "physical/layout/fragments.h"
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

  // An engine's own tensors. Errors: InvalidConfig naming the tensor and the axis, shape or stride
  // that is wrong and what is allowed; also for tensors that overlap.
  static Result<std::shared_ptr<const Layout>> from_tensors(const KvTensors& tensors);

  // Blocks of this content, each one extent that begins at a multiple of `alignment`.
  // Errors: InvalidConfig, as above.
  static Result<std::shared_ptr<const Layout>> contiguous(
      std::shared_ptr<const BlockContent> content, const LayoutConfig& shape,
      std::shared_ptr<detail::Memory> memory);
  // Bytes that contiguous() needs. Errors: InvalidConfig if the size overflows.
  static Result<std::size_t> contiguous_bytes(const BlockContent& content, std::size_t num_blocks,
                                              std::size_t alignment);

  // Errors: InvalidBlockIndex, InvalidLayerIndex, InvalidOuterIndex {index, limit}, checked in that
  // order; NotAccessible {fragments, 1} if the region is not one run.
  Result<Region> region(std::size_t block, std::size_t layer, std::size_t outer) const;

  // A block's data as one range. Requires: is_contiguous() and a valid index.
  Region extent(std::size_t block) const noexcept;
  bool is_contiguous() const noexcept { return contiguous_; }

  // The runs of a block in the order of its content, and those of region i of content().
  std::span<const Fragment> fragments() const noexcept { return fragments_; }
  std::span<const Fragment> fragments(std::size_t region) const noexcept {
    return std::span(fragments_)
        .subspan(first_fragment_[region], first_fragment_[region + 1] - first_fragment_[region]);
  }
  // The run of `block`. Requires: a valid index.
  Region place(const Fragment& fragment, std::size_t block) const noexcept {
    return {memories_[fragment.memory].get(), fragment.offset + block * fragment.block_stride,
            fragment.bytes};
  }

  // From one block to the next, padding included. Requires: is_contiguous().
  std::size_t block_stride() const noexcept { return fragments_.front().block_stride; }
  // Where the content's regions are of different sizes, inner_dim is 0 and outer_dim is that of the
  // first layer.
  const LayoutConfig& config() const noexcept { return config_; }
  const std::shared_ptr<const BlockContent>& content() const noexcept { return content_; }
  const detail::Memory& memory(std::size_t index) const noexcept { return *memories_[index]; }
  const Memories& memories() const noexcept { return memories_; }

  // content()->digest(): block i of one layout can be copied to block j of another where it is
  // equal.
  std::uint64_t content_digest() const noexcept { return content_->digest(); }

 private:
  Layout(const LayoutConfig& config, std::shared_ptr<const BlockContent> content,
         Memories memories);
  // One run per region, in order.
  void add_region(std::vector<Fragment> runs);
  Result<void> finish();

  LayoutConfig config_;
  std::shared_ptr<const BlockContent> content_;
  Memories memories_;
  std::vector<Fragment> fragments_;
  std::vector<std::uint32_t> first_fragment_{0};  // per region, and one past the last
  bool contiguous_ = false;
};

}  // namespace kvbm
