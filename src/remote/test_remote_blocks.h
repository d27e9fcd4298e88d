// Blocks for tests of what comes from other processes: layouts of several kinds, and their bytes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <random>
#include <vector>

#include "physical/layout/layout.h"
#include "physical/transfer/copy_block.h"

namespace kvbm::remote {

inline constexpr std::size_t kTestBlocks = 3;
inline constexpr LayoutType kTestTypes[] = {LayoutType::FullyContiguous,
                                            LayoutType::LayerSeparateOuterContiguous,
                                            LayoutType::LayerSeparateBlockContiguous};

// 3 layers of K and V, in regions of so many bytes; of long ones, a multiple of 32.
inline LayoutConfig test_config(std::size_t region_bytes) {
  const std::size_t tokens = region_bytes > MAX_INNER_DIM ? 16 : 1;
  return {.num_blocks = kTestBlocks,
          .num_layers = 3,
          .outer_dim = 2,
          .page_size = tokens,
          .inner_dim = region_bytes / tokens,
          .dtype = DType::INT8};
}

inline std::shared_ptr<const Layout> test_layout(LayoutType type, const LayoutConfig& config) {
  Layout::Memories memories;
  for (std::size_t i = 0; i < config.storage_count(type); ++i) {
    memories.push_back(
        SystemAllocator().allocate(config.storage_bytes(type).value()).value().memory());
  }
  return Layout::create(type, config, std::move(memories)).value();
}

// The same blocks in an engine's tensors, whose two heads lie apart: every region in two runs.
inline std::shared_ptr<const Layout> test_heads(std::size_t region_bytes) {
  const std::size_t bytes = kTestBlocks * 3 * 2 * region_bytes;
  static std::vector<std::shared_ptr<detail::Memory>> kept;
  kept.push_back(SystemAllocator().allocate(bytes).value().memory());
  const LayoutConfig config = test_config(region_bytes);
  KvTensors tensors;
  tensors.tensors.push_back(
      {.axes = "LOHBNC",
       .shape = {3, 2, 2, kTestBlocks, config.page_size, config.inner_dim / 2},
       .dtype = DType::INT8,
       .address = kept.back()->address(),
       .storage = {StorageType::Kind::System, 0}});
  return Layout::from_tensors(tensors).value();
}

// A block's data, in the order of its content.
inline std::vector<std::byte> bytes_of(const Layout& layout, BlockId block) {
  std::vector<std::byte> bytes;
  for (const Fragment& fragment : layout.fragments()) {
    const Region run = layout.place(fragment, block);
    bytes.insert(bytes.end(), run.data(), run.data() + run.bytes);
  }
  return bytes;
}

inline void fill_blocks(const Layout& layout, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (BlockId block = 0; block < layout.config().num_blocks; ++block) {
    for (const Fragment& fragment : layout.fragments()) {
      const Region run = layout.place(fragment, block);
      std::generate_n(run.data(), run.bytes, [&] { return std::byte(random() & 0xFF); });
    }
  }
}

// That block 1 has these bytes, or is zero, and its neighbours are those of fill_blocks(seed).
inline void expect_block(const Layout& layout, const std::vector<std::byte>& expected,
                         std::uint64_t seed) {
  const auto untouched = [&] {
    const std::vector<std::byte> now = bytes_of(layout, 1);
    const std::vector<std::byte> first = bytes_of(layout, 0);
    const std::vector<std::byte> last = bytes_of(layout, 2);
    fill_blocks(layout, seed);
    return std::tuple(now, first == bytes_of(layout, 0), last == bytes_of(layout, 2));
  };
  const auto [now, first, last] = untouched();
  EXPECT_TRUE(now == expected);
  EXPECT_TRUE(first && last) << "a neighbour was written";
}

inline std::vector<std::byte> zeros_like(const std::vector<std::byte>& bytes) {
  return std::vector<std::byte>(bytes.size());
}

}  // namespace kvbm::remote
