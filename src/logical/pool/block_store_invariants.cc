// What must always be true of a block store, checked from scratch.
#include <cstdio>
#include <cstdlib>

#include "logical/pool/block_store.h"

namespace kvbm {
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
  std::vector<Place> place(capacity_, Place::Neither);
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
  std::size_t present = 0;
  for (BlockId id = 0; id < capacity_; ++id) {
    const Slot& slot = slots_[id];
    const State state = slot.state.load(std::memory_order_relaxed);
    const bool is_linked = state == State::Registered || state == State::Detached;
    if (slot.holds.load(std::memory_order_relaxed) > 0) ++held;
    if (state != State::Absent) ++present;
    if (state == State::Duplicate) {
      require(slot.holds.load(std::memory_order_relaxed) > 0, "a duplicate is held", id);
      require(slots_[slot.parent].hash == slot.hash, "a duplicate holds its like", id);
    }
    require((place[id] == Place::Free) == (state == State::Free), "free blocks are listed", id);
    require((place[id] == Place::Evictable) == (is_linked && !is_pinned(slot)),
            "evictable = registered and not pinned", id);
    if (state == State::Mutable || state == State::Complete) {
      require(slot.holds.load(std::memory_order_relaxed) == 1,
              "a block in the making has one owner", id);
    }
  }
  require(held_ == held, "held_ counts the blocks with holds", kNoBlock);
  require(total_blocks() == present, "the total counts the blocks that are there", kNoBlock);
  require(noted_.empty(), "no event is left behind", kNoBlock);
}

void BlockStore::check_links() const {
  std::vector<std::uint32_t> children(capacity_, 0);
  std::vector<std::uint32_t> pinned(capacity_, 0);
  std::vector<std::size_t> rank(capacity_, 0);
  std::size_t next_rank = 1;
  for (BlockId id = evictable_.head; id != kNoBlock; id = slots_[id].next) rank[id] = next_rank++;

  std::size_t registered = 0;
  std::size_t orphans = 0;
  for (BlockId id = 0; id < capacity_; ++id) {
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
  for (BlockId id = 0; id < capacity_; ++id) {
    const State state = slots_[id].state.load(std::memory_order_relaxed);
    if (state != State::Registered && state != State::Detached) continue;
    require(slots_[id].children == children[id], "children are counted", id);
    require(slots_[id].pinned_children == pinned[id], "pinned children are counted", id);
  }
  require(registry_.size() == registered, "the registry holds the registered blocks", kNoBlock);
  require(registry_.orphan_count() == orphans, "orphans are listed", kNoBlock);
}

}  // namespace kvbm
