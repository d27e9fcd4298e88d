// How blocks lie in memory.
#pragma once

#include <cstddef>

#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm {

// A block holds page_size tokens for every layer and outer part (K and V). A *region* is one layer
// and one outer part of one block: page_size * inner_dim elements, contiguous in every layout.
enum class LayoutType : std::uint8_t {
  FullyContiguous,               // one storage:          [block][layer][outer][page][inner]
  LayerSeparateOuterContiguous,  // one storage a layer:  [outer][block][page][inner]
  LayerSeparateBlockContiguous,  // one storage a layer:  [block][outer][page][inner]
};

struct LayoutConfig {
  std::size_t num_blocks;  // required, 1 .. 2^32 - 2
  std::size_t num_layers;  // required, 1 .. MAX_NUM_LAYERS
  std::size_t outer_dim;   // required, 1 .. MAX_OUTER_DIM
  std::size_t page_size;   // required, tokens, 1 .. MAX_PAGE_SIZE
  std::size_t inner_dim;   // required, elements per token, 1 .. MAX_INNER_DIM
  DType dtype = DType::FP16;
  std::size_t alignment = 1;  // of a block's first byte; a power of two

  // Errors: InvalidConfig naming the first field out of range, with value and limit.
  Result<void> validate() const;

  // Bytes of one region. Requires: validate().
  std::size_t region_bytes() const noexcept;
  // Bytes of one block's data, padding not counted. Requires: validate().
  std::size_t block_bytes() const noexcept;
  // Storages that the layout needs: 1, or one per layer.
  std::size_t storage_count(LayoutType type) const noexcept;
  // Bytes that each storage must have, whatever its address: the data, and alignment - 1.
  // Errors: InvalidConfig if the size overflows. Requires: validate().
  Result<std::size_t> storage_bytes(LayoutType type) const;
};

}  // namespace kvbm
