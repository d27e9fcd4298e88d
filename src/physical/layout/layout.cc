#include "physical/layout/layout.h"

#include <bit>
#include <string>

#include "base/checked.h"
#include "base/xxh3.h"

namespace kvbm {
namespace {

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
  constexpr const char* kWhat = "the layout's size in bytes";
  const std::size_t region = config.region_bytes();
  Strides strides;
  switch (type) {
    case LayoutType::FullyContiguous: {
      strides.outer = region;
      strides.layer = region * config.outer_dim;
      const std::size_t natural = strides.layer * config.num_layers;
      KVBM_TRY(strides.block, checked_align_up(natural, config.alignment, kWhat));
      KVBM_TRY(const std::size_t before_last,
               checked_mul(config.num_blocks - 1, strides.block, kWhat));
      KVBM_TRY(strides.data, checked_add(before_last, natural, kWhat));
      break;
    }
    case LayoutType::LayerSeparateOuterContiguous: {
      KVBM_TRY(strides.block, checked_align_up(region, config.alignment, kWhat));
      KVBM_TRY(strides.outer, checked_mul(strides.block, config.num_blocks, kWhat));
      KVBM_TRY(strides.data, checked_mul(strides.outer, config.outer_dim, kWhat));
      break;
    }
    case LayoutType::LayerSeparateBlockContiguous: {
      strides.outer = region;
      KVBM_TRY(strides.block, checked_align_up(region * config.outer_dim, config.alignment, kWhat));
      KVBM_TRY(strides.data, checked_mul(strides.block, config.num_blocks, kWhat));
      break;
    }
  }
  return strides;
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
  std::shared_ptr<Layout> layout(new Layout(type, config, std::move(memories)));
  layout->block_stride_ = strides.block;
  layout->layer_stride_ = strides.layer;
  layout->outer_stride_ = strides.outer;
  for (const auto& memory : layout->memories_) {
    const std::uint64_t address = memory->address();
    const std::size_t offset = static_cast<std::size_t>(-address & (config.alignment - 1));
    KVBM_TRY(const std::size_t needed, checked_add(strides.data, offset, "the layout's size"));
    if (memory->bytes() < needed) {
      return Error{ErrorCode::InvalidConfig, 0, needed, memory->bytes(),
                   "a storage is too small for this layout"};
    }
    layout->base_offsets_.push_back(offset);
  }
  return std::shared_ptr<const Layout>(std::move(layout));
}

Layout::Layout(LayoutType type, const LayoutConfig& config, Memories memories)
    : type_(type),
      config_(config),
      memories_(std::move(memories)),
      region_bytes_(config.region_bytes()) {
  const std::uint64_t content[] = {config.num_layers, config.outer_dim, config.page_size,
                                   config.inner_dim, size_bytes(config.dtype)};
  content_digest_ = xxh3(content, sizeof content);
}

Result<Region> Layout::region(std::size_t block, std::size_t layer, std::size_t outer) const {
  if (block >= config_.num_blocks) {
    return Error{ErrorCode::InvalidBlockIndex, 0, block, config_.num_blocks, {}};
  }
  if (layer >= config_.num_layers) {
    return Error{ErrorCode::InvalidLayerIndex, 0, layer, config_.num_layers, {}};
  }
  if (outer >= config_.outer_dim) {
    return Error{ErrorCode::InvalidOuterIndex, 0, outer, config_.outer_dim, {}};
  }
  return region_unchecked(block, layer, outer);
}

Region Layout::region_unchecked(std::size_t block, std::size_t layer,
                                std::size_t outer) const noexcept {
  const std::size_t which = is_contiguous() ? 0 : layer;
  const std::size_t in_layer = is_contiguous() ? layer * layer_stride_ : 0;
  return {memories_[which].get(),
          base_offsets_[which] + block * block_stride_ + in_layer + outer * outer_stride_,
          region_bytes_};
}

Region Layout::extent(std::size_t block) const noexcept {
  return {memories_[0].get(), base_offsets_[0] + block * block_stride_, config_.block_bytes()};
}

}  // namespace kvbm
