#include "logical/pool/block_store.h"

#include <cassert>
#include <cstdio>
#include <cstdlib>

namespace kvbm {

Result<BlockStore::Owner> BlockStore::create(std::size_t total_blocks,
                                             std::shared_ptr<const void> backing) {
  if (total_blocks == 0 || total_blocks >= kNoBlock) {
    return Error{ErrorCode::InvalidConfig, 0, total_blocks, kNoBlock - 1,
                 "a pool must have 1 .. 2^32 - 2 blocks"};
  }
  return Owner(new BlockStore(total_blocks, std::move(backing)));
}

BlockStore::BlockStore(std::size_t total_blocks, std::shared_ptr<const void> backing)
    : total_(total_blocks),
      backing_(std::move(backing)),
      slots_(std::make_unique<Slot[]>(total_blocks)),
      registry_(total_blocks) {
  MutexLock lock(mutex_);
  for (BlockId id = 0; id < total_; ++id) push_back(free_, id);
}

void BlockStore::close() noexcept {
  bool last = false;
  {
    MutexLock lock(mutex_);
    closed_ = true;
    last = held_ == 0;
  }
  if (last) delete this;
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
    // A match may have taken a hold since the load above; then this is not the last.
    if (slot.holds.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    --held_;
    const State state = slot.state.load(std::memory_order_relaxed);
    if (state == State::Mutable || state == State::Complete) {
      free_slot(id);
    } else if (slot.pinned_children == 0) {
      unpin(id);
    }
    last_of_all = closed_ && held_ == 0;
  }
  if (last_of_all) delete this;
}

// --- transitions -----------------------------------------------------------------------------

Result<void> BlockStore::allocate(std::span<BlockId> out) {
  MutexLock lock(mutex_);
  const std::size_t available = free_.size + evictable_.size;
  if (out.size() > available) {
    return Error{ErrorCode::NotEnoughBlocksAvailable, 0, out.size(), available, {}};
  }
  for (BlockId& id : out) {
    id = free_.head;
    if (id != kNoBlock) {
      remove(free_, id);
    } else {
      id = evict_coldest();
    }
    slots_[id].state.store(State::Mutable, std::memory_order_relaxed);
    slots_[id].holds.store(1, std::memory_order_relaxed);
    ++held_;
  }
  counters_.allocations += out.size();
  return {};
}

BlockId BlockStore::evict_coldest() noexcept {
  const BlockId id = evictable_.head;
  assert(slots_[id].children == 0);
  remove(evictable_, id);
  unlink(id);
  ++counters_.evictions;
  return id;
}

void BlockStore::complete(BlockId id, const BlockIdentity& identity) {
  Slot& slot = slots_[id];
  slot.hash = identity.sequence_hash;
  slot.parent_hash = identity.parent_hash;
  slot.position = identity.position;
  slot.token_count = identity.token_count;
  slot.state.store(State::Complete, std::memory_order_relaxed);
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
      slot.holds.store(0, std::memory_order_relaxed);
      --held_;
      free_slot(id);
      id = primary;
      continue;
    }
    registry_.insert(slot.hash, id);
    slot.state.store(State::Registered, std::memory_order_relaxed);
    link(id);
    ++fresh;
  }
  counters_.registrations += fresh;
  counters_.duplicates += ids.size() - fresh;
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
  registry_.erase(slot.hash);
  slot.state.store(State::Detached, std::memory_order_relaxed);
  ++counters_.detached;
}

void BlockStore::free_slot(BlockId id) noexcept {
  slots_[id].state.store(State::Free, std::memory_order_relaxed);
  push_back(free_, id);
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
  return run;
}

std::size_t BlockStore::match(std::span<const SequenceHash> hashes, std::span<BlockId> out) {
  MutexLock lock(mutex_);
  std::size_t hits = 0;
  for (const SequenceHash hash : hashes) {
    const BlockId id = registry_.find(hash);
    if (id == kNoBlock) break;
    hold_locked(id);
    out[hits++] = id;
  }
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
  stats.total = total_;
  stats.available = free_.size + evictable_.size;
  stats.registered = registry_.size();
  return stats;
}

// --- invariants ------------------------------------------------------------------------------

namespace {

void require(bool condition, const char* what, BlockId id) {
  if (condition) return;
  std::fprintf(stderr, "kvbm: block store invariant broken: %s (block %u)\n", what, id);
  std::abort();
}

}  // namespace

void BlockStore::check_invariants() const {
  MutexLock lock(mutex_);
  check_lists();
  check_links();
}

// Every block is in exactly one place: free, evictable, or pinned.
void BlockStore::check_lists() const {
  enum class Place : std::uint8_t { Neither, Free, Evictable };
  std::vector<Place> place(total_, Place::Neither);
  const auto walk = [&](const List& list, Place kind) {
    std::size_t count = 0;
    BlockId previous = kNoBlock;
    for (BlockId id = list.head; id != kNoBlock; id = slots_[id].next) {
      require(place[id] == Place::Neither, "a block is in one list, once", id);
      require(slots_[id].prev == previous, "list links agree in both directions", id);
      place[id] = kind;
      previous = id;
      ++count;
    }
    require(list.tail == previous, "the tail is the last block", previous);
    require(list.size == count, "the list's size is its length", previous);
  };
  walk(free_, Place::Free);
  walk(evictable_, Place::Evictable);

  std::size_t held = 0;
  for (BlockId id = 0; id < total_; ++id) {
    const Slot& slot = slots_[id];
    const State state = slot.state.load(std::memory_order_relaxed);
    const bool is_linked = state == State::Registered || state == State::Detached;
    if (slot.holds.load(std::memory_order_relaxed) > 0) ++held;
    require((place[id] == Place::Free) == (state == State::Free), "free blocks are listed", id);
    require((place[id] == Place::Evictable) == (is_linked && !is_pinned(slot)),
            "evictable = registered and not pinned", id);
    if (state == State::Mutable || state == State::Complete) {
      require(slot.holds.load(std::memory_order_relaxed) == 1,
              "a block in the making has one owner", id);
    }
  }
  require(held_ == held, "held_ counts the blocks with holds", kNoBlock);
}

void BlockStore::check_links() const {
  std::vector<std::uint32_t> children(total_, 0);
  std::vector<std::uint32_t> pinned(total_, 0);
  std::vector<std::size_t> rank(total_, 0);
  std::size_t next_rank = 1;
  for (BlockId id = evictable_.head; id != kNoBlock; id = slots_[id].next) rank[id] = next_rank++;

  std::size_t registered = 0;
  std::size_t orphans = 0;
  for (BlockId id = 0; id < total_; ++id) {
    const Slot& slot = slots_[id];
    const State state = slot.state.load(std::memory_order_relaxed);
    if (state != State::Registered && state != State::Detached) continue;
    if (state == State::Registered) {
      ++registered;
      require(registry_.find(slot.hash) == id, "a registered block is found by its hash", id);
    }
    if (slot.parent == kNoBlock) {
      if (slot.position > 0) ++orphans;
      continue;
    }
    const Slot& parent = slots_[slot.parent];
    require(parent.hash == slot.parent_hash, "the parent is the one that was named", id);
    require(parent.position + 1 == slot.position, "a parent stands just before its child", id);
    ++children[slot.parent];
    if (is_pinned(slot)) ++pinned[slot.parent];
    if (rank[id] != 0 && rank[slot.parent] != 0) {
      require(rank[id] < rank[slot.parent], "an evictable child goes before its parent", id);
    }
  }
  for (BlockId id = 0; id < total_; ++id) {
    const State state = slots_[id].state.load(std::memory_order_relaxed);
    if (state != State::Registered && state != State::Detached) continue;
    require(slots_[id].children == children[id], "children are counted", id);
    require(slots_[id].pinned_children == pinned[id], "pinned children are counted", id);
  }
  require(registry_.size() == registered, "the registry holds the registered blocks", kNoBlock);
  require(registry_.orphan_count() == orphans, "orphans are listed", kNoBlock);
}

}  // namespace kvbm
