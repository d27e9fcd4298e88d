#include "block_store_oracle.h"

#include <algorithm>
#include <sstream>
#include <tuple>
#include <utility>

namespace kvbm::model {

Oracle::Oracle(const BlockStoreOptions& options, Mistake mistake)
    : policy_(options.policy),
      duplicates_(options.duplicates),
      mistake_(mistake),
      blocks_(options.capacity) {
  if (options.start_empty) return;
  for (Block& block : blocks_) block.stage = BlockStage::Free;
}

// --- questions about rows --------------------------------------------------------------------

bool Oracle::is_linked(BlockId id) const {
  return blocks_[id].stage == BlockStage::Registered || blocks_[id].stage == BlockStage::Detached;
}

bool Oracle::is_current(BlockId id) const {
  return blocks_[id].identity.epoch == epochs_[blocks_[id].identity.name_space];
}

std::size_t Oracle::level_of(BlockId id) const {
  if (!is_current(id)) return 0;
  return blocks_[id].is_protected ? 102 : 1 + blocks_[id].priority;
}

// Held, or above a held block in its chain.
std::vector<char> Oracle::pinned() const {
  std::vector<char> pinned(blocks_.size(), 0);
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    if (blocks_[id].holds == 0) continue;
    for (BlockId at = id; at != kNoBlock && !pinned[at];
         at = is_linked(at) ? blocks_[at].parent : kNoBlock) {
      pinned[at] = 1;
    }
  }
  return pinned;
}

// Which blocks have children.
std::vector<char> Oracle::parents() const {
  std::vector<char> parents(blocks_.size(), 0);
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    if (is_linked(id) && blocks_[id].parent != kNoBlock) parents[blocks_[id].parent] = 1;
  }
  return parents;
}

std::size_t Oracle::count(BlockStage stage) const {
  return static_cast<std::size_t>(
      std::count_if(blocks_.begin(), blocks_.end(),
                    [stage](const Block& block) { return block.stage == stage; }));
}

bool Oracle::is_any_held() const {
  return std::any_of(blocks_.begin(), blocks_.end(),
                     [](const Block& block) { return block.holds > 0; });
}

std::size_t Oracle::available() const {
  const std::vector<char> pins = pinned();
  std::size_t available = count(BlockStage::Free);
  for (BlockId id = 0; id < blocks_.size(); ++id) available += is_linked(id) && !pins[id];
  return available;
}

BlockId Oracle::find(SequenceHash hash, NamespaceId name_space) const {
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    const Block& block = blocks_[id];
    if (block.stage == BlockStage::Registered && block.identity.sequence_hash == hash &&
        block.identity.name_space == name_space && is_current(id)) {
      return id;
    }
  }
  return kNoBlock;
}

bool Oracle::contains(SequenceHash hash, NamespaceId name_space) const {
  return find(hash, name_space) != kNoBlock;
}

bool Oracle::contains(SequenceHash hash, std::uint64_t digest, NamespaceId name_space) const {
  const BlockId id = find(hash, name_space);
  return id != kNoBlock && blocks_[id].identity.digest == digest;
}

BlockIdentity Oracle::identity(BlockId id) const {
  BlockIdentity identity = blocks_[id].identity;
  identity.forgotten = !is_current(id);
  if (is_linked(id) && identity.position == 0) identity.parent_hash = SequenceHash();
  return identity;
}

BlockStoreStats Oracle::stats() const {
  BlockStoreStats stats = counters_;
  stats.total = blocks_.size() - count(BlockStage::Absent);
  stats.available = available();
  stats.free = count(BlockStage::Free);
  stats.registered = 0;
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    stats.registered += blocks_[id].stage == BlockStage::Registered && is_current(id);
  }
  return stats;
}

// --- life of a block -------------------------------------------------------------------------

bool Oracle::add_blocks(std::span<const BlockId> ids) {
  for (const BlockId id : ids) {
    if (id >= blocks_.size() || blocks_[id].stage != BlockStage::Absent) return false;
  }
  for (const BlockId id : ids) blocks_[id].stage = BlockStage::Free;
  return true;
}

void Oracle::complete(BlockId id, const BlockIdentity& identity) {
  Block& block = blocks_[id];
  block.stage = BlockStage::Complete;
  block.identity = identity;
  block.identity.epoch = identity.forgotten ? kNoEpoch : epochs_[identity.name_space];
}

void Oracle::uncomplete(BlockId id) {
  forget_retention(id);
  blocks_[id].stage = BlockStage::Mutable;
}

void Oracle::forget_retention(BlockId id) {
  Block& block = blocks_[id];
  block.priority = DEFAULT_PRIORITY;
  block.hint = 0;
  block.until.reset();
  block.is_protected = false;
}

void Oracle::free(BlockId id) {
  blocks_[id] = Block{};
  blocks_[id].stage = BlockStage::Free;
}

void Oracle::hold(BlockId id) {
  if (blocks_[id].holds++ > 0 || !is_linked(id)) return;
  --blocks_[id].holds;
  const std::vector<char> before = pinned();
  ++blocks_[id].holds;
  if (policy_ == EvictionPolicy::Fifo) return;
  for (BlockId at = id; at != kNoBlock && !before[at]; at = blocks_[at].parent) {
    blocks_[at].place.reset();
  }
}

void Oracle::release(BlockId id) {
  if (--blocks_[id].holds > 0) return;
  if (!is_linked(id)) {
    const BlockId primary =
        blocks_[id].stage == BlockStage::Duplicate ? blocks_[id].parent : kNoBlock;
    free(id);
    if (primary != kNoBlock) release(primary);
    return;
  }
  const std::vector<char> after = pinned();
  std::vector<BlockId> path;
  for (BlockId at = id; at != kNoBlock && !after[at]; at = blocks_[at].parent) path.push_back(at);
  if (!path.empty()) put_in_order(path);
}

BlockId Oracle::borrow(const detail::BlockKey& key) {
  const BlockId id = find(key.hash, key.name_space);
  if (id == kNoBlock || blocks_[id].identity.digest != key.digest) return kNoBlock;
  if (!pinned()[id]) blocks_[id].is_borrowed = true;
  ++blocks_[id].holds;
  return id;
}

void Oracle::give_back(BlockId id) {
  if (!std::exchange(blocks_[id].is_borrowed, false)) return release(id);
  if (--blocks_[id].holds > 0) return;
  const std::vector<char> pins = pinned();
  const std::vector<char> parent = parents();
  if (pins[id] || blocks_[id].place || parent[id]) return;
  blocks_[id].place = Place{level_of(id), --old_};
  levels_changed_ = true;  // of several that missed their turn, the last one back goes first
}

std::vector<BlockId> Oracle::register_blocks(std::span<const BlockId> ids) {
  std::vector<BlockId> carriers;
  for (const BlockId id : ids) carriers.push_back(register_one(id));
  return carriers;
}

BlockId Oracle::register_one(BlockId id) {
  Block& block = blocks_[id];
  block.parent = kNoBlock;
  if (!is_current(id)) {
    block.stage = BlockStage::Duplicate;
    return id;
  }
  const BlockId present = find(block.identity.sequence_hash, block.identity.name_space);
  if (present == kNoBlock) {
    link(id);
    ++counters_.registrations;
    return id;
  }
  if (blocks_[present].identity.digest != block.identity.digest) {
    ++counters_.collisions;
    block.stage = BlockStage::Duplicate;
    return id;
  }
  ++counters_.duplicates;
  hold(present);
  if (duplicates_ == BlockRegistrationDuplicationSetting::Disabled) {
    free(id);
    return present;
  }
  block.stage = BlockStage::Duplicate;
  block.parent = present;
  return id;
}

// A block's parent carries the name that it gives, one position before it, in its namespace and
// epoch. It is there, or it comes later and finds its children.
void Oracle::link(BlockId id) {
  Block& block = blocks_[id];
  const auto is_child_of = [](const Block& child, const Block& parent) {
    return child.identity.parent_hash == parent.identity.sequence_hash &&
           child.identity.position == parent.identity.position + 1 &&
           child.identity.name_space == parent.identity.name_space &&
           child.identity.epoch == parent.identity.epoch;
  };
  const BlockId parent = find(block.identity.parent_hash, block.identity.name_space);
  block.released_at = 0;
  if (parent != kNoBlock && is_child_of(block, blocks_[parent])) {
    hold(parent);  // as its new child does
    --blocks_[parent].holds;
    block.parent = parent;
  }
  block.stage = BlockStage::Registered;
  for (BlockId orphan = 0; orphan < blocks_.size(); ++orphan) {
    Block& child = blocks_[orphan];
    if (is_linked(orphan) && child.parent == kNoBlock && is_child_of(child, block)) {
      child.parent = id;
    }
  }
}

std::vector<RestoredBlock> Oracle::survivors() const {
  std::vector<RestoredBlock> survivors;
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    const Block& block = blocks_[id];
    if (block.stage != BlockStage::Registered || !is_current(id)) continue;
    survivors.push_back({.id = id,
                         .parent_guess = block.parent,
                         .priority = block.priority,
                         .identity = identity(id)});
  }
  return survivors;
}

// As if they were registered one by one, but for the counters.
std::vector<BlockId> Oracle::restore(std::vector<RestoredBlock> blocks) {
  std::sort(blocks.begin(), blocks.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  std::vector<BlockId> refused;
  for (const RestoredBlock& restored : blocks) {
    Block& block = blocks_[restored.id];
    complete(restored.id, restored.identity);
    if (find(block.identity.sequence_hash, block.identity.name_space) != kNoBlock) {
      refused.push_back(restored.id);
      free(restored.id);
      continue;
    }
    block.holds = 1;
    block.priority = restored.priority;
    link(restored.id);
  }
  for (Block& block : blocks_) {
    if (block.stage == BlockStage::Absent) block.stage = BlockStage::Free;
  }
  return refused;
}

void Oracle::detach(BlockId id) {
  if (blocks_[id].stage != BlockStage::Registered) return;
  blocks_[id].stage = BlockStage::Detached;
  if (is_current(id)) ++counters_.detached;
}

ResetCounts Oracle::forget(NamespaceId name_space, const std::vector<char>& pinned) {
  ResetCounts counts;
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    if (blocks_[id].identity.name_space != name_space || !is_current(id)) continue;
    // A borrowed block has its place while it is pinned.
    if (is_linked(id) && (!pinned[id] || blocks_[id].place)) levels_changed_ = true;
    if (blocks_[id].stage != BlockStage::Registered) continue;
    ++(pinned[id] ? counts.still_held : counts.evictable);
  }
  ++epochs_[name_space];
  return counts;
}

ResetCounts Oracle::reset(NamespaceId name_space) { return forget(name_space, pinned()); }

ResetCounts Oracle::reset() {
  const std::vector<char> pins = pinned();
  ResetCounts counts;
  for (std::size_t i = 0; i < epochs_.size(); ++i) {
    const ResetCounts one = forget(static_cast<NamespaceId>(i), pins);
    counts.evictable += one.evictable;
    counts.still_held += one.still_held;
  }
  std::vector<std::pair<Place, BlockId>> places;
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    if (blocks_[id].place) places.emplace_back(*blocks_[id].place, id);
  }
  std::sort(places.begin(), places.end());
  for (const auto& [place, id] : places) blocks_[id].place = Place{0, ++young_};
  return counts;
}

// --- matching --------------------------------------------------------------------------------

std::vector<BlockId> Oracle::prefix(const Names& names, bool as_chain) const {
  std::vector<BlockId> ids;
  for (std::size_t i = 0; i < names.hashes.size(); ++i) {
    const BlockId id = find(names.hashes[i], names.name_space);
    if (id == kNoBlock) break;
    if (as_chain && i > 0 && blocks_[id].parent != ids.back()) break;
    if (!names.digests.empty() && blocks_[id].identity.digest != names.digests[i]) break;
    ids.push_back(id);
  }
  return ids;
}

// What a block was protected for has come.
void Oracle::use(BlockId id) {
  blocks_[id].is_borrowed = false;
  change_level(id, blocks_[id].priority, false);
}

std::vector<BlockId> Oracle::match(const Names& names) {
  const std::vector<BlockId> ids = prefix(names, false);
  for (const BlockId id : ids) {
    use(id);
    hold(id);
  }
  counters_.matches += ids.size();
  return ids;
}

std::vector<BlockId> Oracle::match_run(const Names& names) {
  const std::vector<BlockId> ids = prefix(names, true);
  for (std::size_t i = ids.size(); i > 0; --i) use(ids[i - 1]);
  if (!ids.empty()) hold(ids.back());
  counters_.matches += ids.size();
  return ids;
}

std::vector<BlockId> Oracle::scan(const Names& names) {
  std::vector<BlockId> ids;
  for (std::size_t i = 0; i < names.hashes.size(); ++i) {
    BlockId id = find(names.hashes[i], names.name_space);
    if (id != kNoBlock && !names.digests.empty() &&
        blocks_[id].identity.digest != names.digests[i]) {
      id = kNoBlock;
    }
    ids.push_back(id);
    if (id == kNoBlock) continue;
    use(id);
    hold(id);
    ++counters_.matches;
  }
  return ids;
}

std::size_t Oracle::touch(const Names& names) {
  const std::vector<BlockId> ids = prefix(names, false);
  for (const BlockId id : ids) {
    use(id);
    hold(id);
  }
  for (const BlockId id : ids) release(id);
  return ids.size();
}

std::size_t Oracle::protect(const Names& names) {
  const std::vector<BlockId> ids = prefix(names, false);
  for (std::size_t i = ids.size(); i > 0; --i) {
    change_level(ids[i - 1], blocks_[ids[i - 1]].priority, true);
  }
  return ids.size();
}

// --- retention -------------------------------------------------------------------------------

void Oracle::change_level(BlockId id, std::uint32_t priority, bool is_protected) {
  Block& block = blocks_[id];
  if (block.priority == priority && block.is_protected == is_protected) return;
  block.priority = priority;
  block.is_protected = is_protected;
  block.had_place = false;
  if (!is_linked(id)) return;
  const bool is_evictable = !pinned()[id];
  if (is_evictable) levels_changed_ = true;
  block.place.reset();
  if (is_evictable) give_place(id);
}

bool Oracle::retain(std::span<const BlockId> ids, const Retention& retention) {
  if (retention.priority > MAX_PRIORITY) return false;
  if (retention.until && *retention.until <= now_) return false;
  for (const BlockId id : ids) retain_one(id, retention);
  return true;
}

void Oracle::retain_one(BlockId id, const Retention& retention) {
  blocks_[id].until.reset();
  if (retention.priority != DEFAULT_PRIORITY) blocks_[id].until = retention.until;
  blocks_[id].hint = retention.hint;
  change_level(id, retention.priority, blocks_[id].is_protected);
}

bool Oracle::set_priority(BlockId id, std::uint32_t priority) {
  if (priority > MAX_PRIORITY) return false;
  blocks_[id].until.reset();
  change_level(id, priority, blocks_[id].is_protected);
  return true;
}

void Oracle::copy_metadata(BlockId to, const Oracle& from, BlockId source) {
  const Block& block = from.blocks_[source];
  retain_one(to, {block.priority, block.until, block.hint});
}

void Oracle::lease(LeaseId lease, BlockId id, TimePoint until) {
  leases_.push_back({lease, id, until});
  hold(id);
}

bool Oracle::release_lease(LeaseId lease) {
  const auto found = std::find_if(leases_.begin(), leases_.end(),
                                  [lease](const Lease& one) { return one.lease == lease; });
  if (found == leases_.end()) return false;
  const BlockId id = found->id;
  leases_.erase(found);
  release(id);
  return true;
}

// What ends first ends first; leases before priorities.
bool Oracle::advance(TimePoint now) {
  if (now <= now_) return false;
  now_ = now;
  std::vector<std::pair<TimePoint, LeaseId>> over;
  for (const Lease& lease : leases_) {
    if (lease.until <= now) over.emplace_back(lease.until, lease.lease);
  }
  std::sort(over.begin(), over.end());
  for (const auto& [until, lease] : over) release_lease(lease);

  std::vector<std::pair<TimePoint, BlockId>> ends;
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    if (blocks_[id].until && *blocks_[id].until <= now) ends.emplace_back(*blocks_[id].until, id);
  }
  std::sort(ends.begin(), ends.end());
  for (const auto& [until, id] : ends) set_priority(id, DEFAULT_PRIORITY);
  return true;
}

bool Oracle::wants_time() const {
  // AgeIndex learns from time.
  if (policy_ == EvictionPolicy::AgeIndex || !leases_.empty()) return true;
  return std::any_of(blocks_.begin(), blocks_.end(),
                     [](const Block& block) { return block.until.has_value(); });
}

void Oracle::close() {
  while (!leases_.empty()) release_lease(leases_.back().lease);
}

// --- eviction --------------------------------------------------------------------------------

void Oracle::put_in_order(const std::vector<BlockId>& path) {
  ++paths_;
  for (std::size_t i = 0; i < path.size(); ++i) {
    Block& block = blocks_[path[i]];
    block.released_at = paths_;
    block.above = i;
    if (i == 0 || level_of(path[i]) != level_of(path[i - 1])) give_place(path[i]);
  }
  for (const BlockId id : path) blocks_[id].had_place = true;
}

void Oracle::give_place(BlockId id) {
  Block& block = blocks_[id];
  if (policy_ == EvictionPolicy::Fifo) {
    if (block.place) return;
    if (block.had_place) {
      if (!parents()[id]) block.place = Place{level_of(id), --old_};
      return;
    }
  }
  block.place = Place{level_of(id), ++young_};
  block.had_place = true;
}

BlockId Oracle::choose_victim(const std::vector<char>& pinned) {
  const std::vector<char> parent = parents();
  for (;;) {
    BlockId first = kNoBlock;
    for (BlockId id = 0; id < blocks_.size(); ++id) {
      if (!blocks_[id].place) continue;
      const bool is_older = first == kNoBlock || *blocks_[id].place < *blocks_[first].place;
      if (first == kNoBlock || is_older == (mistake_ == Mistake::None)) first = id;
    }
    if (first == kNoBlock || (!pinned[first] && !parent[first])) return first;
    blocks_[first].place.reset();
  }
}

// Whether this is a victim that any order might choose, and the one of plain Lru while no evictable
// block has changed its level.
std::optional<std::string> Oracle::judge_victim(BlockId victim,
                                                const std::vector<char>& pinned) const {
  const std::vector<char> parent = parents();
  if (!is_linked(victim) || pinned[victim] || parent[victim]) return "no evictable leaf";
  using Key = std::tuple<std::size_t, std::uint64_t, std::size_t>;
  const auto key = [&](BlockId id) {
    return Key(level_of(id), blocks_[id].released_at, blocks_[id].above);
  };
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    if (!is_linked(id) || pinned[id] || parent[id]) continue;
    // What reset(namespace) forgets goes when the turn of its place comes, or before.
    const std::size_t level = blocks_[id].place ? blocks_[id].place->level : level_of(id);
    if (level < level_of(victim)) return "not of the lowest level";
    const bool is_plain = policy_ == EvictionPolicy::Lru && !levels_changed_;
    if (is_plain && key(id) < key(victim)) return "not the least recently used";
  }
  return std::nullopt;
}

void Oracle::evict(BlockId id, const std::vector<char>& pinned,
                   std::vector<SequenceHash>& evicted) {
  const BlockId parent = blocks_[id].parent;
  if (blocks_[id].stage == BlockStage::Registered && is_current(id)) {
    evicted.push_back(blocks_[id].identity.sequence_hash);
    ++counters_.evictions;
  }
  free(id);
  if (parent == kNoBlock || pinned[parent] || parents()[parent] || blocks_[parent].place) return;
  blocks_[parent].place = Place{level_of(parent), --old_};
}

std::optional<std::string> Oracle::allocate(std::span<const BlockId> given,
                                            std::vector<SequenceHash>& evicted) {
  const std::vector<char> pins = pinned();
  std::size_t free_blocks = count(BlockStage::Free);
  for (std::size_t i = 0; i < given.size(); ++i) {
    const BlockId id = given[i];
    std::ostringstream wrong;
    wrong << "allocate gave block " << id << " as number " << i << ": ";
    if (i < free_blocks) {
      if (id >= blocks_.size() || blocks_[id].stage != BlockStage::Free) {
        return wrong.str() + "expected a free one";
      }
    } else {
      if (is_exact()) {
        const BlockId expected = choose_victim(pins);
        if (id != expected) {
          wrong << "expected " << expected << " to be evicted";
          return wrong.str();
        }
      }
      if (const auto why = judge_victim(id, pins)) return wrong.str() + *why;
      evict(id, pins, evicted);
    }
    blocks_[id].stage = BlockStage::Mutable;
    blocks_[id].holds = 1;
  }
  counters_.allocations += given.size();
  return std::nullopt;
}

}  // namespace kvbm::model
