#include "tiers/tier_pool.h"

#include <chrono>

#include "store/record.h"
#include "tiers/disk_tier.h"

namespace kvbm::detail {
namespace {

constexpr std::size_t kCurveSamples = 4096;  // within 0.01 or 0.02 of the truth; 200 KB

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

Gathered::Gathered(const Wanted& wanted) : wanted_(wanted) {
  hashes_.reserve(wanted.tokens.size());
  digests_.reserve(wanted.tokens.size());
  for (const TokenBlock& block : wanted.tokens) {
    hashes_.push_back(block.sequence_hash());
    digests_.push_back(block.digest());
  }
}

Names Gathered::names() const {
  if (wanted_.tokens.empty()) return {wanted_.hashes, {}, wanted_.name_space};
  return {hashes_, digests_, wanted_.name_space};
}

BlockKey key_of(const Hold& hold) noexcept {
  const BlockIdentity identity = hold.store()->identity(hold.id());
  return {identity.sequence_hash, identity.digest, identity.name_space};
}

BlockIdentity identity_of(const TokenBlock& tokens, NamespaceId name_space) {
  return {.sequence_hash = tokens.sequence_hash(),
          .parent_hash = tokens.parent_sequence_hash().value_or(SequenceHash()),
          .position = static_cast<std::uint32_t>(tokens.position()),
          .token_count = static_cast<std::uint32_t>(tokens.tokens().size()),
          .digest = tokens.digest(),
          .name_space = name_space};
}

BlockSet& set_of(const Hold& hold) noexcept {
  return *static_cast<BlockSet*>(hold.store()->backing());
}

Result<std::shared_ptr<TierPool>> TierPool::create(std::shared_ptr<BlockSet> set,
                                                   const Options& options) {
  const BlockStoreOptions store_options{.capacity = set->config.num_blocks,
                                        .start_empty = options.start_empty,
                                        .ready_blocks = options.ready_blocks,
                                        .duplicates = options.duplicates,
                                        .metadata = options.metadata,
                                        .tier = set->tier,
                                        .events = options.events,
                                        .policy = options.eviction,
                                        .curve_samples = kCurveSamples};
  KVBM_TRY(auto store, BlockStore::create(store_options, set));
  std::shared_ptr<TierPool> pool(new TierPool(std::move(set), std::move(store)));
  pool->now_ = options.now;
  if (options.metrics_registry) {
    pool->metrics_ =
        BlockManagerMetrics::create(*options.metrics_registry, to_string(pool->tier()));
    pool->publish_metrics();
    pool->collector_ =
        options.metrics_registry->add_collector([raw = pool.get()] { raw->publish_metrics(); });
  }
  return pool;
}

TierPool::TierPool(std::shared_ptr<BlockSet> set, BlockStore::Owner store)
    : set_(std::move(set)), store_(std::move(store)) {}

TierPool::~TierPool() {
  if (disk_) disk_->close();
  collector_.reset();
  publish_metrics();
  if (own_events_) own_events_->close(std::chrono::seconds(1));
}

Result<void> TierPool::survive(std::shared_ptr<DiskTier> disk) {
  KVBM_CHECK_OK(disk->attach(*this));
  disk_ = std::move(disk);
  publish_metrics();
  return {};
}

bool TierPool::is_writable(TimePoint now) const noexcept {
  return !disk_ || disk_->is_writable(now);
}
bool TierPool::is_readable(TimePoint now) const noexcept {
  return !disk_ || disk_->is_readable(now);
}

Result<void> TierPool::forget_for_good(std::optional<NamespaceId> name_space) {
  return disk_ ? disk_->forget(name_space) : Result<void>();
}

ResetCounts TierPool::reset(std::optional<NamespaceId> name_space) {
  const ResetCounts counts = name_space ? store_->reset(*name_space) : store_->reset();
  if (disk_) disk_->forgotten(name_space);
  changed();
  return counts;
}

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
  const bool survives = set_->first_epochs != nullptr;
  return store::seal({.sequence_hash = identity.sequence_hash.value(),
                      .keyed_digest = identity.digest,
                      .parent_hash = identity.position == 0 ? 0 : identity.parent_hash.value(),
                      .layout_digest = set_->layout->content_digest(),
                      .name_space = identity.name_space,
                      .epoch = survives ? set_->lasting_epoch(identity) : identity.epoch,
                      .position = identity.position,
                      .token_count = identity.token_count,
                      .slot = survives ? id : 0});
}

Result<std::vector<BlockId>> TierPool::allocate_blocks(std::size_t count,
                                                       std::vector<SequenceHash>* evicted) {
  KVBM_CHECK_OK(check_open());
  if (count > store_->capacity()) {  // before sizing a vector by a caller's number
    return Error{ErrorCode::NotEnoughBlocksAvailable, 0, count, store_->available_blocks(), {}};
  }
  tell_time();
  const SampledTimer timer(metrics_ ? metrics_->pool_metrics.allocation_duration.get() : nullptr);
  std::vector<BlockId> ids(count);
  KVBM_CHECK_OK(store_->allocate(ids, evicted));
  changed();
  return ids;
}

BlockId TierPool::allocate_block() noexcept {
  if (is_closed()) return kNoBlock;
  tell_time();
  const SampledTimer timer(metrics_ ? metrics_->pool_metrics.allocation_duration.get() : nullptr);
  const BlockId id = store_->allocate_one();
  changed();
  return id;
}

Result<std::vector<ImmutableHold>> TierPool::register_blocks(std::vector<CompleteHold> blocks) {
  KVBM_CHECK_OK(check_open());
  tell_time();
  const SampledTimer timer(metrics_ ? metrics_->pool_metrics.registration_duration.get() : nullptr);
  if (set_->sealed_sums && set_->layout) {
    for (const CompleteHold& block : blocks) {
      if (block.store() != store_.get()) break;  // refused below
      KVBM_TRY(const std::uint64_t sum, sum_block(*set_->layout, block.id()));
      (*set_->sealed_sums)[block.id()] = sum ^ seal_of(block.id());
    }
  }
  KVBM_TRY(auto registered, detail::register_blocks(*store_, std::move(blocks)));
  changed();
  if (listener_) {
    std::vector<OffloadOffer> offers;
    offers.reserve(registered.size());
    for (const ImmutableHold& block : registered) {
      if (const auto priority = store_->offload_priority(block.id())) {
        offers.push_back({key_of(block), *priority});
      }
    }
    if (!offers.empty()) listener_(set_->tier, std::move(offers));
  }
  return registered;
}

Result<std::vector<BlockId>> TierPool::match_blocks(const Names& names) {
  KVBM_CHECK_OK(check_open());
  tell_time();
  const SampledTimer timer(metrics_ ? metrics_->pool_metrics.match_duration.get() : nullptr);
  std::vector<BlockId> ids(names.hashes.size());
  ids.resize(store_->match(names, ids));
  changed();
  return ids;
}

Result<RunHold> TierPool::match_chain(const Names& names) {
  KVBM_CHECK_OK(check_open());
  tell_time();
  const SampledTimer timer(metrics_ ? metrics_->pool_metrics.match_duration.get() : nullptr);
  RunHold run = detail::match_run(*store_, names);
  changed();
  return run;
}

std::vector<Result<ImmutableHold>> TierPool::register_transferred(
    std::vector<CompleteHold> blocks, std::vector<Result<TransferToken>> tokens) {
  std::vector<Result<ImmutableHold>> answers;
  std::vector<CompleteHold> good;
  std::vector<std::size_t> positions;  // of the good ones
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!tokens[i]) {
      answers.emplace_back(std::move(tokens[i]).error());
      continue;
    }
    const TransferToken& token = tokens[i].value();
    if (blocks[i].store() != store_.get() || token.target_layout() != set_->layout.get() ||
        token.target() != blocks[i].id() || !token.is_whole()) {
      answers.emplace_back(Error{ErrorCode::FailedToRegisterBlock, 0, blocks[i].id(),
                                 token.target(), "the transfer filled another block"});
      continue;
    }
    if (set_->sealed_sums) {
      (*set_->sealed_sums)[blocks[i].id()] = token.payload_sum() ^ seal_of(blocks[i].id());
    }
    answers.emplace_back(ImmutableHold());
    positions.push_back(i);
    good.push_back(std::move(blocks[i]));
  }
  tell_time();
  auto registered = detail::register_blocks(*store_, std::move(good));
  for (std::size_t i = 0; i < positions.size(); ++i) {
    answers[positions[i]] = registered ? Result<ImmutableHold>(std::move((*registered)[i]))
                                       : Result<ImmutableHold>(registered.error());
  }
  changed();
  return answers;
}

std::optional<std::uint64_t> TierPool::payload_sum(const ImmutableHold& block) const {
  if (!set_->sealed_sums) return std::nullopt;
  return (*set_->sealed_sums)[block.id()] ^ seal_of(block.id());
}

PoolStats TierPool::stats() const {
  tell_time();
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
          .bookkeeping_bytes = store_->bookkeeping_bytes(),
          .quarantined = from.detached,
          .collisions = from.collisions};
}

}  // namespace kvbm::detail
