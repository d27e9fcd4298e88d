// What kvbm/pool.h asks of a tier pool.
#include "kvbm/pool.h"

#include "tiers/tier_pool.h"

namespace kvbm::detail {

std::size_t total_blocks(const TierPool& pool) noexcept { return pool.store().total_blocks(); }

std::size_t available_blocks(const TierPool& pool) {
  pool.tell_time();
  return pool.store().available_blocks();
}

PoolStats stats(const TierPool& pool) { return pool.stats(); }

BlockId allocate_block(TierPool& pool) noexcept { return pool.allocate_block(); }

Error why_no_block(const TierPool& pool) {
  if (auto open = pool.check_open(); !open) return std::move(open).error();
  return Error{ErrorCode::NotEnoughBlocksAvailable, 0, 1, 0, {}};
}

Result<std::vector<BlockId>> allocate_blocks(TierPool& pool, std::size_t count,
                                             std::vector<SequenceHash>* evicted) {
  return pool.allocate_blocks(count, evicted);
}

Result<std::vector<ImmutableHold>> register_blocks(TierPool& pool,
                                                   std::vector<CompleteHold> blocks) {
  return pool.register_blocks(std::move(blocks));
}

Result<std::vector<ImmutableHold>> register_blocks(TierPool& pool,
                                                   std::vector<MutableHold> blocks) {
  KVBM_CHECK_OK(pool.check_open());
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

namespace {

Result<void> check_own(const TierPool& pool, const Hold& hold) {
  KVBM_CHECK_OK(pool.check_open());
  if (hold && hold.store() == &pool.store()) return {};
  return Error{ErrorCode::InvalidMutableBlock, 0, 0, 0,
               "the handle is empty or belongs to another pool"};
}

Result<std::optional<TimePoint>> end_of(std::optional<std::chrono::nanoseconds> duration) {
  if (!duration) return std::optional<TimePoint>();
  if (duration->count() <= 0) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0, "a duration must be more than nothing"};
  }
  const TimePoint now = std::chrono::steady_clock::now();
  return std::optional(*duration < TimePoint::max() - now ? now + *duration : TimePoint::max());
}

}  // namespace

BlockStore* store_of(TierPool& pool) noexcept { return &pool.store(); }

Result<std::vector<BlockId>> match_blocks(TierPool& pool, const Wanted& wanted) {
  return pool.match_blocks(Gathered(wanted).names());
}

Result<RunHold> match_chain(TierPool& pool, const Wanted& wanted) {
  return pool.match_chain(Gathered(wanted).names());
}

Result<std::vector<std::pair<std::size_t, ImmutableHold>>> scan_blocks(TierPool& pool,
                                                                       const Wanted& wanted) {
  KVBM_CHECK_OK(pool.check_open());
  pool.tell_time();
  auto found = scan(pool.store(), Gathered(wanted).names());
  pool.changed();
  return found;
}

Result<std::size_t> touch_blocks(TierPool& pool, const Wanted& wanted) {
  KVBM_CHECK_OK(pool.check_open());
  pool.tell_time();
  return pool.store().touch(Gathered(wanted).names());
}

Result<std::vector<bool>> contains_blocks(TierPool& pool, const Wanted& wanted) {
  KVBM_CHECK_OK(pool.check_open());
  const std::size_t count = wanted.hashes.size();
  const auto present = std::make_unique<bool[]>(count);
  pool.store().contains(Gathered(wanted).names(), std::span(present.get(), count));
  return std::vector<bool>(present.get(), present.get() + count);
}

Result<PoolReset> reset_pool(TierPool& pool, std::optional<NamespaceId> name_space) {
  KVBM_CHECK_OK(pool.check_open());
  const Result<void> durable = pool.forget_for_good(name_space);
  const ResetCounts counts = pool.reset(name_space);
  KVBM_CHECK_OK(durable);
  return PoolReset{counts.evictable, counts.still_held};
}

// --- retention -------------------------------------------------------------------------------

Result<void> retain(TierPool& pool, const Hold& block, const RetentionOptions& options) {
  KVBM_CHECK_OK(check_own(pool, block));
  KVBM_TRY(const auto until, end_of(options.duration));
  const BlockId id = block.id();
  return pool.store().retain({&id, 1}, {options.priority, until, options.hint});
}

Result<void> retain(TierPool& pool, const RunHold& run, const TokenRange& tokens,
                    const RetentionOptions& options) {
  KVBM_CHECK_OK(check_own(pool, run));
  const std::size_t page = pool.set()->config.page_size;
  const std::size_t size = run.count() * page;
  const std::size_t end = std::min(tokens.end.value_or(size), size);
  if (tokens.begin >= end) {
    return Error{ErrorCode::InvalidConfig, 0, tokens.begin, size,
                 "a token range must not be empty and must begin within the run"};
  }
  KVBM_TRY(const auto until, end_of(options.duration));
  const std::vector<BlockId> all = ids(run);
  const std::size_t first = tokens.begin / page;
  const std::size_t last = (end - 1) / page;
  return pool.store().retain(std::span(all).subspan(first, last - first + 1),
                             {options.priority, until, options.hint});
}

Result<std::size_t> protect(TierPool& pool, const Wanted& wanted) {
  KVBM_CHECK_OK(pool.check_open());
  return pool.store().protect(Gathered(wanted).names());
}

Result<LeaseId> lease(TierPool& pool, const Hold& block, std::chrono::nanoseconds duration) {
  KVBM_CHECK_OK(check_own(pool, block));
  KVBM_TRY(const auto until, end_of(duration));
  return pool.store().lease(block.id(), *until);
}

bool release_lease(TierPool& pool, LeaseId lease) {
  pool.tell_time();
  return pool.store().release_lease(lease);
}

double hit_ratio_at(const TierPool& pool, std::size_t blocks) {
  return pool.store().hit_ratio_at(blocks);
}

std::vector<HitRatioPoint> miss_ratio_curve(const TierPool& pool) {
  return pool.store().miss_ratio_curve();
}

Result<std::shared_ptr<BlockSet>> make_block_set(Tier tier, LayoutType type,
                                                 const LayoutConfig& config,
                                                 std::vector<std::shared_ptr<Memory>> memories) {
  KVBM_TRY(auto layout, Layout::create(type, config, std::move(memories)));
  return make_block_set(tier, std::move(layout), config);
}

std::shared_ptr<BlockSet> make_block_set(Tier tier, std::shared_ptr<const Layout> layout,
                                         const LayoutConfig& config) {
  auto set = std::make_shared<BlockSet>();
  set->tier = tier;
  set->config = config;
  set->layout = std::move(layout);
  if (tier != Tier::Device) {
    set->sealed_sums.emplace(config.num_blocks);
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
                                             .eviction = options.eviction,
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
