#include "physical/layout/layout.h"

#include <algorithm>
#include <bit>
#include <string>

#include "base/checked.h"

namespace kvbm {
namespace {

constexpr const char* kSize = "the layout's size in bytes";

Result<void> check_field(const char* name, std::size_t value, std::size_t limit) {
  if (value >= 1 && value <= limit) return {};
  return Error{ErrorCode::InvalidConfig, 0, value, limit,
               std::string(name) + " must be 1 .. " + std::to_string(limit)};
}

// Strides of a layout, in bytes, and the bytes of data that each storage holds.
struct Strides {
  std::size_t block = 0;
  std::size_t layer = 0;
  std::size_t outer = 0;
  std::size_t data = 0;
};

Result<Strides> strides_of(LayoutType type, const LayoutConfig& config) {
  const std::size_t region = config.region_bytes();
  Strides strides;
  switch (type) {
    case LayoutType::FullyContiguous: {
      strides.outer = region;
      strides.layer = region * config.outer_dim;
      const std::size_t natural = strides.layer * config.num_layers;
      KVBM_TRY(strides.block, checked_align_up(natural, config.alignment, kSize));
      KVBM_TRY(const std::size_t before_last,
               checked_mul(config.num_blocks - 1, strides.block, kSize));
      KVBM_TRY(strides.data, checked_add(before_last, natural, kSize));
      break;
    }
    case LayoutType::LayerSeparateOuterContiguous: {
      KVBM_TRY(strides.block, checked_align_up(region, config.alignment, kSize));
      KVBM_TRY(strides.outer, checked_mul(strides.block, config.num_blocks, kSize));
      KVBM_TRY(strides.data, checked_mul(strides.outer, config.outer_dim, kSize));
      break;
    }
    case LayoutType::LayerSeparateBlockContiguous: {
      strides.outer = region;
      KVBM_TRY(strides.block, checked_align_up(region * config.outer_dim, config.alignment, kSize));
      KVBM_TRY(strides.data, checked_mul(strides.block, config.num_blocks, kSize));
      break;
    }
  }
  return strides;
}

Result<std::size_t> contiguous_data_bytes(const BlockContent& content, std::size_t num_blocks,
                                          std::size_t alignment) {
  KVBM_TRY(const std::size_t stride, checked_align_up(content.bytes(), alignment, kSize));
  KVBM_TRY(const std::size_t before_last, checked_mul(num_blocks - 1, stride, kSize));
  return checked_add(before_last, content.bytes(), kSize);
}

// Where `bytes` bytes of data begin in a memory, so that the address is aligned.
Result<std::uint64_t> aligned_start(const detail::Memory& memory, std::size_t alignment,
                                    std::size_t bytes) {
  const std::uint64_t offset = -memory.address() & (alignment - 1);
  KVBM_TRY(const std::size_t needed, checked_add(bytes, offset, kSize));
  if (memory.bytes() < needed) {
    return Error{ErrorCode::InvalidConfig, 0, needed, memory.bytes(),
                 "a storage is too small for this layout"};
  }
  return offset;
}

}  // namespace

Result<void> LayoutConfig::validate() const {
  KVBM_CHECK_OK(check_field("num_blocks", num_blocks, 0xFFFFFFFEu));
  KVBM_CHECK_OK(check_field("num_layers", num_layers, MAX_NUM_LAYERS));
  KVBM_CHECK_OK(check_field("outer_dim", outer_dim, MAX_OUTER_DIM));
  KVBM_CHECK_OK(check_field("page_size", page_size, MAX_PAGE_SIZE));
  KVBM_CHECK_OK(check_field("inner_dim", inner_dim, MAX_INNER_DIM));
  if (!std::has_single_bit(alignment)) {
    return Error{ErrorCode::InvalidConfig, 0, alignment, 0, "alignment must be a power of two"};
  }
  return {};
}

std::size_t LayoutConfig::region_bytes() const noexcept {
  return page_size * inner_dim * size_bytes(dtype);
}

std::size_t LayoutConfig::block_bytes() const noexcept {
  return region_bytes() * num_layers * outer_dim;
}

std::size_t LayoutConfig::storage_count(LayoutType type) const noexcept {
  return type == LayoutType::FullyContiguous ? 1 : num_layers;
}

Result<std::size_t> LayoutConfig::storage_bytes(LayoutType type) const {
  KVBM_TRY(const Strides strides, strides_of(type, *this));
  return checked_add(strides.data, alignment - 1, "the layout's size in bytes");
}

Result<std::shared_ptr<const Layout>> Layout::create(LayoutType type, const LayoutConfig& config,
                                                     Memories memories) {
  KVBM_CHECK_OK(config.validate());
  KVBM_TRY(const Strides strides, strides_of(type, config));
  if (memories.size() != config.storage_count(type)) {
    return Error{ErrorCode::InvalidConfig, 0, memories.size(), config.storage_count(type),
                 "wrong number of storages for this layout"};
  }
  KVBM_TRY(auto content, BlockContent::create(config));
  std::shared_ptr<Layout> layout(new Layout(config, std::move(content), std::move(memories)));
  std::vector<std::uint64_t> starts;
  for (const auto& memory : layout->memories_) {
    KVBM_TRY(starts.emplace_back(), aligned_start(*memory, config.alignment, strides.data));
  }
  for (const ContentRegion& region : layout->content_->regions()) {
    const std::size_t which = layout->memories_.size() == 1 ? 0 : region.layer;
    const std::size_t in_memory =
        type == LayoutType::FullyContiguous ? region.offset : region.outer * strides.outer;
    layout->add_region({{static_cast<std::uint32_t>(which), starts[which] + in_memory, region.bytes,
                         strides.block}});
  }
  KVBM_CHECK_OK(layout->finish());
  return std::shared_ptr<const Layout>(std::move(layout));
}

Result<std::size_t> Layout::contiguous_bytes(const BlockContent& content, std::size_t num_blocks,
                                             std::size_t alignment) {
  KVBM_TRY(const std::size_t data, contiguous_data_bytes(content, num_blocks, alignment));
  return checked_add(data, alignment - 1, kSize);
}

Result<std::shared_ptr<const Layout>> Layout::contiguous(
    std::shared_ptr<const BlockContent> content, const LayoutConfig& shape,
    std::shared_ptr<detail::Memory> memory) {
  KVBM_TRY(const std::size_t data,
           contiguous_data_bytes(*content, shape.num_blocks, shape.alignment));
  KVBM_TRY(const std::uint64_t start, aligned_start(*memory, shape.alignment, data));
  KVBM_TRY(const std::size_t stride, checked_align_up(content->bytes(), shape.alignment, kSize));
  std::shared_ptr<Layout> layout(new Layout(shape, std::move(content), {std::move(memory)}));
  for (const ContentRegion& region : layout->content_->regions()) {
    layout->add_region({{0, start + region.offset, region.bytes, stride}});
  }
  KVBM_CHECK_OK(layout->finish());
  return std::shared_ptr<const Layout>(std::move(layout));
}

Layout::Layout(const LayoutConfig& config, std::shared_ptr<const BlockContent> content,
               Memories memories)
    : config_(config), content_(std::move(content)), memories_(std::move(memories)) {}

void Layout::add_region(std::vector<Fragment> runs) {
  fragments_.insert(fragments_.end(), runs.begin(), runs.end());
  first_fragment_.push_back(static_cast<std::uint32_t>(fragments_.size()));
}

Result<void> Layout::finish() {
  std::vector<MemoryRange> ranges;
  for (const auto& memory : memories_) {
    ranges.push_back({memory->file(), memory->address(), memory->bytes()});
  }
  KVBM_CHECK_OK(check_fragments(fragments_, ranges, config_.num_blocks));
  const auto follows = [](const Fragment& before, const Fragment& after) {
    return before.memory == after.memory && before.block_stride == after.block_stride &&
           before.offset + before.bytes == after.offset;
  };
  contiguous_ = true;
  for (std::size_t i = 1; i < fragments_.size(); ++i) {
    contiguous_ = contiguous_ && follows(fragments_[i - 1], fragments_[i]);
  }
  return {};
}

Result<Region> Layout::region(std::size_t block, std::size_t layer, std::size_t outer) const {
  if (block >= config_.num_blocks) {
    return Error{ErrorCode::InvalidBlockIndex, 0, block, config_.num_blocks, {}};
  }
  if (layer >= content_->num_layers()) {
    return Error{ErrorCode::InvalidLayerIndex, 0, layer, content_->num_layers(), {}};
  }
  const std::size_t first = content_->first_region(layer);
  const std::size_t outers = content_->first_region(layer + 1) - first;
  if (outer >= outers) return Error{ErrorCode::InvalidOuterIndex, 0, outer, outers, {}};
  const auto runs = fragments(first + outer);
  if (runs.size() != 1) {
    return Error{ErrorCode::NotAccessible, 0, runs.size(), 1,
                 "this layout keeps a region in several runs"};
  }
  return place(runs.front(), block);
}

Region Layout::extent(std::size_t block) const noexcept {
  Region region = place(fragments_.front(), block);
  region.bytes = content_->bytes();
  return region;
}

}  // namespace kvbm
