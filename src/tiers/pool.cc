// What kvbm/pool.h asks of a tier pool.
#include "kvbm/pool.h"

#include "tiers/tier_pool.h"

namespace kvbm::detail {

std::size_t total_blocks(const TierPool& pool) noexcept { return pool.store().total_blocks(); }

std::size_t available_blocks(const TierPool& pool) { return pool.store().available_blocks(); }

PoolStats stats(const TierPool& pool) { return pool.stats(); }

Result<std::vector<MutableHold>> allocate_blocks(TierPool& pool, std::size_t count) {
  return pool.allocate_blocks(count);
}

Result<std::vector<ImmutableHold>> register_blocks(TierPool& pool,
                                                   std::vector<CompleteHold> blocks) {
  return pool.register_blocks(std::move(blocks));
}

Result<std::vector<ImmutableHold>> register_blocks(TierPool& pool,
                                                   std::vector<MutableHold> blocks) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!blocks[i]) {
      return Error{ErrorCode::InvalidMutableBlock, 0, i, blocks.size(), "the block is empty"};
    }
    if (!blocks[i].store()->is_complete(blocks[i].id())) {
      return Error{ErrorCode::BlockNotComplete, 0, i, blocks.size(), {}};
    }
  }
  std::vector<CompleteHold> complete;
  complete.reserve(blocks.size());
  for (MutableHold& block : blocks) {
    BlockStore* store = block.store();
    complete.emplace_back(store, block.disown());
  }
  return pool.register_blocks(std::move(complete));
}

Result<std::vector<ImmutableHold>> match_hashes(TierPool& pool,
                                                std::span<const SequenceHash> hashes) {
  return pool.match_hashes(hashes);
}

Result<RunHold> match_chain(TierPool& pool, std::span<const SequenceHash> hashes) {
  return pool.match_chain(hashes);
}

Result<std::vector<std::pair<std::size_t, ImmutableHold>>> scan_hashes(
    TierPool& pool, std::span<const SequenceHash> hashes) {
  KVBM_CHECK_OK(pool.check_open());
  auto found = scan(pool.store(), hashes);
  pool.publish_metrics();
  return found;
}

Result<std::size_t> touch_blocks(TierPool& pool, std::span<const SequenceHash> hashes) {
  KVBM_CHECK_OK(pool.check_open());
  return pool.store().touch(hashes);
}

Result<PoolReset> reset_pool(TierPool& pool) {
  KVBM_CHECK_OK(pool.check_open());
  const ResetCounts counts = pool.store().reset();
  pool.publish_metrics();
  return PoolReset{counts.freed, counts.still_held};
}

Result<std::shared_ptr<BlockSet>> make_block_set(Tier tier, LayoutType type,
                                                 const LayoutConfig& config,
                                                 std::vector<std::shared_ptr<Memory>> memories) {
  KVBM_TRY(auto layout, Layout::create(type, config, std::move(memories)));
  auto set = std::make_shared<BlockSet>();
  set->tier = tier;
  set->config = config;
  set->layout = std::move(layout);
  if (tier != Tier::Device) {
    set->sealed_sums = std::make_unique<std::uint64_t[]>(config.num_blocks);
  }
  return set;
}

Result<std::shared_ptr<BlockSet>> make_logical_set(Tier tier, const LayoutConfig& config) {
  KVBM_CHECK_OK(config.validate());
  auto set = std::make_shared<BlockSet>();
  set->tier = tier;
  set->config = config;
  return set;
}

Result<std::shared_ptr<TierPool>> make_pool(std::shared_ptr<BlockSet> set,
                                            const PoolOptions& options) {
  KVBM_TRY(auto events, make_dispatcher(options.event_manager));
  KVBM_TRY(auto pool,
           TierPool::create(std::move(set), {.duplicates = options.duplicates,
                                             .start_empty = true,
                                             .metadata = options.metadata,
                                             .events = events,
                                             .metrics_registry = options.metrics_registry}));
  pool->own(std::move(events));
  pool->close_with(options.cancellation_token);
  return pool;
}

Result<void> add_blocks(TierPool& pool, const std::vector<std::pair<BlockSet*, BlockId>>& blocks) {
  KVBM_CHECK_OK(pool.check_open());
  std::vector<BlockId> ids;
  ids.reserve(blocks.size());
  for (const auto& [set, id] : blocks) {
    if (set != pool.set().get()) {
      return Error{ErrorCode::InvalidMutableBlock, 0, ids.size(), blocks.size(),
                   "the block is of another block set than the pool's"};
    }
    ids.push_back(id);
  }
  return pool.store().add_blocks(ids);
}

}  // namespace kvbm::detail
