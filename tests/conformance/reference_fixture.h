// Small pools, managers and prompts for the tests of the API reference.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "kvbm/kvbm.h"

namespace kvbm {

inline constexpr std::size_t kPage = 4;
inline constexpr std::size_t kLayers = 3;
inline constexpr std::size_t kInner = 10;
// FP16 by default, so 2 bytes per element.
inline constexpr std::size_t kRegionBytes = kPage * kInner * 2;

inline LayoutConfig small_layout(std::size_t blocks) {
  return {.num_blocks = blocks,
          .num_layers = kLayers,
          .outer_dim = 2,
          .page_size = kPage,
          .inner_dim = kInner};
}

inline KvManagerModelConfig small_model() {
  return {.num_layers = kLayers, .outer_dim = 2, .page_size = kPage, .inner_dim = kInner};
}

// Three tiers, all of them in host memory and in a temporary file.
inline KvBlockManagerConfig small_config() {
  KvBlockManagerConfig config;
  config.model = small_model();
  config.device_layout = {.num_blocks = 4,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>()};
  config.host_layout = {.num_blocks = 6, .allocator = std::make_shared<PinnedAllocator>()};
  config.disk_layout = {.num_blocks = 8,
                        .allocator = std::make_shared<DiskAllocator>(testing::TempDir())};
  return config;
}

inline TokenBlockSequence prompt(Token first, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage).value();
}

inline std::vector<Block<DeviceStorage>> device_blocks(std::size_t count) {
  const LayoutConfig config = small_layout(count);
  const std::size_t bytes = config.storage_bytes(LayoutType::FullyContiguous).value();
  std::vector<DeviceStorage> storages;
  storages.push_back(HostBackedDeviceAllocator().allocate(bytes).value());
  return make_blocks(LayoutType::FullyContiguous, config, storages).value();
}

inline BlockPool<DeviceStorage> device_pool(std::size_t count) {
  return BlockPool<DeviceStorage>::create({.blocks = device_blocks(count)}).value();
}

// Allocates and names the blocks of a prompt.
inline MutableBlocks<DeviceStorage> named(BlockPool<DeviceStorage>& pool,
                                          const TokenBlockSequence& tokens) {
  auto blocks = pool.allocate_blocks_blocking(tokens.blocks().size()).value();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    blocks[i].apply_token_block(tokens.blocks()[i]).value();
  }
  return blocks;
}

inline MutableBlock<DeviceStorage> one_block(BlockPool<DeviceStorage>& pool) {
  return std::move(pool.allocate_blocks_blocking(1).value().front());
}

inline ImmutableBlock<DeviceStorage> one_registered(BlockPool<DeviceStorage>& pool, Token first) {
  return std::move(pool.register_blocks_blocking(named(pool, prompt(first, 1))).value().front());
}

template <class T>
void expect_error(const Result<T>& result, ErrorCode code, std::uint64_t requested = 0,
                  std::uint64_t available = 0) {
  ASSERT_FALSE(result.has_value()) << to_string(code) << " was expected";
  EXPECT_EQ(to_string(result.error().code), to_string(code)) << result.error().to_string();
  EXPECT_EQ(result.error().requested, requested) << result.error().to_string();
  EXPECT_EQ(result.error().available, available) << result.error().to_string();
}

}  // namespace kvbm
