// Making and ending a store, and its numbers.
#include "logical/pool/block_store.h"

#include <algorithm>
#include <cassert>

#include "logical/policy/age_order.h"
#include "logical/policy/list_order.h"
#include "logical/pool/ticks.h"

namespace kvbm {
namespace {

// Ids above are the heads of the order's lists.
constexpr std::size_t kMaxCapacity = kNoBlock - 256;
static_assert(kLevels < 256);

std::unique_ptr<EvictionOrder> make_order(BlockTable& table, EvictionPolicy policy) {
  if (policy == EvictionPolicy::AgeIndex) return std::make_unique<AgeOrder>(table);
  return std::make_unique<ListOrder>(table, policy);
}

}  // namespace

Result<BlockStore::Owner> BlockStore::create(const BlockStoreOptions& options,
                                             std::shared_ptr<void> backing) {
  if (options.capacity == 0 || options.capacity > kMaxCapacity) {
    return Error{ErrorCode::InvalidConfig, 0, options.capacity, kMaxCapacity,
                 "a pool must have 1 .. 2^32 - 257 blocks"};
  }
  if (options.policy == EvictionPolicy::AgeIndex && options.capacity > AgeOrder::kMaxCapacity) {
    return Error{ErrorCode::InvalidConfig, 0, options.capacity, AgeOrder::kMaxCapacity,
                 "a pool with the policy age-index must have 1 .. 2^31 - 1 blocks"};
  }
  return Owner(new BlockStore(options, std::move(backing)));
}

BlockStore::BlockStore(const BlockStoreOptions& options, std::shared_ptr<void> backing)
    : duplicates_(options.duplicates),
      tier_(options.tier),
      events_(options.events),
      backing_(std::move(backing)),
      race_hook_(options.race_hook),
      metadata_(options.metadata, options.capacity),
      table_(options.capacity, kLevels),
      acquired_ticks_(options.metadata ? 0 : options.capacity, 4),
      index_(table_),
      order_(make_order(table_, options.policy)),
      order_wants_paths_(order_->wants_paths()) {
  MutexLock lock(mutex_);
  if (options.curve_samples > 0) curve_.emplace(options.curve_samples);
  if (order_wants_paths_) path_.reserve(capacity());
  update_wants_time();
  if (options.start_empty) {
    ready_ = capacity();
    return;
  }
  total_ = capacity();
  add_ready(std::min(options.ready_blocks, capacity()));
}

// Nothing of a block is written before it is ready, so that making a store of any size takes no
// time. Backwards, because the block that was freed last is the first to be taken; and behind those
// that are free already, so that who gets which block does not depend on when others became ready.
void BlockStore::add_ready(std::size_t count) noexcept {
  if (count == 0) return;
  const bool had_free = free_ > 0;
  const BlockId before = first_free_;
  const BlockId end = last_free_;
  for (std::size_t id = ready_ + count; id > ready_; --id) add_block(static_cast<BlockId>(id - 1));
  if (had_free) {
    last_free_ = static_cast<BlockId>(ready_ + count - 1);
    table_.place(last_free_).next = kNoBlock;
    table_.place(end).next = first_free_;
    first_free_ = before;
  }
  ready_ += count;
}

void BlockStore::add_block(BlockId id) noexcept {
  table_.rest(id).priority = DEFAULT_PRIORITY;
  free_block(id);
}

void BlockStore::make_ready(std::size_t count) noexcept {
  constexpr std::size_t kAtATime = 1024;  // so that other threads need not wait long
  while (count > 0) {
    MutexLock lock(mutex_);
    const std::size_t now = std::min({count, kAtATime, capacity() - ready_});
    if (now == 0) return;
    add_ready(now);
    count -= now;
  }
}

void BlockStore::close() noexcept {
  std::vector<BlockId> leased;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, lease] : leases_) leased.push_back(lease.id);
    leases_.clear();
    lease_ends_.clear();
    update_wants_time();
    ++weak_;  // the releases must not be the end of it
  }
  release(leased);
  {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  release_weak();
}

void BlockStore::add_weak() noexcept {
  MutexLock lock(mutex_);
  ++weak_;
}

void BlockStore::release_weak() noexcept {
  bool last = false;
  {
    MutexLock lock(mutex_);
    --weak_;
    last = closed_ && held_ == 0 && weak_ == 0;
  }
  if (last) delete this;
}

Result<void> BlockStore::add_blocks(std::span<const BlockId> ids) {
  MutexLock lock(mutex_);
  for (const BlockId id : ids) {
    if (id >= ready_ || table_.stage(id) != BlockStage::Absent) {
      return Error{ErrorCode::InvalidMutableBlock, 0, id, ready_,
                   "the block does not exist or is in the pool already"};
    }
  }
  // Backwards, because the block that was freed last is the first to be taken.
  for (std::size_t i = ids.size(); i > 0; --i) {
    // A block that was named twice is Free by now.
    if (table_.stage(ids[i - 1]) != BlockStage::Absent) continue;
    add_block(ids[i - 1]);
    total_.fetch_add(1, std::memory_order_relaxed);
  }
  return {};
}

// --- metadata, events, numbers ---------------------------------------------------------------

BasicMetadata BlockStore::basic_metadata(BlockId id) const {
  MutexLock lock(mutex_);
  const std::uint32_t acquired = metadata_.table() ? 0 : acquired_ticks_[id];
  return {table_.priority(id), widen_tick(tick_, table_.ties(id).returned_tick),
          widen_tick(tick_, acquired)};
}

std::optional<std::uint64_t> BlockStore::offload_priority(BlockId id) const {
  MutexLock lock(mutex_);
  if (metadata_.table()) return metadata_.table()->offload_priority(metadata_.at(id));
  return table_.priority(id);
}

void BlockStore::note(BlockEvent::Kind kind, BlockId id) {
  if (!events_) return;
  const bool named = kind != BlockEvent::Kind::Allocated;
  noted_.push_back({.kind = kind,
                    .tier = tier_,
                    .block_id = id,
                    .sequence_hash = named ? table_.hash(id) : SequenceHash(),
                    .name_space = named ? table_.tag(id).name_space : NamespaceId{0}});
}

// Under the mutex, so that the sink has events of different calls in the order of the changes.
void BlockStore::publish() noexcept {
  if (noted_.empty()) return;
  events_->put(noted_);
  noted_.clear();
}

std::size_t BlockStore::available_blocks() const {
  MutexLock lock(mutex_);
  return available();
}

BlockStoreStats BlockStore::stats() const {
  MutexLock lock(mutex_);
  BlockStoreStats stats = counters_;
  stats.total = total_blocks();
  stats.free = free_;
  stats.available = available();
  stats.registered = 0;
  for (const Namespace& space : namespaces_) stats.registered += space.registered;
  return stats;
}

std::size_t BlockStore::bookkeeping_bytes() const {
  const std::size_t metadata =
      metadata_.table() ? metadata_.table()->bytes * capacity() : acquired_ticks_.bytes();
  MutexLock lock(mutex_);
  return sizeof(BlockStore) + table_.bytes() + index_.bytes() + order_->bytes() + metadata;
}

}  // namespace kvbm
