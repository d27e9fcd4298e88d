// Small real tiers for tests: memory, a temporary file, chains of blocks with recognisable bytes.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/xxh3.h"
#include "tiers/engine.h"

namespace kvbm::detail {

inline LayoutConfig test_layout_config(Tier tier, std::size_t blocks) {
  return {.num_blocks = blocks,
          .num_layers = 2,
          .outer_dim = 2,
          .page_size = 4,
          .inner_dim = 6,
          .dtype = DType::INT16,
          .alignment = tier == Tier::Device ? std::size_t{1} : std::size_t{4096}};
}

inline std::shared_ptr<TierPool> make_test_pool(Tier tier, std::size_t blocks) {
  const LayoutConfig config = test_layout_config(tier, blocks);
  const LayoutType type =
      tier == Tier::Device ? LayoutType::LayerSeparateOuterContiguous : LayoutType::FullyContiguous;
  const std::size_t bytes = config.storage_bytes(type).value();
  Layout::Memories memories;
  for (std::size_t i = 0; i < config.storage_count(type); ++i) {
    if (tier == Tier::Disk) {
      DiskAllocator allocator("/tmp");
      memories.push_back(allocator.allocate(bytes).value().memory());
    } else {
      memories.push_back(SystemAllocator().allocate(bytes).value().memory());
    }
  }
  auto set = make_block_set(tier, type, config, std::move(memories)).value();
  return TierPool::create(std::move(set), {}).value();
}

// Block `position` of conversation `conversation`.
inline BlockIdentity test_identity(std::uint64_t conversation, std::uint32_t position) {
  const auto name = [&](std::uint32_t at) { return SequenceHash((conversation << 32) + at + 1); };
  return {.sequence_hash = name(position),
          .parent_hash = position == 0 ? SequenceHash() : name(position - 1),
          .position = position,
          .token_count = 4};
}

inline SequenceHash test_hash(std::uint64_t conversation, std::uint32_t position) {
  return test_identity(conversation, position).sequence_hash;
}

inline std::vector<SequenceHash> test_chain(std::uint64_t conversation, std::uint32_t length) {
  std::vector<SequenceHash> hashes;
  for (std::uint32_t i = 0; i < length; ++i) hashes.push_back(test_hash(conversation, i));
  return hashes;
}

// Calls use(bytes, expected byte seed) for each region of a block in memory.
template <class Use>
void for_each_test_region(const TierPool& pool, BlockId id, SequenceHash hash, Use use) {
  const LayoutConfig& config = pool.layout()->config();
  for (std::size_t layer = 0; layer < config.num_layers; ++layer) {
    for (std::size_t outer = 0; outer < config.outer_dim; ++outer) {
      const Region region = pool.layout()->region(id, layer, outer).value();
      use(std::span(region.data(), region.bytes), hash.value() * 31 + layer * 7 + outer);
    }
  }
}

inline void fill_test_block(const TierPool& pool, BlockId id, SequenceHash hash) {
  for_each_test_region(pool, id, hash, [](std::span<std::byte> bytes, std::uint64_t seed) {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(seed + i * 3);
  });
}

inline bool is_test_block(const TierPool& pool, BlockId id, SequenceHash hash) {
  bool right = true;
  for_each_test_region(pool, id, hash, [&](std::span<std::byte> bytes, std::uint64_t seed) {
    for (std::size_t i = 0; i < bytes.size(); ++i) right &= bytes[i] == std::byte(seed + i * 3);
  });
  return right;
}

// What an engine does after a forward pass: fill, name, register through the owner's door.
inline ImmutableHold put_test_block(TierPool& pool, std::uint64_t conversation,
                                    std::uint32_t position) {
  auto block = std::move(allocate(pool.store(), 1).value().front());
  const BlockIdentity identity = test_identity(conversation, position);
  fill_test_block(pool, block.id(), identity.sequence_hash);
  std::vector<CompleteHold> blocks;
  blocks.push_back(complete(std::move(block), identity));
  return std::move(pool.register_blocks(std::move(blocks)).value().front());
}

// Carries out transfers when told to, on the caller's thread.
class ManualExecutor final : public TransferExecutor {
 public:
  void submit(TransferRequest, Done) override { std::abort(); }
  using TransferExecutor::run;
};

// One block through the transfer door.
inline Result<ImmutableHold> register_transferred(TierPool& pool, CompleteHold block,
                                                  TransferToken token) {
  std::vector<CompleteHold> blocks;
  blocks.push_back(std::move(block));
  std::vector<Result<TransferToken>> tokens;
  tokens.emplace_back(std::move(token));
  return std::move(pool.register_transferred(std::move(blocks), std::move(tokens)).front());
}

}  // namespace kvbm::detail
