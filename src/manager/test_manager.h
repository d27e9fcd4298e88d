// For tests: small managers, prompts, and blocks whose bytes tell whose they are.
#pragma once

#include <chrono>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"

namespace kvbm::detail {

inline constexpr std::size_t kTestPage = 4;                          // tokens
inline constexpr std::chrono::seconds kTestPatience{60};             // for what must come by itself
inline constexpr std::uint64_t kTestBlockBytes = 2 * 2 * 4 * 8 * 2;  // of test_config()

// Tiers of so many blocks; none for 0.
inline KvBlockManagerConfig test_config(std::size_t device = 8, std::size_t host = 8,
                                        std::size_t disk = 16) {
  KvBlockManagerConfig config;
  config.model = {.num_layers = 2,
                  .outer_dim = 2,
                  .page_size = kTestPage,
                  .inner_dim = 8,
                  .dtype = DType::FP16,
                  .name = "a model"};
  config.device_layout = {.num_blocks = device,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>()};
  if (host > 0) {
    config.host_layout = {.num_blocks = host, .allocator = std::make_shared<PinnedAllocator>()};
  }
  if (disk > 0) {
    config.disk_layout = {.num_blocks = disk, .allocator = std::make_shared<DiskAllocator>("/tmp")};
  }
  return config;
}

// Every token is one more than the one before.
inline TokenBlockSequence test_prompt(Token first, std::size_t blocks,
                                      const HashSeeds& seeds = {}) {
  std::vector<Token> tokens(blocks * kTestPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kTestPage, seeds).value();
}

inline std::byte test_byte(SequenceHash hash, std::size_t i) {
  return std::byte(hash.value() + i * 3);
}

inline void fill_test_bytes(std::span<std::byte> bytes, SequenceHash hash) {
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = test_byte(hash, i);
}

inline bool has_test_bytes(std::span<const std::byte> bytes, SequenceHash hash) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != test_byte(hash, i)) return false;
  }
  return true;
}

// What an engine does after a forward pass.
inline std::vector<ImmutableBlock<DeviceStorage>> compute(ReferenceBlockManager& manager,
                                                          std::span<const TokenBlock> tokens,
                                                          NamespaceId name_space = 0) {
  auto blocks = manager.device()->allocate_blocks_blocking(tokens.size()).value();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    fill_test_bytes(blocks[i].block_view_mut().value().bytes(), tokens[i].sequence_hash());
    blocks[i].apply_token_block(tokens[i], name_space).value();
  }
  return manager.device()->register_blocks_blocking(std::move(blocks)).value();
}

inline bool is_right(const ImmutableBlock<DeviceStorage>& block) {
  return has_test_bytes(block.block_view().value().bytes(), block.sequence_hash());
}

// Evicts all that can be evicted from a pool.
template <class Pool>
void clear(Pool& pool) {
  pool.allocate_blocks_blocking(pool.available_blocks()).value();
}

// Computes blocks and waits until they are in the tiers below, too.
inline void compute_and_drain(ReferenceBlockManager& manager, std::span<const TokenBlock> tokens,
                              NamespaceId name_space = 0) {
  compute(manager, tokens, name_space);
  if (!manager.drain(kTestPatience)) std::abort();
}

}  // namespace kvbm::detail
