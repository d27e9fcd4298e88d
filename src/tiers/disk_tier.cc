#include "tiers/disk_tier.h"

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "tiers/write_budget.h"

namespace kvbm::detail {
namespace {

using store::Health;

// Large enough to pay for the call, small enough to stay in the cache.
constexpr std::size_t kRestoredAtATime = 1024;
constexpr std::uint64_t kDamagedBlocksTold = 8;

RestoredBlock block_of(store::Slot slot, const store::SlotRecord& record) {
  return {.id = slot,
          .parent_guess = record.parent_slot,
          .priority = record.priority,
          .identity = {.sequence_hash = record.sequence_hash,
                       .parent_hash = record.parent_hash,
                       .position = record.position,
                       .token_count = record.token_count,
                       .digest = record.digest,
                       .name_space = record.name_space}};
}

// After a loss of power a slot may have its record back and not its bytes, while its block was put
// into another slot since: the later put is the one that is right.
class PutOrder final : public RestoredAges {
 public:
  // In ascending order of ids; must outlive this.
  explicit PutOrder(const std::vector<RestoredHold>& holds) : holds_(holds) {}
  bool is_newer(BlockId one, BlockId than) const noexcept override {
    return put_of(one) > put_of(than);
  }

 private:
  std::uint64_t put_of(BlockId id) const noexcept {
    return std::ranges::lower_bound(holds_, id, {}, &RestoredHold::id)->put_sequence;
  }
  const std::vector<RestoredHold>& holds_;
};

}  // namespace

Result<std::shared_ptr<DiskTier>> DiskTier::open(const DiskStoreConfig& config,
                                                 const store::StoreShape& shape, Log log) {
  KVBM_TRY(auto store, store::open_disk_store(config.directory, shape));
  return std::shared_ptr<DiskTier>(new DiskTier(config, std::move(store), std::move(log), {}));
}

Result<std::shared_ptr<DiskTier>> DiskTier::open(const DiskStoreConfig& config,
                                                 const store::StoreShape& shape,
                                                 store::StoreFiles files, Log log, Now now) {
  KVBM_TRY(auto store, store::DiskStore::open(std::move(files), shape));
  return std::shared_ptr<DiskTier>(
      new DiskTier(config, std::move(store), std::move(log), std::move(now)));
}

DiskTier::DiskTier(const DiskStoreConfig& config, std::unique_ptr<store::DiskStore> store, Log log,
                   Now now)
    : config_(config),
      log_(std::move(log)),
      now_(std::move(now)),
      store_(std::move(store)),
      health_(config.stall_timeout, [this](DiskHealth health, const std::string& reason) {
        say("disk tier: " + std::string(to_string(health)) + (reason.empty() ? "" : ": " + reason));
      }) {}

DiskTier::~DiskTier() {
  collector_.reset();
  close();
}

// What has ended stays: others may be asking for it.
void DiskTier::close() {
  if (keeper_) keeper_->stop();
  if (!restored_) return;
  restored_->stop();
  restored_->wait();
}

std::shared_ptr<Memory> DiskTier::memory() const {
  return std::make_shared<Memory>(store_->blocks());
}

Result<void> DiskTier::attach(TierPool& pool) {
  pool_ = &pool;
  BlockSet& set = *pool.set();
  set.first_epochs = std::make_unique<std::array<std::atomic<std::uint32_t>, 256>>();
  for (std::size_t i = 0; i < set.first_epochs->size(); ++i) {
    (*set.first_epochs)[i] = store_->epoch(static_cast<NamespaceId>(i));
  }
  std::vector<RestoredHold> holds;
  std::vector<RestoredBlock> blocks;
  holds.reserve(store_->shape().num_slots);
  blocks.reserve(kRestoredAtATime);
  const auto loaded = store_->load([&](store::Slot slot, const store::SlotRecord& record) {
    (*set.sealed_sums)[slot] = record.sealed_sum;
    holds.push_back({record.put_sequence, slot});
    blocks.push_back(block_of(slot, record));
    if (blocks.size() < kRestoredAtATime) return;
    pool.store().restore(blocks);
    blocks.clear();
  });
  if (!loaded) {
    holds.resize(holds.size() - blocks.size());  // those that the pool was given
    for (const RestoredHold& hold : holds) pool.store().release(hold.id);
    return loaded.error();
  }
  loaded_ = *loaded;
  pool.store().restore(blocks);
  const PutOrder order(holds);
  const std::vector<BlockId> refused = pool.store().finish_restore(&order);  // in ascending order
  std::erase_if(holds, [&](const RestoredHold& hold) {
    return !refused.empty() && std::ranges::binary_search(refused, hold.id);
  });
  restored_ = std::make_unique<RestoredHolds>(pool.store(), std::move(holds));
  KVBM_TRY(keeper_, store::Keeper::start(
                        *store_, health_, config_,
                        [this](store::Slot slot, const store::SlotRecord& record) {
                          quarantine(slot, record);
                        },
                        now_));
  if (now_) restored_->wait();
  if (loaded_.damaged > 0) {
    say("disk tier: " + std::to_string(loaded_.damaged) +
        " records are damaged; their blocks are lost");
  }
  return {};
}

void DiskTier::wait_until_restored() const { restored_->wait(); }

DiskHealth DiskTier::health_at(TimePoint now) noexcept {
  if (health_.seems_to_hang(now)) health_.check(now, store_->is_removed());
  return health_.state();
}

Result<void> DiskTier::forget(std::optional<NamespaceId> name_space) {
  return store_->reset(name_space);
}

// Epochs of pool and store go up together; where the store skipped some, or the pool's began anew,
// the difference changes.
void DiskTier::forgotten(std::optional<NamespaceId> name_space) noexcept {
  for (std::size_t i = 0; i < 256; ++i) {
    const auto space = static_cast<NamespaceId>(i);
    if (name_space && *name_space != space) continue;
    (*pool_->set()->first_epochs)[i] = store_->epoch(space) - pool_->store().epoch(space);
  }
}

void DiskTier::acknowledge(TransferResult result, TransferExecutor::Done then) {
  if (!config_.durable) return then(std::move(result));
  // Shared, because a std::function must be copyable.
  auto held = std::make_shared<TransferResult>(std::move(result));
  keeper_->after_sync([held, then = std::move(then)](const Result<void>& synced) {
    for (auto& block : held->blocks) {
      if (!synced && block) block = synced.error();
    }
    then(std::move(*held));
  });
}

DiskStats DiskTier::stats() const {
  const store::StoreCounters counters = store_->counters();
  return {.health = health_.state(),
          .reason = health_.reason(),
          .restored_blocks = loaded_.valid,
          .damaged_records = loaded_.damaged,
          .blocks_written = counters.blocks_written,
          .payload_bytes_written = counters.payload_bytes_written,
          .index_bytes_written = counters.index_bytes_written,
          .bytes_served = counters.bytes_served,
          .write_errors = health_.errors(Health::Op::Write),
          .read_errors = health_.errors(Health::Op::Read),
          .scrubbed_blocks = keeper_ ? keeper_->scrubbed_blocks() : 0,
          .scrub_mismatches = keeper_ ? keeper_->scrub_mismatches() : 0,
          .write_budget_bytes_per_day = write_budget(config_),
          .write_amplification = counters.write_amplification(store_->shape().block_bytes()),
          .days_of_life_left =
              counters.days_of_life_left(config_.rated_endurance_bytes, store_->age_seconds())};
}

// --- around the moves of blocks --------------------------------------------------------------

// The block is noted now, because its children may be written before it.
Result<void> DiskTier::before_write(const BlockCopy& copy) {
  health_.began(time());
  recent_.note(pool_->store().identity(copy.target).sequence_hash, copy.target);
  auto cleared = store_->clear(copy.target);
  if (!cleared) health_.ended(Health::Op::Write, cleared, time());
  return cleared;
}

Result<void> DiskTier::after_write(const BlockCopy& copy, std::uint64_t payload_sum) {
  store_->count_payload(store_->shape().extent_bytes());
  const BlockId id = copy.target;
  const BlockIdentity identity = pool_->store().identity(id);
  Result<void> put;
  if (!identity.forgotten) {
    put = store_->put(
        id,
        {.sequence_hash = identity.sequence_hash,
         .parent_hash = identity.parent_hash,
         .digest = identity.digest,
         .sealed_sum = payload_sum ^ pool_->seal_of(id),
         .position = identity.position,
         .epoch = pool_->set()->lasting_epoch(identity),
         .parent_slot = identity.position == 0 ? kNoBlock : recent_.find(identity.parent_hash),
         .token_count = static_cast<std::uint16_t>(identity.token_count),
         .name_space = identity.name_space,
         .priority = static_cast<std::uint8_t>(pool_->store().priority(id))},
        tokens_to_write(copy, identity.token_count));
  }
  health_.ended(Health::Op::Write, put, time());
  return put;
}

void DiskTier::write_failed(const BlockCopy&, const Error& error) noexcept {
  health_.ended(Health::Op::Write, error, time());
}

void DiskTier::before_read(const BlockCopy&) noexcept { health_.began(time()); }

void DiskTier::after_read(const BlockCopy& copy, const Result<std::uint64_t>& sum) noexcept {
  // Wrong bytes are read without an error; the disk works.
  const bool mismatch = !sum && sum.error().code == ErrorCode::ChecksumMismatch;
  health_.ended(Health::Op::Read, sum || mismatch ? Result<void>() : Result<void>(sum.error()),
                time());
  if (sum) {
    store_->count_served(store_->shape().block_bytes());
    if (host_) read_tokens(copy);
  } else if (mismatch) {
    say_damaged(copy.source);
    // The reader holds the block, so nobody writes to its slot. If this fails the next life finds
    // it, and finds out again.
    if (!store_->clear(copy.source)) return;
  }
}

// A rotten disk may have many: the first ones are told one by one, then ever fewer.
void DiskTier::say_damaged(store::Slot slot) {
  const std::uint64_t count = ++damaged_blocks_;
  if (count > kDamagedBlocksTold && !std::has_single_bit(count)) return;
  say("disk tier: the bytes of block " + std::to_string(slot) +
      " are not what was written; it is dropped" +
      (count > 1 ? " (" + std::to_string(count) + " so far)" : ""));
}

std::span<const Token> DiskTier::tokens_to_write(const BlockCopy& copy, std::size_t count) const {
  if (!host_) return {};
  const std::span<const Token> tokens = host_->tokens_of(copy.source);
  if (tokens.front() == BlockSet::kUnknownToken) return {};
  return tokens.first(count);  // at most page_size
}

void DiskTier::read_tokens(const BlockCopy& copy) {
  const std::span<Token> kept = host_->tokens_of(copy.target);
  kept.front() = BlockSet::kUnknownToken;
  store::SlotRecord record;
  const auto found = store_->read(copy.source, record);
  if (!found || *found != store::RecordState::Valid) return;
  std::ranges::copy(store_->tokens(copy.source, record), kept.begin());
}

// A block that was found damaged while nobody used it.
void DiskTier::quarantine(store::Slot slot, const store::SlotRecord& record) {
  const auto held = match(pool_->store(), {std::span(&record.sequence_hash, 1),
                                           std::span(&record.digest, 1), record.name_space});
  if (held.empty() || held.front().id() != slot) return;
  pool_->store().detach(slot);
  say_damaged(slot);
  if (!store_->clear(slot)) return;
}

}  // namespace kvbm::detail
