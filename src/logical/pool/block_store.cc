#include "logical/pool/block_store.h"

#include <cassert>

namespace kvbm {

Result<BlockStore::Owner> BlockStore::create(const BlockStoreOptions& options,
                                             std::shared_ptr<void> backing) {
  if (options.capacity == 0 || options.capacity >= kNoBlock) {
    return Error{ErrorCode::InvalidConfig, 0, options.capacity, kNoBlock - 1,
                 "a pool must have 1 .. 2^32 - 2 blocks"};
  }
  return Owner(new BlockStore(options, std::move(backing)));
}

BlockStore::BlockStore(const BlockStoreOptions& options, std::shared_ptr<void> backing)
    : capacity_(options.capacity),
      duplicates_(options.duplicates),
      tier_(options.tier),
      events_(options.events),
      backing_(std::move(backing)),
      slots_(std::make_unique<Slot[]>(options.capacity)),
      metadata_(options.metadata, options.capacity),
      registry_(options.capacity) {
  if (options.start_empty) return;
  MutexLock lock(mutex_);
  for (BlockId id = 0; id < capacity_; ++id) free_slot(id);
  total_ = capacity_;
}

void BlockStore::close() noexcept {
  bool last = false;
  {
    MutexLock lock(mutex_);
    closed_ = true;
    last = held_ == 0 && weak_ == 0;
  }
  if (last) delete this;
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
    const bool can =
        id < capacity_ && slots_[id].state.load(std::memory_order_relaxed) == State::Absent;
    if (!can) {
      return Error{ErrorCode::InvalidMutableBlock, 0, id, capacity_,
                   "the block does not exist or is in the pool already"};
    }
  }
  for (const BlockId id : ids) {
    // A block that was named twice is Free by now.
    if (slots_[id].state.load(std::memory_order_relaxed) != State::Absent) continue;
    free_slot(id);
    total_.fetch_add(1, std::memory_order_relaxed);
  }
  return {};
}

// --- lists -----------------------------------------------------------------------------------

void BlockStore::push_back(List& list, BlockId id) noexcept {
  Slot& slot = slots_[id];
  slot.prev = list.tail;
  slot.next = kNoBlock;
  (list.tail == kNoBlock ? list.head : slots_[list.tail].next) = id;
  list.tail = id;
  ++list.size;
}

void BlockStore::remove(List& list, BlockId id) noexcept {
  Slot& slot = slots_[id];
  (slot.prev == kNoBlock ? list.head : slots_[slot.prev].next) = slot.next;
  (slot.next == kNoBlock ? list.tail : slots_[slot.next].prev) = slot.prev;
  --list.size;
}

// --- pins ------------------------------------------------------------------------------------

bool BlockStore::is_pinned(const Slot& slot) const noexcept {
  return slot.holds.load(std::memory_order_relaxed) > 0 || slot.pinned_children > 0;
}

// The block has just become pinned. Climbs until an ancestor already was.
void BlockStore::pin(BlockId id) noexcept {
  for (;;) {
    remove(evictable_, id);
    const BlockId parent = slots_[id].parent;
    if (parent == kNoBlock) return;
    const bool was_pinned = is_pinned(slots_[parent]);
    ++slots_[parent].pinned_children;
    if (was_pinned) return;
    id = parent;
  }
}

// The block has just become unpinned. Child before parent: see the invariant in the header.
void BlockStore::unpin(BlockId id) noexcept {
  for (;;) {
    push_back(evictable_, id);
    on_returned(id);
    const BlockId parent = slots_[id].parent;
    if (parent == kNoBlock) return;
    --slots_[parent].pinned_children;
    if (is_pinned(slots_[parent])) return;
    id = parent;
  }
}

void BlockStore::hold_locked(BlockId id) noexcept {
  Slot& slot = slots_[id];
  const bool was_pinned = is_pinned(slot);
  // Another thread may raise or lower a count above 0 meanwhile; from 0 only this one, under the
  // mutex, can.
  if (slot.holds.fetch_add(1, std::memory_order_relaxed) == 0) {
    ++held_;
    if (!was_pinned) pin(id);
  }
}

void BlockStore::add_hold(BlockId id) noexcept {
  std::atomic<std::uint32_t>& holds = slots_[id].holds;
  std::uint32_t seen = holds.load(std::memory_order_relaxed);
  while (seen > 0) {
    if (holds.compare_exchange_weak(seen, seen + 1, std::memory_order_relaxed)) return;
  }
  MutexLock lock(mutex_);  // a member of a run, pinned by its child only
  hold_locked(id);
}

void BlockStore::release(BlockId id) noexcept {
  Slot& slot = slots_[id];
  std::uint32_t seen = slot.holds.load(std::memory_order_relaxed);
  assert(seen > 0);

  // Not the last hold: no lock. Release order, so that this reader's loads of the block happen
  // before the next owner's stores to it.
  while (seen > 1) {
    if (slot.holds.compare_exchange_weak(seen, seen - 1, std::memory_order_release,
                                         std::memory_order_relaxed)) {
      return;
    }
  }

  bool last_of_all = false;
  {
    MutexLock lock(mutex_);
    if (!release_locked(id)) return;
    last_of_all = closed_ && held_ == 0 && weak_ == 0;
  }
  if (last_of_all) delete this;
}

// True if it was the last hold of the block.
bool BlockStore::release_locked(BlockId id) noexcept {
  Slot& slot = slots_[id];
  // A match may have taken a hold since the caller looked; then this is not the last.
  if (slot.holds.fetch_sub(1, std::memory_order_acq_rel) != 1) return false;
  --held_;
  switch (slot.state.load(std::memory_order_relaxed)) {
    case State::Registered:
    case State::Detached:
      if (slot.pinned_children == 0) unpin(id);
      break;
    case State::Duplicate: {
      const BlockId primary = slot.parent;
      free_slot(id);
      release_locked(primary);
      break;
    }
    default: free_slot(id);
  }
  return true;
}

// --- transitions -----------------------------------------------------------------------------

Result<std::size_t> BlockStore::allocate(std::span<BlockId> out) {
  MutexLock lock(mutex_);
  const std::size_t available = free_.size + evictable_.size;
  if (out.size() > available) {
    return Error{ErrorCode::NotEnoughBlocksAvailable, 0, out.size(), available, {}};
  }
  const std::uint64_t evictions_before = counters_.evictions;
  for (BlockId& id : out) {
    if (free_.head == kNoBlock) evict(evictable_.head);
    id = free_.head;
    remove(free_, id);
    slots_[id].state.store(State::Mutable, std::memory_order_relaxed);
    slots_[id].holds.store(1, std::memory_order_relaxed);
    ++held_;
    on_acquired(id);
    note(BlockEvent::Kind::Allocated, id);
  }
  counters_.allocations += out.size();
  publish();
  return static_cast<std::size_t>(counters_.evictions - evictions_before);
}

// Requires: an evictable leaf.
void BlockStore::evict(BlockId id) noexcept {
  assert(slots_[id].children == 0);
  if (slots_[id].state.load(std::memory_order_relaxed) == State::Registered) {
    note(BlockEvent::Kind::Evicted, id);  // for a Detached block that was told before
    ++counters_.evictions;
  }
  remove(evictable_, id);
  unlink(id);
  free_slot(id);
}

void BlockStore::complete(BlockId id, const BlockIdentity& identity) {
  Slot& slot = slots_[id];
  slot.hash = identity.sequence_hash;
  slot.parent_hash = identity.parent_hash;
  slot.position = identity.position;
  slot.token_count = static_cast<std::uint16_t>(identity.token_count);
  slot.state.store(State::Complete, std::memory_order_relaxed);
}

void BlockStore::uncomplete(BlockId id) {
  MutexLock lock(mutex_);
  slots_[id].priority = 0;
  if (metadata_.table()) metadata_.table()->reset(metadata_.at(id));
  slots_[id].state.store(State::Mutable, std::memory_order_relaxed);
}

Result<std::size_t> BlockStore::register_blocks(std::span<BlockId> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!is_complete(ids[i])) return Error{ErrorCode::BlockNotComplete, 0, i, ids.size(), {}};
  }

  MutexLock lock(mutex_);
  std::size_t fresh = 0;
  for (BlockId& id : ids) {
    Slot& slot = slots_[id];
    const BlockId primary = registry_.find(slot.hash);
    if (primary != kNoBlock) {
      hold_locked(primary);
      if (duplicates_ == BlockRegistrationDuplicationSetting::Allowed) {
        slot.parent = primary;  // with the hold just taken
        slot.state.store(State::Duplicate, std::memory_order_relaxed);
      } else {
        release_locked(id);
        id = primary;
      }
      continue;
    }
    registry_.insert(slot.hash, id);
    slot.state.store(State::Registered, std::memory_order_relaxed);
    link(id);
    note(BlockEvent::Kind::Registered, id);
    ++fresh;
  }
  counters_.registrations += fresh;
  counters_.duplicates += ids.size() - fresh;
  publish();
  return fresh;
}

// Ties a block that was just registered, and is held, to its parent and to children that were here
// before it. Positions must be consecutive: hashes of crafted prompts could name a cycle, which
// would pin itself for ever; positions cannot.
void BlockStore::link(BlockId id) {
  Slot& slot = slots_[id];
  slot.parent = kNoBlock;
  if (slot.position > 0) {
    const BlockId parent = registry_.find(slot.parent_hash);
    if (parent == kNoBlock || slots_[parent].position + 1 != slot.position) {
      registry_.add_orphan(slot.parent_hash, id);
    } else {
      const bool was_pinned = is_pinned(slots_[parent]);
      slot.parent = parent;
      ++slots_[parent].children;
      ++slots_[parent].pinned_children;
      if (!was_pinned) pin(parent);
    }
  }
  registry_.adopt_orphans(slot.hash, [&](BlockId orphan) {
    if (slots_[orphan].position != slot.position + 1) return false;
    slots_[orphan].parent = id;
    ++slot.children;
    if (is_pinned(slots_[orphan])) ++slot.pinned_children;
    return true;
  });
}

// Cuts the ties of an evictable leaf and takes it out of the registry.
void BlockStore::unlink(BlockId id) noexcept {
  Slot& slot = slots_[id];
  if (slot.parent != kNoBlock) {
    --slots_[slot.parent].children;
    slot.parent = kNoBlock;
  } else if (slot.position > 0) {
    registry_.remove_orphan(slot.parent_hash, id);
  }
  if (slot.state.load(std::memory_order_relaxed) == State::Registered) registry_.erase(slot.hash);
}

void BlockStore::detach(BlockId id) {
  MutexLock lock(mutex_);
  Slot& slot = slots_[id];
  if (slot.state.load(std::memory_order_relaxed) != State::Registered) return;
  note(BlockEvent::Kind::Evicted, id);
  registry_.erase(slot.hash);
  slot.state.store(State::Detached, std::memory_order_relaxed);
  ++counters_.detached;
  publish();
}

void BlockStore::free_slot(BlockId id) noexcept {
  Slot& slot = slots_[id];
  slot.state.store(State::Free, std::memory_order_relaxed);
  slot.parent = kNoBlock;
  slot.priority = 0;
  if (metadata_.table()) metadata_.table()->reset(metadata_.at(id));
  on_returned(id);
  push_back(free_, id);
}

ResetCounts BlockStore::reset() {
  MutexLock lock(mutex_);
  ResetCounts counts;
  for (; evictable_.head != kNoBlock; ++counts.freed) evict(evictable_.head);
  for (BlockId id = 0; id < capacity_; ++id) {
    Slot& slot = slots_[id];
    if (slot.state.load(std::memory_order_relaxed) != State::Registered) continue;
    note(BlockEvent::Kind::Evicted, id);
    registry_.erase(slot.hash);
    slot.state.store(State::Detached, std::memory_order_relaxed);
    ++counts.still_held;
  }
  publish();
  return counts;
}

// --- metadata and events ---------------------------------------------------------------------

void BlockStore::on_acquired(BlockId id) noexcept {
  slots_[id].acquired_tick = static_cast<std::uint32_t>(++tick_);
  if (metadata_.table()) metadata_.table()->on_acquired(metadata_.at(id), tick_);
}

void BlockStore::on_returned(BlockId id) noexcept {
  slots_[id].returned_tick = static_cast<std::uint32_t>(++tick_);
  if (metadata_.table()) metadata_.table()->on_returned(metadata_.at(id), tick_);
}

// A slot keeps the low half of a tick; the whole one is the latest that ends so.
std::uint64_t BlockStore::widen(std::uint32_t tick) const noexcept {
  return tick_ - static_cast<std::uint32_t>(static_cast<std::uint32_t>(tick_) - tick);
}

BasicMetadata BlockStore::basic_metadata(BlockId id) const {
  MutexLock lock(mutex_);
  const Slot& slot = slots_[id];
  return {slot.priority, widen(slot.returned_tick), widen(slot.acquired_tick)};
}

void BlockStore::set_priority(BlockId id, std::uint32_t priority) {
  MutexLock lock(mutex_);
  slots_[id].priority = priority;
}

std::optional<std::uint64_t> BlockStore::offload_priority(BlockId id) const {
  MutexLock lock(mutex_);
  if (metadata_.table()) return metadata_.table()->offload_priority(metadata_.at(id));
  return slots_[id].priority;
}

void BlockStore::copy_metadata(BlockId to, const BlockStore& from, BlockId source) {
  if (metadata_.table()) {
    metadata_.table()->copy(metadata_.at(to), from.metadata_.at(source));
  } else {
    set_priority(to, from.basic_metadata(source).priority);
  }
}

void BlockStore::note(BlockEvent::Kind kind, BlockId id) {
  if (!events_) return;
  const bool named = kind != BlockEvent::Kind::Allocated;
  noted_.push_back({kind, tier_, id, named ? slots_[id].hash : SequenceHash()});
}

// Under the mutex, so that the sink has events of different calls in the order of the changes.
void BlockStore::publish() noexcept {
  if (noted_.empty()) return;
  events_->put(noted_);
  noted_.clear();
}

// --- matching --------------------------------------------------------------------------------

RunRef BlockStore::match_run(std::span<const SequenceHash> chain) {
  MutexLock lock(mutex_);
  RunRef run;
  for (const SequenceHash hash : chain) {
    const BlockId id = registry_.find(hash);
    if (id == kNoBlock) break;
    if (run.count > 0 && slots_[id].parent != run.deepest) break;
    run.deepest = id;
    ++run.count;
  }
  if (run.count > 0) hold_locked(run.deepest);
  counters_.matches += run.count;
  if (events_) {
    for (const SequenceHash hash : chain.first(run.count)) {
      note(BlockEvent::Kind::Matched, registry_.find(hash));
    }
    publish();
  }
  return run;
}

std::size_t BlockStore::match(std::span<const SequenceHash> hashes, std::span<BlockId> out) {
  MutexLock lock(mutex_);
  std::size_t hits = 0;
  for (const SequenceHash hash : hashes) {
    const BlockId id = registry_.find(hash);
    if (id == kNoBlock) break;
    hold_locked(id);
    note(BlockEvent::Kind::Matched, id);
    out[hits++] = id;
  }
  counters_.matches += hits;
  publish();
  return hits;
}

void BlockStore::scan(std::span<const SequenceHash> hashes,
                      std::vector<std::pair<std::size_t, BlockId>>& found) {
  found.reserve(found.size() + hashes.size());
  MutexLock lock(mutex_);
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    const BlockId id = registry_.find(hashes[i]);
    if (id == kNoBlock) continue;
    hold_locked(id);
    note(BlockEvent::Kind::Matched, id);
    ++counters_.matches;
    found.emplace_back(i, id);
  }
  publish();
}

std::size_t BlockStore::touch(std::span<const SequenceHash> hashes) {
  MutexLock lock(mutex_);
  std::size_t hits = 0;
  for (const SequenceHash hash : hashes) {
    const BlockId id = registry_.find(hash);
    if (id == kNoBlock) break;
    hold_locked(id);
    ++hits;
  }
  // Held together and dropped together: that is what puts children before their parents.
  for (const SequenceHash hash : hashes.first(hits)) release_locked(registry_.find(hash));
  return hits;
}

bool BlockStore::contains(SequenceHash hash) const {
  MutexLock lock(mutex_);
  return registry_.find(hash) != kNoBlock;
}

void BlockStore::run_ids(BlockId deepest, std::span<BlockId> out) const noexcept {
  // The first block's parent is outside the run and may change, so it is never read.
  for (std::size_t i = out.size(); i > 0; --i) {
    out[i - 1] = deepest;
    if (i > 1) deepest = slots_[deepest].parent;
  }
}

// --- queries ---------------------------------------------------------------------------------

BlockIdentity BlockStore::identity(BlockId id) const noexcept {
  const Slot& slot = slots_[id];
  return {slot.hash, slot.parent_hash, slot.position, slot.token_count};
}

bool BlockStore::is_complete(BlockId id) const noexcept {
  return slots_[id].state.load(std::memory_order_relaxed) == State::Complete;
}

std::size_t BlockStore::available_blocks() const {
  MutexLock lock(mutex_);
  return free_.size + evictable_.size;
}

BlockStoreStats BlockStore::stats() const {
  MutexLock lock(mutex_);
  BlockStoreStats stats = counters_;
  stats.total = total_blocks();
  stats.free = free_.size;
  stats.available = free_.size + evictable_.size;
  stats.registered = registry_.size();
  return stats;
}

}  // namespace kvbm
