#include "tiers/tier_pool.h"

#include "base/xxh3.h"
#include "kvbm/pool.h"

namespace kvbm::detail {
namespace {

// Everything that says what a block is. Mixed into the sum last, so that the bytes can be summed
// before the block has a name, and a sum that belongs to another identity verifies nothing.
struct SealedIdentity {
  std::uint64_t sequence_hash;
  std::uint64_t keyed_digest;  // 0: the pool has no digest key
  std::uint64_t parent_hash;
  std::uint64_t layout_digest;
  std::uint32_t name_space;  // 0: the default namespace
  std::uint32_t epoch;       // 0: never reset
  std::uint32_t position;
  std::uint32_t token_count;
};
static_assert(sizeof(SealedIdentity) == 48, "no padding: every byte is hashed");

}  // namespace

const PoolBacking& backing_of(const Hold& hold) noexcept {
  return *static_cast<const PoolBacking*>(hold.store()->backing());
}

Result<std::unique_ptr<TierPool>> TierPool::create(Tier tier,
                                                   std::shared_ptr<const Layout> layout) {
  const std::size_t blocks = layout->config().num_blocks;
  auto backing = std::make_shared<PoolBacking>();
  backing->tier = tier;
  backing->layout = std::move(layout);
  if (tier != Tier::Device) backing->sealed_sums = std::make_unique<std::uint64_t[]>(blocks);
  KVBM_TRY(auto store, BlockStore::create(blocks, backing));
  return std::unique_ptr<TierPool>(new TierPool(std::move(backing), std::move(store)));
}

// XOR, because the sum without the seal must be had again: the next tier stores it under its own.
std::uint64_t TierPool::seal_of(BlockId id) const noexcept {
  const BlockIdentity identity = store_->identity(id);
  const SealedIdentity sealed{
      .sequence_hash = identity.sequence_hash.value(),
      .keyed_digest = 0,
      .parent_hash = identity.position == 0 ? 0 : identity.parent_hash.value(),
      .layout_digest = backing_->layout->content_digest(),
      .name_space = 0,
      .epoch = 0,
      .position = identity.position,
      .token_count = identity.token_count,
  };
  return xxh3(&sealed, sizeof sealed);
}

Result<std::vector<ImmutableHold>> TierPool::register_blocks(std::vector<CompleteHold> blocks) {
  if (backing_->sealed_sums) {
    for (const CompleteHold& block : blocks) {
      if (block.store() != store_.get()) break;  // refused below
      KVBM_TRY(const std::uint64_t sum, sum_block(*backing_->layout, block.id()));
      backing_->sealed_sums[block.id()] = sum ^ seal_of(block.id());
    }
  }
  KVBM_TRY(auto registered, detail::register_blocks(*store_, std::move(blocks)));
  if (listener_ && !registered.empty()) {
    std::vector<SequenceHash> hashes;
    hashes.reserve(registered.size());
    for (const ImmutableHold& block : registered) {
      hashes.push_back(store_->identity(block.id()).sequence_hash);
    }
    listener_(backing_->tier, std::move(hashes));
  }
  return registered;
}

Result<ImmutableHold> TierPool::register_transferred(CompleteHold block, TransferToken token) {
  if (block.store() != store_.get() || token.target_layout() != backing_->layout.get() ||
      token.target() != block.id()) {
    return Error{ErrorCode::FailedToRegisterBlock, 0, block.id(), token.target(),
                 "the transfer filled another block"};
  }
  if (backing_->sealed_sums) {
    backing_->sealed_sums[block.id()] = token.payload_sum() ^ seal_of(block.id());
  }
  std::vector<CompleteHold> one;
  one.push_back(std::move(block));
  KVBM_TRY(auto registered, detail::register_blocks(*store_, std::move(one)));
  return std::move(registered.front());
}

std::optional<std::uint64_t> TierPool::payload_sum(const ImmutableHold& block) const {
  if (!backing_->sealed_sums) return std::nullopt;
  return backing_->sealed_sums[block.id()] ^ seal_of(block.id());
}

// --- what kvbm/pool.h declares ---------------------------------------------------------------

std::size_t total_blocks(const TierPool& pool) noexcept { return pool.store().total_blocks(); }

std::size_t available_blocks(const TierPool& pool) { return pool.store().available_blocks(); }

PoolStats stats(const TierPool& pool) {
  const BlockStoreStats from = pool.store().stats();
  return {.total_blocks = from.total,
          .available_blocks = from.available,
          .registered_blocks = from.registered,
          .allocations = from.allocations,
          .registrations = from.registrations,
          .duplicates = from.duplicates,
          .evictions = from.evictions,
          .quarantined = from.detached};
}

Result<std::vector<MutableHold>> allocate_blocks(TierPool& pool, std::size_t count) {
  return allocate(pool.store(), count);
}

Result<std::vector<ImmutableHold>> register_blocks(TierPool& pool,
                                                   std::vector<CompleteHold> blocks) {
  return pool.register_blocks(std::move(blocks));
}

std::vector<ImmutableHold> match_hashes(TierPool& pool, std::span<const SequenceHash> hashes) {
  return match(pool.store(), hashes);
}

RunHold match_chain(TierPool& pool, std::span<const SequenceHash> hashes) {
  return match_run(pool.store(), hashes);
}

}  // namespace kvbm::detail
