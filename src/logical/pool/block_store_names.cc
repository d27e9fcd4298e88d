// Naming and registering blocks, and forgetting their names.
#include <algorithm>

#include "logical/pool/block_store.h"

namespace kvbm {

// --- names -----------------------------------------------------------------------------------

void BlockStore::complete(BlockId id, const BlockIdentity& identity) {
  table_.name(id).hash.store(identity.sequence_hash.value(), std::memory_order_relaxed);
  table_.set_parent_hash(id, identity.parent_hash);
  BlockRest& rest = table_.rest(id);
  rest.digest = identity.digest;
  rest.position = identity.position;
  rest.token_count = static_cast<std::uint16_t>(identity.token_count);
  const std::uint16_t epoch =
      namespaces_[identity.name_space].epoch.load(std::memory_order_relaxed);
  meet(RaceWindow::Naming);
  table_.set_tag(id, {.epoch = identity.forgotten ? kNoEpoch : epoch,
                      .name_space = identity.name_space,
                      .stage = BlockStage::Complete});
}

void BlockStore::uncomplete(BlockId id) {
  MutexLock lock(mutex_);
  if (special_ > 0) make_ordinary(id);
  if (metadata_.table()) metadata_.table()->reset(metadata_.at(id));
  table_.set_tag(id, {.stage = BlockStage::Mutable});
}

bool BlockStore::is_complete(BlockId id) const noexcept {
  return table_.stage(id) == BlockStage::Complete;
}

Result<std::size_t> BlockStore::register_blocks(std::span<BlockId> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!is_complete(ids[i])) return Error{ErrorCode::BlockNotComplete, 0, i, ids.size(), {}};
  }

  meet(RaceWindow::Registration);
  constexpr std::size_t kLead = 16;
  MutexLock lock(mutex_);
  const std::uint64_t before = counters_.registrations;
  for (std::size_t i = 0; i < std::min(kLead, ids.size()); ++i) {
    index_.prefetch_cell(table_.hash(ids[i]));
  }
  BlockId previous = kNoBlock;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i + kLead < ids.size()) index_.prefetch_cell(table_.hash(ids[i + kLead]));
    ids[i] = register_locked(ids[i], previous);
    previous = ids[i];
  }
  publish();
  return static_cast<std::size_t>(counters_.registrations - before);
}

// Returns the block that the caller holds from now on. `before` is a guess at the parent.
BlockId BlockStore::register_locked(BlockId id, BlockId before) {
  const BlockTag tag = table_.tag(id);
  if (!is_current(tag)) {  // its namespace was reset since it was named
    make_duplicate(id, kNoBlock);
    return id;
  }
  const BlockId primary = find(table_.hash(id), tag.name_space);
  if (primary == kNoBlock) {
    link(id, before);
    index_.insert(id);
    table_.set_stage(id, BlockStage::Registered);
    ++namespaces_[tag.name_space].registered;
    ++counters_.registrations;
    note(BlockEvent::Kind::Registered, id);
    if (order_wants_paths_) order_->registered(id);
    return id;
  }
  if (table_.rest(primary).digest != table_.rest(id).digest) {
    ++counters_.collisions;  // the same hash, another prefix
    make_duplicate(id, kNoBlock);
    return id;
  }
  ++counters_.duplicates;
  hold_locked(primary);
  if (order_wants_paths_) order_->matched({&primary, 1});
  if (duplicates_ == BlockRegistrationDuplicationSetting::Allowed) {
    make_duplicate(id, primary);
    return id;
  }
  release_locked(id);
  return primary;
}

// A Complete block becomes one that is held only; `primary`, if any, with the hold just taken.
void BlockStore::make_duplicate(BlockId id, BlockId primary) noexcept {
  table_.set_parent(id, primary);
  table_.set_stage(id, BlockStage::Duplicate);
}

// Whether `other` is the parent of a block that is not tied yet. Positions must be consecutive:
// hashes of crafted prompts could name a cycle, which would pin itself for ever; positions cannot.
bool BlockStore::is_parent(BlockId other, BlockId id) const noexcept {
  const BlockTag tag = table_.tag(id);
  const BlockTag its = table_.tag(other);
  return its.stage == BlockStage::Registered && its.name_space == tag.name_space &&
         its.epoch == tag.epoch && table_.hash(other) == table_.parent_hash(id) &&
         table_.rest(other).position + 1 == table_.rest(id).position;
}

// Ties a block that is about to be registered, and is held, to its parent and to children that were
// here before it.
void BlockStore::link(BlockId id, BlockId before) {
  const BlockTag tag = table_.tag(id);
  const std::uint32_t position = table_.rest(id).position;
  const SequenceHash hash = table_.hash(id);
  const SequenceHash parent_hash = table_.parent_hash(id);
  if (position > 0) {
    BlockId parent = before;
    if (parent == kNoBlock || !is_parent(parent, id)) parent = find(parent_hash, tag.name_space);
    if (parent == kNoBlock || !is_parent(parent, id)) {
      orphans_.add(parent_hash, id);
    } else {
      table_.set_parent(id, parent);
      BlockTies& ties = table_.ties(parent);
      const bool was_pinned = table_.is_pinned(parent);
      ++ties.children;
      ++ties.pinned_children;
      if (!was_pinned) pin(parent);
    }
  }
  BlockTies& ties = table_.ties(id);
  orphans_.adopt(hash, [&](BlockId orphan) {
    const BlockTag its = table_.tag(orphan);
    const bool is_child = its.name_space == tag.name_space && its.epoch == tag.epoch &&
                          table_.rest(orphan).position == position + 1;
    if (!is_child) return false;
    table_.set_parent(orphan, id);
    ++ties.children;
    if (table_.is_pinned(orphan)) ++ties.pinned_children;
    return true;
  });
}

void BlockStore::detach(BlockId id) {
  MutexLock lock(mutex_);
  const BlockTag tag = table_.tag(id);
  if (tag.stage != BlockStage::Registered) return;
  index_.erase(id);
  table_.set_stage(id, BlockStage::Detached);
  if (!is_current(tag)) return;  // it was told and counted when it was forgotten
  note(BlockEvent::Kind::Evicted, id);
  --namespaces_[tag.name_space].registered;
  ++counters_.detached;
  publish();
}

// --- epochs ----------------------------------------------------------------------------------

ResetCounts BlockStore::reset_locked(NamespaceId name_space) {
  Namespace& space = namespaces_[name_space];
  const ResetCounts counts{space.evictable, space.registered - space.evictable};
  if (events_ && space.registered > 0) {
    noted_.push_back({.kind = BlockEvent::Kind::Cleared,
                      .tier = tier_,
                      .block_id = 0,
                      .sequence_hash = SequenceHash(),
                      .name_space = name_space});
  }
  space.registered = 0;
  space.evictable = 0;
  const std::uint16_t epoch = space.epoch.load(std::memory_order_relaxed);
  const auto next = static_cast<std::uint16_t>(epoch + 1);
  if (next == kNoEpoch) sweep_epochs(name_space);
  space.epoch.store(next == kNoEpoch ? 0 : next, std::memory_order_relaxed);
  return counts;
}

// The epochs begin anew, so nothing that has a name may carry one of the old ones. Once in 65,535
// resets.
void BlockStore::sweep_epochs(NamespaceId name_space) noexcept {
  for (std::size_t i = 0; i < capacity(); ++i) {
    const auto id = static_cast<BlockId>(i);
    const BlockTag tag = table_.tag(id);
    if (tag.name_space != name_space) continue;
    if (tag.stage == BlockStage::Complete) table_.forget_name(id);
    if (tag.stage != BlockStage::Registered) continue;
    index_.erase(id);
    table_.set_stage(id, BlockStage::Detached);
  }
}

ResetCounts BlockStore::reset() {
  MutexLock lock(mutex_);
  ResetCounts counts;
  for (std::size_t i = 0; i < namespaces_.size(); ++i) {
    const ResetCounts one = reset_locked(static_cast<NamespaceId>(i));
    counts.evictable += one.evictable;
    counts.still_held += one.still_held;
  }
  order_->forget_all();
  publish();
  return counts;
}

ResetCounts BlockStore::reset(NamespaceId name_space) {
  MutexLock lock(mutex_);
  const ResetCounts counts = reset_locked(name_space);
  publish();
  return counts;
}

}  // namespace kvbm
