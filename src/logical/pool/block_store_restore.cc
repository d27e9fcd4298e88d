// Taking in blocks that survived the process that had put them.
#include <algorithm>
#include <array>
#include <cassert>

#include "logical/pool/block_store.h"

namespace kvbm {
namespace {

// Blocks whose cells or parents are fetched ahead.
constexpr std::size_t kLead = 32;

}  // namespace

// A row is written once and in full. Nothing is looked up here: that waits until all rows are
// there.
void BlockStore::restore(std::span<const RestoredBlock> blocks) {
  MutexLock lock(mutex_);
  for (const RestoredBlock& block : blocks) {
    const BlockId id = block.id;
    assert(id < ready_ && table_.stage(id) == BlockStage::Absent);
    assert(block.priority <= MAX_PRIORITY);
    complete(id, block.identity);
    table_.set_parent(id, block.parent_guess);
    table_.rest(id).priority = static_cast<std::uint8_t>(block.priority);
    special_ += block.priority != DEFAULT_PRIORITY ? 1 : 0;
    table_.ties(id).holds.store(1, std::memory_order_relaxed);
    if (metadata_.table()) metadata_.table()->on_acquired(metadata_.at(id), tick_);
  }
  held_ += blocks.size();
  total_.fetch_add(blocks.size(), std::memory_order_relaxed);
}

std::vector<BlockId> BlockStore::finish_restore(const RestoredAges* ages) {
  MutexLock lock(mutex_);
  std::vector<BlockId> refused = register_restored(ages);
  tie_restored();
  total_.store(capacity(), std::memory_order_relaxed);
  return refused;
}

// Of two with one name, one is Absent again. The order is told when it is known which.
std::vector<BlockId> BlockStore::register_restored(const RestoredAges* ages) {
  std::vector<BlockId> refused;
  const BlockRows rows = table_;
  for (BlockId id = 0; id < capacity(); ++id) {
    if (id + kLead < capacity()) index_.prefetch_cell(rows.hash(id + kLead));
    const BlockTag tag = rows.tag(id);
    if (tag.stage != BlockStage::Complete) continue;
    const BlockId other = find(rows.hash(id), tag.name_space);
    if (other != kNoBlock) {
      const bool replaces = ages && ages->is_newer(id, other);
      const BlockId loser = replaces ? other : id;
      if (replaces) index_.erase(other);
      special_ -= is_special(loser) ? 1 : 0;
      rows.ties(loser).holds.store(0, std::memory_order_relaxed);
      rows.set_tag(loser, {.stage = BlockStage::Absent});
      --held_;
      refused.push_back(loser);
      if (!replaces) continue;
      --namespaces_[tag.name_space].registered;
    }
    index_.insert(id);
    rows.set_stage(id, BlockStage::Registered);
    ++namespaces_[tag.name_space].registered;
  }
  for (BlockId id = 0; order_wants_paths_ && id < capacity(); ++id) {
    if (rows.stage(id) == BlockStage::Registered) order_->registered(id);
  }
  std::sort(refused.begin(), refused.end());
  return refused;
}

// Backwards, because the block that was freed last is the first to be taken. A guess that is right
// saves a probe of the index, and the rows that it leads to are known early.
void BlockStore::tie_restored() {
  std::array<BlockId, kLead> unknown;
  std::size_t count = 0;
  const BlockRows rows = table_;
  const auto limit = static_cast<BlockId>(capacity());
  for (BlockId id = limit; id-- > 0;) {
    if (id >= kLead) {
      const BlockId soon = rows.parent(id - static_cast<BlockId>(kLead));
      if (soon < limit) {
        __builtin_prefetch(&rows.name(soon));
        __builtin_prefetch(&rows.rest(soon));
        __builtin_prefetch(&rows.ties(soon), 1);
      }
    }
    if (rows.stage(id) == BlockStage::Absent) {
      add_block(id);
      continue;
    }
    const BlockId guess = rows.parent(id);
    if (rows.rest(id).position == 0) {
      rows.set_parent(id, kNoBlock);
    } else if (guess < limit && is_parent(guess, id)) {
      tie(id, guess);
    } else {
      index_.prefetch_cell(rows.parent_hash(id));
      unknown[count++] = id;
      if (count < unknown.size()) continue;
      tie_by_name(unknown);
      count = 0;
    }
  }
  tie_by_name(std::span(unknown).first(count));
}

// At most kLead, whose cells were fetched: first their candidates, and those rows, then the truth.
void BlockStore::tie_by_name(std::span<const BlockId> ids) {
  std::array<BlockId, kLead> parents;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    parents[i] = index_.candidate(table_.parent_hash(ids[i]));
    if (parents[i] == kNoBlock) continue;
    __builtin_prefetch(&table_.name(parents[i]));
    __builtin_prefetch(&table_.rest(parents[i]));
    __builtin_prefetch(&table_.ties(parents[i]), 1);
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const BlockId id = ids[i];
    const SequenceHash parent_hash = table_.parent_hash(id);
    BlockId parent = parents[i];
    if (parent != kNoBlock && !is_parent(parent, id)) {
      parent = find(parent_hash, table_.tag(id).name_space);
    }
    if (parent != kNoBlock && is_parent(parent, id)) {
      tie(id, parent);
    } else {
      table_.set_parent(id, kNoBlock);
      orphans_.add(parent_hash, id);
    }
  }
}

// Every restored block is held, so the parent is pinned already and the child pins it once more.
void BlockStore::tie(BlockId id, BlockId parent) noexcept {
  table_.set_parent(id, parent);
  BlockTies& ties = table_.ties(parent);
  ++ties.children;
  ++ties.pinned_children;
}

void BlockStore::announce(std::span<const BlockId> ids) {
  if (!events_) return;
  MutexLock lock(mutex_);
  for (const BlockId id : ids) {
    const BlockTag tag = table_.tag(id);
    const bool can_be_matched = tag.stage == BlockStage::Registered && is_current(tag);
    if (can_be_matched) note(BlockEvent::Kind::Registered, id);
  }
  publish();
}

}  // namespace kvbm
