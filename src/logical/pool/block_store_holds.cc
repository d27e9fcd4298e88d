// Taking blocks and giving them back: holds, pins, allocation and eviction.
#include <algorithm>
#include <cassert>

#include "logical/pool/block_store.h"

namespace kvbm {
namespace {

// Ancestors that are fetched ahead of a climb.
constexpr int kLead = 8;

}  // namespace

// --- holds and pins --------------------------------------------------------------------------

void BlockStore::count_evictable(BlockId id, std::int64_t change, std::int64_t matchable) noexcept {
  evictable_ += static_cast<std::size_t>(change);
  const BlockTag tag = table_.tag(id);
  if (is_current(tag)) {
    namespaces_[tag.name_space].evictable += static_cast<std::uint32_t>(matchable);
  }
}

// The block has just become pinned. Climbs until an ancestor already was.
void BlockStore::pin(BlockId id, Use use) noexcept {
  const BlockRows rows = table_;
  std::int64_t count = 0;
  std::int64_t matchable = 0;
  const BlockId first = id;
  BlockId ahead = id;
  int lead = 0;
  for (;;) {
    const std::uint64_t word = rows.tag_word(id);
    if (rows.ties(id).listed) use == Use::Yes ? order_->pinned(id) : order_->borrowed(id);
    ++count;
    matchable += static_cast<BlockStage>(word & 0xff) == BlockStage::Registered;
    const auto parent = static_cast<BlockId>(word >> 32);
    if (parent == kNoBlock) break;
    const bool was_pinned = rows.is_pinned(parent);
    ++rows.ties(parent).pinned_children;
    if (was_pinned) break;
    // Where a chain lies scattered, its rows are fetched some ancestors ahead.
    if (parent + 1 != id && parent != id + 1) {
      for (; lead < kLead && ahead != kNoBlock; ++lead) {
        ahead = rows.parent(ahead);
        if (ahead != kNoBlock) __builtin_prefetch(&rows.ties(ahead));
      }
    }
    lead -= lead > 0 ? 1 : 0;
    id = parent;
  }
  count_evictable(first, -count, -matchable);
}

// The block has just become unpinned, and with it the path up to the first ancestor that is pinned.
void BlockStore::unpin(BlockId id, Use use) noexcept {
  const BlockRows rows = table_;
  std::int64_t count = 0;
  std::int64_t matchable = 0;
  const BlockId first = id;
  std::uint64_t tick = tick_;
  for (;;) {
    const std::uint64_t word = rows.tag_word(id);
    if (use == Use::Yes) {
      rows.ties(id).returned_tick = static_cast<std::uint32_t>(++tick);
      if (metadata_.table()) metadata_.table()->on_returned(metadata_.at(id), tick);
    }
    ++count;
    matchable += static_cast<BlockStage>(word & 0xff) == BlockStage::Registered;
    const auto parent = static_cast<BlockId>(word >> 32);
    if (parent == kNoBlock) break;
    BlockTies& ties = rows.ties(parent);
    --ties.pinned_children;
    if (rows.is_pinned(parent)) break;
    id = parent;
  }
  tick_ = tick;
  count_evictable(first, count, matchable);
  if (use == Use::Yes) {
    put_path_in_order(first, static_cast<std::size_t>(count));
  } else {
    order_->given_back(first, level_of(first));  // those above it are no leaves
  }
}

void BlockStore::put_path_in_order(BlockId deepest, std::size_t length) noexcept {
  if (order_wants_paths_) {
    path_.clear();
    BlockId id = deepest;
    for (std::size_t i = 0; i < length; ++i, id = table_.parent(id)) path_.push_back(id);
    order_->released(path_);
  }
  std::size_t level = level_of(deepest);
  order_->add(deepest, level);
  // Where the level changes along the path, the upper part gets a place of its own now: when the
  // lower part is evicted, its time in that level would be forgotten.
  BlockId id = deepest;
  for (std::size_t i = 1; i < length && special_ > 0; ++i) {
    id = table_.parent(id);
    if (level_of(id) == level) continue;
    level = level_of(id);
    order_->add(id, level);
  }
  if (order_wants_paths_) order_->added(path_);
}

void BlockStore::hold_locked(BlockId id) noexcept {
  // Other threads may raise or lower a count above 0 meanwhile; from 0 only this one, under the
  // mutex, can.
  if (table_.ties(id).holds.fetch_add(1, std::memory_order_relaxed) == 0) became_held(id);
}

void BlockStore::became_held(BlockId id) noexcept {
  ++held_;
  if (table_.ties(id).pinned_children == 0) pin(id);
}

void BlockStore::add_hold(BlockId id) noexcept {
  std::atomic<std::uint32_t>& holds = table_.ties(id).holds;
  std::uint32_t seen = holds.load(std::memory_order_relaxed);
  while (seen > 0) {
    if (holds.compare_exchange_weak(seen, seen + 1, std::memory_order_relaxed)) return;
  }
  meet(RaceWindow::FirstHold);
  MutexLock lock(mutex_);  // a member of a run, pinned by its child only
  hold_locked(id);
}

// One of several holds: no lock. Release order, so that this reader's loads of the block happen
// before the next owner's stores to it. `seen` is a guess at the count. False: it is the last hold.
bool BlockStore::release_one_of_many(BlockId id, std::uint32_t seen) noexcept {
  while (seen > 1) {
    if (table_.ties(id).holds.compare_exchange_weak(seen, seen - 1, std::memory_order_release,
                                                    std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

void BlockStore::release(BlockId id) noexcept {
  const std::uint32_t seen = table_.ties(id).holds.load(std::memory_order_relaxed);
  assert(seen > 0);
  if (seen > 1 && release_one_of_many(id, seen)) return;
  meet(RaceWindow::LastRelease);
  bool last_of_all = false;
  {
    MutexLock lock(mutex_);
    if (free_unregistered({&id, 1}) == 1) {
      --held_;
    } else {
      release_locked(id);
    }
    last_of_all = closed_ && held_ == 0 && weak_ == 0;
  }
  if (last_of_all) delete this;
}

void BlockStore::release(std::span<const BlockId> ids) noexcept {
  const BlockRows rows = table_;
  while (!ids.empty()) {
    const std::uint32_t seen = rows.ties(ids[0]).holds.load(std::memory_order_relaxed);
    assert(seen > 0);
    if (!release_one_of_many(ids[0], seen)) break;
    ids = ids.subspan(1);
  }
  if (ids.empty()) return;
  meet(RaceWindow::LastRelease);

  bool last_of_all = false;
  {
    MutexLock lock(mutex_);
    while (!ids.empty()) {
      const std::size_t freed = free_unregistered(ids);
      held_ -= freed;
      ids = ids.subspan(freed);
      if (ids.empty()) break;
      release_locked(ids[0]);
      ids = ids.subspan(1);
    }
    last_of_all = closed_ && held_ == 0 && weak_ == 0;
  }
  if (last_of_all) delete this;
}

// True if it was the last hold of the block.
bool BlockStore::release_locked(BlockId id, Use use) noexcept {
  BlockTies& ties = table_.ties(id);
  // Not a load and a store: even where the caller's hold is the only one, whoever holds a run
  // through this block may add another without the mutex, as long as the count is above 0.
  if (ties.holds.fetch_sub(1, std::memory_order_acq_rel) != 1) return false;
  --held_;
  switch (table_.stage(id)) {
    case BlockStage::Registered:
    case BlockStage::Detached:
      if (ties.pinned_children == 0) unpin(id, use);
      break;
    case BlockStage::Duplicate: {
      const BlockId primary = table_.parent(id);
      free_block(id);
      if (primary != kNoBlock) release_locked(primary);
      break;
    }
    default: free_block(id);
  }
  return true;
}

// --- holds that are no use ---------------------------------------------------------------------

void BlockStore::set_borrowed(BlockId id, bool borrowed) noexcept {
  std::uint8_t& flags = table_.rest(id).flags;
  special_ -= is_special(id) ? 1 : 0;
  flags = static_cast<std::uint8_t>(borrowed ? flags | block_flags::kBorrowed
                                             : flags & ~block_flags::kBorrowed);
  special_ += is_special(id) ? 1 : 0;
}

BlockId BlockStore::borrow(const detail::BlockKey& key) {
  MutexLock lock(mutex_);
  const BlockId id = find(key.hash, key.name_space);
  if (id == kNoBlock || table_.rest(id).digest != key.digest) return kNoBlock;
  BlockTies& ties = table_.ties(id);
  const bool was_held = ties.holds.fetch_add(1, std::memory_order_relaxed) > 0;
  if (was_held) return id;
  ++held_;
  if (ties.pinned_children > 0) return id;
  set_borrowed(id, true);
  pin(id, Use::No);
  return id;
}

void BlockStore::give_back(BlockId id) noexcept {
  bool last_of_all = false;
  {
    MutexLock lock(mutex_);
    const bool is_borrowed = (table_.rest(id).flags & block_flags::kBorrowed) != 0;
    if (is_borrowed) set_borrowed(id, false);
    release_locked(id, is_borrowed ? Use::No : Use::Yes);
    last_of_all = closed_ && held_ == 0 && weak_ == 0;
  }
  if (last_of_all) delete this;
}

// --- allocation and eviction -----------------------------------------------------------------

Result<std::size_t> BlockStore::allocate(std::span<BlockId> out,
                                         std::vector<SequenceHash>* evicted) {
  MutexLock lock(mutex_);
  if (out.size() > available()) {
    return Error{ErrorCode::NotEnoughBlocksAvailable, 0, out.size(), available(), {}};
  }
  const std::size_t evictions = out.size() - std::min(out.size(), free_);
  if (evicted) evicted->reserve(evicted->size() + evictions);

  ++tick_;
  take_free(out.first(out.size() - evictions));
  if (evictions > 0) evict_into(out.last(evictions), evicted);
  held_ += out.size();
  counters_.allocations += out.size();
  tell_acquired(out);
  if (events_) tell_allocated(out);
  return evictions;
}

BlockId BlockStore::allocate_one() noexcept {
  MutexLock lock(mutex_);
  BlockId id = first_free_;
  ++tick_;
  if (free_ > 0) {
    first_free_ = table_.place(id).next;
    --free_;
    hand_out(table_, id);
  } else if (evictable_ > 0) {
    evict_into({&id, 1}, nullptr);
  } else {
    return kNoBlock;
  }
  ++held_;
  ++counters_.allocations;
  tell_acquired({&id, 1});
  if (events_) tell_allocated({&id, 1});
  return id;
}

// The block, which has no content, becomes Mutable with one hold.
inline void BlockStore::hand_out(const BlockRows& rows, BlockId id) noexcept {
  constexpr BlockTag kTag{.stage = BlockStage::Mutable};
  rows.set_tag(id, kTag);
  rows.ties(id).holds.store(1, std::memory_order_relaxed);
}

void BlockStore::tell_acquired(std::span<const BlockId> ids) noexcept {
  if (metadata_.table()) {
    for (const BlockId id : ids) metadata_.table()->on_acquired(metadata_.at(id), tick_);
  } else {
    std::uint32_t* const ticks = &acquired_ticks_[0];
    const auto tick = static_cast<std::uint32_t>(tick_);
    for (const BlockId id : ids) ticks[id] = tick;
  }
}

void BlockStore::tell_allocated(std::span<const BlockId> ids) {
  for (const BlockId id : ids) note(BlockEvent::Kind::Allocated, id);
  publish();
}

void BlockStore::take_free(std::span<BlockId> out) noexcept {
  const BlockRows rows = table_;
  BlockId next = first_free_;
  for (BlockId& id : out) {
    id = next;
    next = rows.place(id).next;
    hand_out(rows, id);
  }
  first_free_ = next;
  free_ -= out.size();
}

void BlockStore::evict_into(std::span<BlockId> out, std::vector<SequenceHash>* evicted) {
  // Evictions go up a chain; its ancestors' cells are fetched some steps ahead.
  BlockId expected = kNoBlock;
  BlockId ahead = kNoBlock;
  int lead = 0;
  for (BlockId& id : out) {
    id = order_->pop();
    if (id != expected) {
      ahead = id;
      lead = 0;
    }
    for (; lead < kLead && ahead != kNoBlock; ++lead) {
      ahead = table_.parent(ahead);
      if (ahead != kNoBlock) index_.prefetch_cell(table_.hash(ahead));
    }
    --lead;
    expected = table_.parent(id);
    evict(id, evicted);
    hand_out(table_, id);
  }
}

// Strips a leaf, which the order has given, of everything.
void BlockStore::evict(BlockId id, std::vector<SequenceHash>* evicted) {
  const BlockTag tag = table_.tag(id);
  if (order_wants_paths_) order_->evicted(id);
  if (tag.stage == BlockStage::Registered) {
    index_.erase(id);
    if (is_current(tag)) {  // otherwise it was told when it was forgotten
      note(BlockEvent::Kind::Evicted, id);
      if (evicted) evicted->push_back(table_.hash(id));
      ++counters_.evictions;
      --namespaces_[tag.name_space].registered;
    }
  }
  count_evictable(id, -1, tag.stage == BlockStage::Registered ? -1 : 0);
  if (special_ > 0) make_ordinary(id);
  if (tag.parent == kNoBlock) {
    if (table_.rest(id).position > 0) orphans_.remove(id);
  } else {
    BlockTies& ties = table_.ties(tag.parent);
    --ties.children;
    if (ties.children == 0 && !ties.listed && !table_.is_pinned(tag.parent)) {
      order_->add_leaf(tag.parent, level_of(tag.parent));
    }
  }
  if (order_wants_paths_) table_.rest(id).flags = 0;  // what the order has marked
  if (metadata_.table()) metadata_.table()->reset(metadata_.at(id));
}

// Without ties it becomes Free; holds that it has are gone.
void BlockStore::free_block(BlockId id) noexcept {
  const BlockStage stage = table_.stage(id);
  if (stage != BlockStage::Mutable) table_.set_tag(id, {.stage = BlockStage::Mutable});
  free_unregistered({&id, 1});
}

// Frees the first ones that are Mutable or Complete, which have one owner and nothing to undo, and
// returns how many they are.
std::size_t BlockStore::free_unregistered(std::span<const BlockId> ids) noexcept {
  constexpr BlockTag kTag{.stage = BlockStage::Free};
  const BlockRows rows = table_;
  const auto tick = static_cast<std::uint32_t>(++tick_);
  const bool with_special = special_ > 0;
  BlockId next = first_free_;
  if (free_ == 0) last_free_ = ids.front();
  std::size_t count = 0;
  for (const BlockId id : ids) {
    const BlockStage stage = rows.stage(id);
    if (stage != BlockStage::Mutable && stage != BlockStage::Complete) break;
    if (with_special) make_ordinary(id);
    rows.set_tag(id, kTag);
    rows.ties(id).holds.store(0, std::memory_order_relaxed);
    rows.ties(id).returned_tick = tick;
    rows.place(id).next = next;
    next = id;
    ++count;
  }
  first_free_ = next;
  free_ += count;
  if (metadata_.table()) {
    for (const BlockId id : ids.first(count)) {
      metadata_.table()->reset(metadata_.at(id));
      metadata_.table()->on_returned(metadata_.at(id), tick_);
    }
  }
  return count;
}

}  // namespace kvbm
