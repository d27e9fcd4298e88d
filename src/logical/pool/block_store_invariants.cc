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

bool is_linked(BlockStage stage) {
  return stage == BlockStage::Registered || stage == BlockStage::Detached;
}

}  // namespace

void BlockStore::check_invariants() const {
  MutexLock lock(mutex_);
  check_places();
  check_ties();
  check_names();
  check_retention();
  order_->check_invariants();
}

// Every block is free, being made, evictable or pinned, and is counted as that.
void BlockStore::check_places() const {
  std::vector<bool> is_free(capacity(), false);
  std::size_t free = 0;
  for (BlockId id = first_free_; free < free_; id = table_.place(id).next, ++free) {
    require(id < capacity() && !is_free[id], "a free block is listed once", id);
    require(free + 1 < free_ || id == last_free_, "the last free block is known", id);
    is_free[id] = true;
  }

  std::size_t held = 0;
  std::size_t present = 0;
  std::size_t evictable = 0;
  for (BlockId id = 0; id < capacity(); ++id) {
    const BlockTag tag = table_.tag(id);
    const std::uint32_t holds = table_.ties(id).holds.load(std::memory_order_relaxed);
    if (holds > 0) ++held;
    if (tag.stage != BlockStage::Absent) ++present;
    require(is_free[id] == (tag.stage == BlockStage::Free), "free blocks are listed", id);
    if (tag.stage == BlockStage::Mutable || tag.stage == BlockStage::Complete) {
      require(holds == 1, "a block in the making has one owner", id);
    }
    if (tag.stage == BlockStage::Duplicate) {
      require(holds > 0, "a duplicate is held", id);
      require(tag.parent == kNoBlock || table_.hash(tag.parent) == table_.hash(id),
              "a duplicate holds its like", id);
    }
    if (!is_linked(tag.stage)) {
      require(!table_.ties(id).listed, "only a block with content can be evicted", id);
      continue;
    }
    if (table_.is_pinned(id)) continue;
    ++evictable;
    require(table_.ties(id).listed || table_.ties(id).children > 0,
            "an evictable leaf is in the order", id);
  }
  require(held_ == held, "held_ counts the blocks with holds", kNoBlock);
  require(evictable_ == evictable, "evictable_ counts what is not pinned", kNoBlock);
  require(total_blocks() == present + capacity() - ready_,
          "the total counts the blocks that are there, or will be", kNoBlock);
  require(noted_.empty(), "no event is left behind", kNoBlock);
}

void BlockStore::check_ties() const {
  std::vector<std::uint32_t> children(capacity(), 0);
  std::vector<std::uint32_t> pinned(capacity(), 0);
  std::size_t orphans = 0;
  for (BlockId id = 0; id < capacity(); ++id) {
    const BlockTag tag = table_.tag(id);
    if (!is_linked(tag.stage)) continue;
    if (tag.parent == kNoBlock) {
      if (table_.rest(id).position > 0) ++orphans;
      continue;
    }
    const BlockTag parent = table_.tag(tag.parent);
    require(is_linked(parent.stage), "a parent has content", id);
    require(parent.name_space == tag.name_space && parent.epoch == tag.epoch,
            "a chain is of one namespace and epoch", id);
    require(table_.rest(tag.parent).position + 1 == table_.rest(id).position,
            "a parent stands just before its child", id);
    ++children[tag.parent];
    if (table_.is_pinned(id)) ++pinned[tag.parent];
  }
  for (BlockId id = 0; id < capacity(); ++id) {
    require(table_.ties(id).children == children[id], "children are counted", id);
    require(table_.ties(id).pinned_children == pinned[id], "pinned children are counted", id);
  }
  require(orphans_.size() == orphans, "orphans are listed", kNoBlock);
}

void BlockStore::check_names() const {
  std::array<std::uint32_t, 256> registered{};
  std::array<std::uint32_t, 256> evictable{};
  std::size_t named = 0;
  for (BlockId id = 0; id < capacity(); ++id) {
    const BlockTag tag = table_.tag(id);
    if (tag.stage != BlockStage::Registered) continue;
    ++named;
    if (!is_current(tag)) continue;
    ++registered[tag.name_space];
    if (!table_.is_pinned(id)) ++evictable[tag.name_space];
    require(find(table_.hash(id), tag.name_space) == id, "a name finds its block", id);
  }
  require(index_.size() == named, "the index holds the registered blocks", kNoBlock);
  require(index_.is_consistent(), "the index agrees with the table", kNoBlock);
  for (std::size_t i = 0; i < namespaces_.size(); ++i) {
    require(namespaces_[i].registered == registered[i], "a namespace's names are counted",
            kNoBlock);
    require(namespaces_[i].evictable == evictable[i], "a namespace's evictable blocks are counted",
            kNoBlock);
  }
}

void BlockStore::check_retention() const {
  std::size_t special = 0;
  for (BlockId id = 0; id < capacity(); ++id) {
    if (is_special(id) && table_.stage(id) != BlockStage::Absent) ++special;
  }
  require(special_ == special, "blocks of other levels are counted", kNoBlock);
  require(leases_.size() == lease_ends_.size(), "every lease has its end", kNoBlock);
  for (const auto& [id, lease] : leases_) {
    require(table_.is_pinned(lease.id), "a leased block is pinned", lease.id);
    require(lease_ends_.count({lease.until, id}) == 1, "a lease ends when it says", lease.id);
  }
  require(expiries_.size() == expiry_ends_.size(), "every expiry has its block", kNoBlock);
  for (const auto& [id, until] : expiries_) {
    require(is_special(id), "an expiry ends a priority", id);
    require(expiry_ends_.count({until, id}) == 1, "a priority ends when it says", id);
  }
}

}  // namespace kvbm
