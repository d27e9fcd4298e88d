// One tier: the blocks of a store, the memory they name, and the sums of their bytes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "logical/pool/block_store.h"
#include "logical/pool/hold_ops.h"
#include "physical/layout/layout.h"
#include "physical/transfer/transfer.h"

namespace kvbm::detail {

// What lives as long as any block of the pool is held.
struct PoolBacking {
  Tier tier;
  std::shared_ptr<const Layout> layout;
  // Outside G1, one per block: its payload sum, sealed with its identity. Written by the owner of a
  // block before it is registered, read by those who hold it.
  std::unique_ptr<std::uint64_t[]> sealed_sums;
};

// The backing of the pool that a hold belongs to. Requires: a hold that is not empty.
const PoolBacking& backing_of(const Hold& hold) noexcept;

// Thread-safe. There are two doors to registration and no third:
//   register_blocks       for the owner of blocks that it filled itself
//   register_transferred  for blocks that a transfer filled and can prove it
class TierPool {
 public:
  // Called after a registration through the first door, with no lock held.
  using Listener = std::function<void(Tier, std::vector<SequenceHash>)>;

  // Errors: those of BlockStore::create.
  static Result<std::unique_ptr<TierPool>> create(Tier tier, std::shared_ptr<const Layout> layout);

  // Sums the bytes outside G1, then registers. Errors: as BlockPool::register_blocks.
  Result<std::vector<ImmutableHold>> register_blocks(std::vector<CompleteHold> blocks);

  // Errors: FailedToRegisterBlock{block, the token's block} if the token proves another copy.
  Result<ImmutableHold> register_transferred(CompleteHold block, TransferToken token);

  // What the bytes of a held block must sum to; nothing in G1, where the engine owns the bytes.
  std::optional<std::uint64_t> payload_sum(const ImmutableHold& block) const;

  void set_listener(Listener listener) { listener_ = std::move(listener); }

  Tier tier() const noexcept { return backing_->tier; }
  BlockStore& store() noexcept { return *store_; }
  const BlockStore& store() const noexcept { return *store_; }
  const std::shared_ptr<const Layout>& layout() const noexcept { return backing_->layout; }

 private:
  TierPool(std::shared_ptr<PoolBacking> backing, BlockStore::Owner store)
      : backing_(std::move(backing)), store_(std::move(store)) {}
  std::uint64_t seal_of(BlockId id) const noexcept;

  std::shared_ptr<PoolBacking> backing_;
  BlockStore::Owner store_;
  Listener listener_;  // set before the pool is shared
};

}  // namespace kvbm::detail
