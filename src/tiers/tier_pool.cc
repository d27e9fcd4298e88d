#include "tiers/tier_pool.h"

#include <chrono>

#include "base/xxh3.h"

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

// Reports the duration of one call in 64 of this thread; reading the clock costs more than some of
// the calls do.
class SampledTimer {
 public:
  explicit SampledTimer(Histogram* histogram) {
    thread_local unsigned calls = 0;
    if (histogram && ++calls % 64 == 0) {
      histogram_ = histogram;
      begin_ = std::chrono::steady_clock::now();
    }
  }
  ~SampledTimer() {
    if (!histogram_) return;
    histogram_->observe(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count());
  }
  SampledTimer(const SampledTimer&) = delete;
  SampledTimer& operator=(const SampledTimer&) = delete;

 private:
  Histogram* histogram_ = nullptr;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace

BlockSet& set_of(const Hold& hold) noexcept {
  return *static_cast<BlockSet*>(hold.store()->backing());
}

Result<std::shared_ptr<TierPool>> TierPool::create(std::shared_ptr<BlockSet> set,
                                                   const Options& options) {
  const BlockStoreOptions store_options{.capacity = set->config.num_blocks,
                                        .start_empty = options.start_empty,
                                        .duplicates = options.duplicates,
                                        .metadata = options.metadata,
                                        .tier = set->tier,
                                        .events = options.events};
  KVBM_TRY(auto store, BlockStore::create(store_options, set));
  std::shared_ptr<TierPool> pool(new TierPool(std::move(set), std::move(store)));
  if (options.metrics_registry) {
    pool->metrics_ =
        BlockManagerMetrics::create(*options.metrics_registry, to_string(pool->tier()));
    pool->publish_metrics();
  }
  return pool;
}

TierPool::TierPool(std::shared_ptr<BlockSet> set, BlockStore::Owner store)
    : set_(std::move(set)), store_(std::move(store)) {}

void TierPool::close_with(std::stop_token token) {
  if (token.stop_possible()) closer_.emplace(std::move(token), [this] { close(); });
}

Result<void> TierPool::check_open() const {
  if (!closed_.load(std::memory_order_relaxed)) return {};
  return Error{ErrorCode::ProgressEngineShutdown, 0, 0, 0, {}};
}

// Differences, because the engine allocates, evicts and matches in the store without passing here.
void TierPool::publish_metrics() const {
  if (!metrics_) return;
  MutexLock lock(metrics_mutex_);
  const BlockStoreStats now = store_->stats();
  metrics_->allocation_counter->add(now.allocations - published_.allocations);
  metrics_->registration_counter->add(now.registrations - published_.registrations);
  metrics_->match_counter->add(now.matches - published_.matches);
  metrics_->eviction_counter->add(now.evictions - published_.evictions);
  metrics_->pool_metrics.total_blocks->set(static_cast<double>(now.total));
  metrics_->pool_metrics.available_blocks->set(static_cast<double>(now.available));
  published_ = now;
}

// XOR, because the sum without the seal must be had again: the next tier stores it under its own.
std::uint64_t TierPool::seal_of(BlockId id) const noexcept {
  const BlockIdentity identity = store_->identity(id);
  const SealedIdentity sealed{
      .sequence_hash = identity.sequence_hash.value(),
      .keyed_digest = 0,
      .parent_hash = identity.position == 0 ? 0 : identity.parent_hash.value(),
      .layout_digest = set_->layout->content_digest(),
      .name_space = 0,
      .epoch = 0,
      .position = identity.position,
      .token_count = identity.token_count,
  };
  return xxh3(&sealed, sizeof sealed);
}

Result<std::vector<MutableHold>> TierPool::allocate_blocks(std::size_t count) {
  KVBM_CHECK_OK(check_open());
  const SampledTimer timer(metrics_ ? metrics_->pool_metrics.allocation_duration.get() : nullptr);
  KVBM_TRY(auto blocks, detail::allocate(*store_, count));
  publish_metrics();
  return blocks;
}

Result<std::vector<ImmutableHold>> TierPool::register_blocks(std::vector<CompleteHold> blocks) {
  KVBM_CHECK_OK(check_open());
  const SampledTimer timer(metrics_ ? metrics_->pool_metrics.registration_duration.get() : nullptr);
  if (set_->sealed_sums && set_->layout) {
    for (const CompleteHold& block : blocks) {
      if (block.store() != store_.get()) break;  // refused below
      KVBM_TRY(const std::uint64_t sum, sum_block(*set_->layout, block.id()));
      set_->sealed_sums[block.id()] = sum ^ seal_of(block.id());
    }
  }
  KVBM_TRY(auto registered, detail::register_blocks(*store_, std::move(blocks)));
  publish_metrics();
  if (listener_) {
    std::vector<OffloadOffer> offers;
    offers.reserve(registered.size());
    for (const ImmutableHold& block : registered) {
      if (const auto priority = store_->offload_priority(block.id())) {
        offers.push_back({store_->identity(block.id()).sequence_hash, *priority});
      }
    }
    if (!offers.empty()) listener_(set_->tier, std::move(offers));
  }
  return registered;
}

Result<std::vector<ImmutableHold>> TierPool::match_hashes(std::span<const SequenceHash> hashes) {
  KVBM_CHECK_OK(check_open());
  const SampledTimer timer(metrics_ ? metrics_->pool_metrics.match_duration.get() : nullptr);
  auto found = detail::match(*store_, hashes);
  publish_metrics();
  return found;
}

Result<RunHold> TierPool::match_chain(std::span<const SequenceHash> hashes) {
  KVBM_CHECK_OK(check_open());
  const SampledTimer timer(metrics_ ? metrics_->pool_metrics.match_duration.get() : nullptr);
  RunHold run = detail::match_run(*store_, hashes);
  publish_metrics();
  return run;
}

Result<ImmutableHold> TierPool::register_transferred(CompleteHold block, TransferToken token) {
  if (block.store() != store_.get() || token.target_layout() != set_->layout.get() ||
      token.target() != block.id()) {
    return Error{ErrorCode::FailedToRegisterBlock, 0, block.id(), token.target(),
                 "the transfer filled another block"};
  }
  if (set_->sealed_sums) {
    set_->sealed_sums[block.id()] = token.payload_sum() ^ seal_of(block.id());
  }
  std::vector<CompleteHold> one;
  one.push_back(std::move(block));
  KVBM_TRY(auto registered, detail::register_blocks(*store_, std::move(one)));
  publish_metrics();
  return std::move(registered.front());
}

std::optional<std::uint64_t> TierPool::payload_sum(const ImmutableHold& block) const {
  if (!set_->sealed_sums) return std::nullopt;
  return set_->sealed_sums[block.id()] ^ seal_of(block.id());
}

PoolStats TierPool::stats() const {
  publish_metrics();
  const BlockStoreStats from = store_->stats();
  return {.total_blocks = from.total,
          .available_blocks = from.available,
          .free_blocks = from.free,
          .registered_blocks = from.registered,
          .allocations = from.allocations,
          .registrations = from.registrations,
          .duplicates = from.duplicates,
          .matches = from.matches,
          .evictions = from.evictions,
          .quarantined = from.detached};
}

}  // namespace kvbm::detail
