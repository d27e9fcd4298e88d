// What the replayer writes in place of a KV cache: bytes that depend on whose they are and where
// they lie, so that a block, region or byte in a wrong place shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kvbm/types.h"

namespace kvbm::app {

// Where a region stands in the cache.
struct RegionName {
  SequenceHash sequence_hash;
  std::size_t layer;
  std::size_t outer;
};

// Fills a region with its pattern.
void fill_pattern(std::span<std::byte> region, const RegionName& name);

// Whether every byte of a region is the one that fill_pattern() would write.
bool has_pattern(std::span<const std::byte> region, const RegionName& name);

}  // namespace kvbm::app
