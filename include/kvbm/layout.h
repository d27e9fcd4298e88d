// How blocks lie in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kvbm/result.h"
#include "kvbm/storage.h"
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

// A tensor of KV cache that an engine owns. It is used where it lies and never freed; it must stay
// until the last block of its pool is gone.
struct KvTensor {
  // What each dimension counts, one letter per dimension in the order of `shape`:
  //   L  layers, where one tensor holds all of them; else `layer` says which one it is
  //   B  blocks: in every tensor, and equally many in all of them
  //   O  outer parts: K and V
  //   H  heads   N  tokens of a block   C  elements, or bytes that are opaque
  std::string axes;
  std::vector<std::size_t> shape;
  std::vector<std::int64_t> strides = {};  // in elements; empty: row-major
  DType dtype = DType::FP16;
  std::uint64_t address = 0;  // of element [0, 0, ...]
  StorageType storage = {};   // the memory it lies in: System, Pinned or Device
  std::size_t layer = 0;      // several tensors of one layer are its outer parts, in order
};

// All tensors of a KV cache, layer by layer. Whatever the order of their dimensions in memory, a
// block's data is cut into regions, one per layer and outer part; what of a region does not lie in
// one run is copied in several. A last dimension whose elements lie apart is refused.
//
// Sources: the shapes and permutations of vLLM's KVCacheLayout, TensorRT-LLM's KvCacheLayout.
struct KvTensors {
  std::vector<KvTensor> tensors;
  // What else decides the bytes of a region, such as the instruction set that an engine packs K
  // for. Part of the layout's digest: blocks of different packings never mix.
  std::string packing = {};
};

}  // namespace kvbm
