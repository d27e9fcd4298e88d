// What callers want kept longer than the policy would: priorities, protection, leases.
#include "logical/pool/block_store.h"

namespace kvbm {

// --- levels ----------------------------------------------------------------------------------

std::size_t BlockStore::level_of(BlockId id) const noexcept {
  if (!is_current(table_.tag(id))) return kLevelForgotten;
  if (special_ == 0) return 1 + std::size_t{DEFAULT_PRIORITY};
  const BlockRest& rest = table_.rest(id);
  if ((rest.flags & block_flags::kProtected) != 0) return kLevelProtected;
  return 1 + std::size_t{rest.priority};
}

// Whether the block is wanted more or less than most; what is rare is paid for only where it is
// used.
bool BlockStore::is_special(BlockId id) const noexcept {
  const BlockRest& rest = table_.rest(id);
  return rest.priority != DEFAULT_PRIORITY ||
         (rest.flags & (block_flags::kProtected | block_flags::kBorrowed | block_flags::kHint)) !=
             0;
}

// For a block that is no longer, or not yet, evictable.
void BlockStore::make_ordinary(BlockId id) noexcept {
  if (!is_special(id)) return;
  drop_expiry(id);
  set_hint(id, 0);
  set_level(id, DEFAULT_PRIORITY, false);
}

void BlockStore::set_hint(BlockId id, std::uint8_t hint) noexcept {
  BlockRest& rest = table_.rest(id);
  special_ -= is_special(id) ? 1 : 0;
  rest.flags =
      static_cast<std::uint8_t>((rest.flags & ~block_flags::kHint) | (hint & block_flags::kHint));
  special_ += is_special(id) ? 1 : 0;
}

// What the block is worth from now on. Its place, if it has one, is the caller's business.
void BlockStore::set_level(BlockId id, std::uint32_t priority, bool is_protected) noexcept {
  BlockRest& rest = table_.rest(id);
  special_ -= is_special(id) ? 1 : 0;
  rest.priority = static_cast<std::uint8_t>(priority);
  rest.flags &= static_cast<std::uint8_t>(~(block_flags::kProtected | block_flags::kPlaced));
  if (is_protected) rest.flags |= block_flags::kProtected;
  special_ += is_special(id) ? 1 : 0;
}

// An evictable block moves to the young end of its new level.
void BlockStore::change_level(BlockId id, std::uint32_t priority, bool is_protected) noexcept {
  const BlockRest& rest = table_.rest(id);
  const bool was_protected = (rest.flags & block_flags::kProtected) != 0;
  if (rest.priority == priority && was_protected == is_protected) return;
  set_level(id, priority, is_protected);
  if (table_.ties(id).listed) order_->remove(id);
  const BlockStage stage = table_.stage(id);
  const bool has_content = stage == BlockStage::Registered || stage == BlockStage::Detached;
  if (has_content && !table_.is_pinned(id)) order_->add(id, level_of(id));
}

// --- priorities ------------------------------------------------------------------------------

Result<void> BlockStore::retain(std::span<const BlockId> ids, const Retention& retention) {
  if (retention.priority > MAX_PRIORITY) {
    return Error{ErrorCode::InvalidConfig, 0, retention.priority, MAX_PRIORITY,
                 "a priority must be 0 .. 100"};
  }
  MutexLock lock(mutex_);
  if (retention.until && *retention.until <= now_) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0, "a priority's end must be in the future"};
  }
  for (const BlockId id : ids) retain_locked(id, retention);
  update_wants_time();
  return {};
}

void BlockStore::retain_locked(BlockId id, const Retention& retention) {
  drop_expiry(id);
  if (retention.until && retention.priority != DEFAULT_PRIORITY) {
    expiries_.emplace(id, *retention.until);
    expiry_ends_.emplace(*retention.until, id);
  }
  set_hint(id, retention.hint);
  change_level(id, retention.priority, (table_.rest(id).flags & block_flags::kProtected) != 0);
}

void BlockStore::drop_expiry(BlockId id) noexcept {
  if (expiries_.empty()) return;
  const auto found = expiries_.find(id);
  if (found == expiries_.end()) return;
  expiry_ends_.erase({found->second, id});
  expiries_.erase(found);
  if (expiries_.empty()) update_wants_time();
}

Result<void> BlockStore::set_priority(BlockId id, std::uint32_t priority) {
  if (priority > MAX_PRIORITY) {
    return Error{ErrorCode::InvalidConfig, 0, priority, MAX_PRIORITY,
                 "a priority must be 0 .. 100"};
  }
  MutexLock lock(mutex_);
  drop_expiry(id);
  change_level(id, priority, (table_.rest(id).flags & block_flags::kProtected) != 0);
  return {};
}

void BlockStore::copy_metadata(BlockId to, const BlockStore& from, BlockId source) {
  Retention retention;
  {
    MutexLock lock(from.mutex_);
    const BlockRest& rest = from.table_.rest(source);
    retention.priority = rest.priority;
    retention.hint = static_cast<std::uint8_t>(rest.flags & block_flags::kHint);
    const auto expiry = from.expiries_.find(source);
    if (expiry != from.expiries_.end()) retention.until = expiry->second;
  }
  if (metadata_.table()) metadata_.table()->copy(metadata_.at(to), from.metadata_.at(source));
  MutexLock lock(mutex_);
  retain_locked(to, retention);
  update_wants_time();
}

// --- protection ------------------------------------------------------------------------------

std::size_t BlockStore::protect(const Names& names) {
  MutexLock lock(mutex_);
  std::size_t count = 0;
  path_.clear();
  for (const SequenceHash hash : names.hashes) {
    const BlockId id = find(hash, names.name_space);
    if (id == kNoBlock) break;
    if (!names.digests.empty() && table_.rest(id).digest != names.digests[count]) break;
    path_.push_back(id);
    ++count;
  }
  // Deepest first: in its new level, too, a child goes before its parent.
  for (std::size_t i = path_.size(); i > 0; --i) {
    change_level(path_[i - 1], table_.rest(path_[i - 1]).priority, true);
  }
  return count;
}

// The block was matched: what it was protected for has come, and a hold on it was a use.
void BlockStore::unprotect(BlockId id) noexcept {
  const BlockRest& rest = table_.rest(id);
  if ((rest.flags & block_flags::kBorrowed) != 0) set_borrowed(id, false);
  if ((rest.flags & block_flags::kProtected) != 0) change_level(id, rest.priority, false);
}

// --- leases ----------------------------------------------------------------------------------

Result<LeaseId> BlockStore::lease(BlockId id, TimePoint until) {
  MutexLock lock(mutex_);
  if (until <= now_) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0, "a lease's end must be in the future"};
  }
  const LeaseId lease = next_lease_++;
  leases_.emplace(lease, Lease{id, until});
  lease_ends_.emplace(until, lease);
  hold_locked(id);
  update_wants_time();
  return lease;
}

bool BlockStore::release_lease(LeaseId lease) {
  BlockId id = kNoBlock;
  {
    MutexLock lock(mutex_);
    const auto found = leases_.find(lease);
    if (found == leases_.end()) return false;
    id = found->second.id;
    lease_ends_.erase({found->second.until, lease});
    leases_.erase(found);
    update_wants_time();
  }
  release(id);
  return true;
}

void BlockStore::update_wants_time() noexcept {
  const bool wants = order_->wants_time() || !lease_ends_.empty() || !expiry_ends_.empty();
  wants_time_.store(wants, std::memory_order_relaxed);
}

void BlockStore::advance(TimePoint now) {
  MutexLock lock(mutex_);
  if (now <= now_) return;
  now_ = now;
  order_->advance(now.time_since_epoch().count());
  expire(now);
  update_wants_time();
}

// Leases end before priorities: a block may have both, and its level counts once it is unpinned.
void BlockStore::expire(TimePoint now) {
  while (!lease_ends_.empty() && lease_ends_.begin()->first <= now) {
    const auto found = leases_.find(lease_ends_.begin()->second);
    lease_ends_.erase(lease_ends_.begin());
    release_locked(found->second.id);
    leases_.erase(found);
  }
  while (!expiry_ends_.empty() && expiry_ends_.begin()->first <= now) {
    const BlockId id = expiry_ends_.begin()->second;
    drop_expiry(id);
    change_level(id, DEFAULT_PRIORITY, (table_.rest(id).flags & block_flags::kProtected) != 0);
  }
}

}  // namespace kvbm
