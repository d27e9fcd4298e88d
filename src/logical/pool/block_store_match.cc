// Finding blocks by their names.
#include <algorithm>
#include <limits>

#include "logical/pool/block_store.h"

namespace kvbm {
namespace {

// So many jumps in a row, and the rest of the chain is looked up in batches.
constexpr std::size_t kScattered = 3;

}  // namespace

// The low half of the tag that a block of this namespace has while it can be matched.
std::uint64_t BlockStore::matchable_tag(NamespaceId name_space) const noexcept {
  const std::uint16_t epoch = namespaces_[name_space].epoch.load(std::memory_order_relaxed);
  return BlockTag{
      .parent = 0, .epoch = epoch, .name_space = name_space, .stage = BlockStage::Registered}
      .pack();
}

BlockId BlockStore::find(SequenceHash hash, NamespaceId name_space) const noexcept {
  const std::uint64_t wanted = matchable_tag(name_space);
  return index_.find(hash,
                     [&](BlockId id) { return (table_.tag_word(id) & 0xffffffffu) == wanted; });
}

// Looks names up in batches, for chains that lie scattered: first the cells of the next batch are
// fetched, then the rows of this one, so that the memory's latencies overlap.
class BlockStore::Scattered {
 public:
  Scattered(const HashIndex& index, const BlockRows& rows, std::span<const SequenceHash> hashes,
            std::uint64_t low_tag)
      : index_(index), rows_(rows), hashes_(hashes), low_tag_(low_tag) {}

  // The block of this name if the index's first candidate is the right one. Positions only grow.
  BlockId find(std::size_t i) noexcept {
    if (i >= end_) fill(i);
    const BlockId id = candidates_[i - begin_];
    const bool is_right = id != kNoBlock && rows_.hash(id) == hashes_[i] &&
                          (rows_.tag_word(id) & 0xffffffffu) == low_tag_;
    return is_right ? id : kNoBlock;
  }

 private:
  static constexpr std::size_t kBatch = 32;

  void fill(std::size_t begin) noexcept {
    begin_ = begin;
    end_ = std::min(begin + kBatch, hashes_.size());
    const std::size_t cells_end = std::min(end_ + kBatch, hashes_.size());
    for (std::size_t i = std::max(begin, cells_end_); i < cells_end; ++i) {
      index_.prefetch_cell(hashes_[i]);
    }
    cells_end_ = cells_end;
    for (std::size_t i = begin; i < end_; ++i) {
      const BlockId id = index_.candidate(hashes_[i]);
      candidates_[i - begin] = id;
      if (id != kNoBlock) __builtin_prefetch(&rows_.name(id));
    }
  }

  const HashIndex& index_;
  const BlockRows rows_;
  const std::span<const SequenceHash> hashes_;
  const std::uint64_t low_tag_;
  std::array<BlockId, kBatch> candidates_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t cells_end_ = 0;
};

// How many of the names from `first` on are those of the blocks that lie behind `previous`, one
// `step` apart, each the child of the one before. Calls visit(position, id) for each.
template <class Visit>
std::size_t BlockStore::walk_neighbours(const Names& names, std::size_t first, BlockId previous,
                                        BlockId step, const Visit& visit) const {
  const BlockRows rows = table_;
  const std::size_t limit = capacity();
  const bool with_digests = !names.digests.empty();
  const std::uint64_t low = matchable_tag(names.name_space);
  const std::span<const SequenceHash> hashes = names.hashes;
  std::size_t i = first;
  for (; i < hashes.size(); ++i) {
    const BlockId id = previous + step;
    if (id >= limit || rows.tag_word(id) != (std::uint64_t{previous} << 32 | low) ||
        rows.hash(id) != hashes[i]) {
      break;
    }
    if (with_digests && rows.rest(id).digest != names.digests[i]) break;
    visit(i, id);
    previous = id;
  }
  return i - first;
}

// The length of the longest registered prefix, and its deepest block. Calls visit(position, id) for
// each block, root first. `as_chain`: each must be the child of the one before it.
// Chains lie side by side more often than not: blocks are handed out in runs, upwards or, after an
// eviction, downwards. So the neighbours of a block are looked at first, and the index is asked
// only where that fails.
template <class Visit>
std::size_t BlockStore::walk(const Names& names, bool as_chain, BlockId& deepest,
                             const Visit& visit) const {
  Scattered scattered(index_, table_, names.hashes, matchable_tag(names.name_space));
  BlockId step = likely_step_;
  std::size_t jumps = 0;  // in a row
  std::size_t i = 0;
  if (names.hashes.empty()) return 0;
  const BlockId candidate = index_.candidate(names.hashes[0]);
  if (candidate == kNoBlock) return 0;
  prefetch_chain(candidate, names.hashes.size());
  while (i < names.hashes.size()) {
    BlockId id = ++jumps >= kScattered ? scattered.find(i) : kNoBlock;
    if (id == kNoBlock) id = find(names.hashes[i], names.name_space);
    if (id == kNoBlock) break;
    if (as_chain && i > 0 && table_.parent(id) != deepest) break;
    if (!names.digests.empty() && table_.rest(id).digest != names.digests[i]) break;
    if (i > 0 && (id == deepest - 1 || id == deepest + 1)) {
      step = likely_step_ = id - deepest;
      jumps = 0;
    }
    visit(i, id);
    deepest = id;
    ++i;
    // A chain that lies scattered gets no more guesses: each is likely to read another cache line.
    if (jumps >= kScattered) continue;
    const std::size_t count = walk_neighbours(names, i, deepest, step, visit);
    if (count == 0) continue;
    deepest += static_cast<BlockId>(count) * step;
    i += count;
    jumps = 0;
  }
  return i;
}

// Fetches the rows where a chain of this length probably lies whose first block is this: upwards or
// downwards, as the last one did.
void BlockStore::prefetch_chain(BlockId first, std::size_t length) const noexcept {
  constexpr std::size_t kRowsPerLine = 4;
  constexpr std::size_t kLines = 4;
  const std::size_t last = std::min(length, capacity()) - 1;
  const bool upwards = likely_step_ == 1;
  const auto at = [&](std::size_t offset) {
    if (upwards) return static_cast<BlockId>(std::min(first + offset, capacity() - 1));
    return static_cast<BlockId>(first < offset ? 0 : first - offset);
  };
  for (std::size_t offset = 0; offset <= std::min(last, (kLines - 1) * kRowsPerLine);
       offset += kRowsPerLine) {
    __builtin_prefetch(&table_.name(at(offset)));
  }
  // What a hold on the deepest block reads.
  __builtin_prefetch(&table_.ties(at(last)));
  __builtin_prefetch(&table_.place(at(last)));
}

// Before the mutex is taken, which it needs not: where a cell lies never changes.
void BlockStore::prefetch_first(const Names& names) const noexcept KVBM_NO_THREAD_SAFETY_ANALYSIS {
  if (names.hashes.empty()) return;
  constexpr std::size_t kHashesPerLine = 8;
  constexpr std::size_t kLines = 4;
  const std::size_t reach = std::min(names.hashes.size(), kLines * kHashesPerLine);
  for (std::size_t i = kHashesPerLine; i < reach; i += kHashesPerLine) {
    __builtin_prefetch(&names.hashes[i]);
  }
  index_.prefetch_cell(names.hashes[0]);
}

// Every name that is asked for is an access, found or not.
void BlockStore::ask(std::span<const SequenceHash> hashes) noexcept {
  if (curve_) curve_->access(hashes);
}

RunRef BlockStore::match_run(const Names& chain, Asked asked) {
  prefetch_first(chain);
  MutexLock lock(mutex_);
  RunRef run;
  run.count =
      static_cast<std::uint32_t>(walk(chain, true, run.deepest, [](std::size_t, BlockId) {}));
  if (asked == Asked::New) ask(chain.hashes);
  if (run.count > 0) {
    if (special_ > 0) {
      BlockId id = run.deepest;
      for (std::uint32_t i = 0; i < run.count; ++i, id = table_.parent(id)) unprotect(id);
    }
    hold_locked(run.deepest);
  }
  counters_.matches += run.count;
  if (order_wants_paths_ || events_) {
    path_.resize(run.count);
    run_ids(run.deepest, path_);
    if (order_wants_paths_) order_->matched(path_);
    for (const BlockId id : path_) note(BlockEvent::Kind::Matched, id);
    publish();
  }
  return run;
}

std::size_t BlockStore::match(const Names& names, std::span<BlockId> out) {
  prefetch_first(names);
  MutexLock lock(mutex_);
  ask(names.hashes);
  const std::size_t hits = walk_and_hold(names, out);
  counters_.matches += hits;
  if (events_) {
    for (const BlockId id : out.first(hits)) note(BlockEvent::Kind::Matched, id);
    publish();
  }
  return hits;
}

// One hold for each block of the prefix. In the same pass as the lookups, which then overlap with
// the latency of the atomic changes.
std::size_t BlockStore::walk_and_hold(const Names& names, std::span<BlockId> out) {
  const BlockRows rows = table_;
  BlockId deepest = kNoBlock;
  const std::size_t hits =
      walk(names, false, deepest, [&](std::size_t i, BlockId id) KVBM_REQUIRES(mutex_) {
        out[i] = id;
        if (special_ > 0) unprotect(id);
        if (rows.ties(id).holds.fetch_add(1, std::memory_order_relaxed) == 0) became_held(id);
      });
  if (order_wants_paths_) order_->matched(out.first(hits));
  return hits;
}

void BlockStore::scan(const Names& names, std::vector<std::pair<std::size_t, BlockId>>& found) {
  found.reserve(found.size() + names.hashes.size());
  MutexLock lock(mutex_);
  for (std::size_t i = 0; i < names.hashes.size(); ++i) {
    const BlockId id = find(names.hashes[i], names.name_space);
    if (id == kNoBlock) continue;
    if (!names.digests.empty() && table_.rest(id).digest != names.digests[i]) continue;
    if (special_ > 0) unprotect(id);
    hold_locked(id);
    if (order_wants_paths_) order_->matched({&id, 1});
    note(BlockEvent::Kind::Matched, id);
    ++counters_.matches;
    found.emplace_back(i, id);
  }
  publish();
}

std::size_t BlockStore::touch(const Names& names) {
  std::vector<BlockId> ids(names.hashes.size());
  MutexLock lock(mutex_);
  // Held together and dropped together, as a match and a drop would.
  const std::size_t hits = walk_and_hold(names, ids);
  for (const BlockId id : std::span(ids).first(hits)) release_locked(id);
  return hits;
}

bool BlockStore::contains(SequenceHash hash, NamespaceId name_space) const {
  MutexLock lock(mutex_);
  return find(hash, name_space) != kNoBlock;
}

void BlockStore::contains(const Names& names, std::span<bool> present) const {
  MutexLock lock(mutex_);
  for (std::size_t i = 0; i < names.hashes.size(); ++i) {
    const BlockId id = find(names.hashes[i], names.name_space);
    present[i] =
        id != kNoBlock && (names.digests.empty() || table_.rest(id).digest == names.digests[i]);
  }
}

double BlockStore::hit_ratio_at(std::size_t blocks) const {
  MutexLock lock(mutex_);
  if (!curve_ || curve_->accesses() == 0) return std::numeric_limits<double>::quiet_NaN();
  return curve_->hit_ratio(blocks);
}

std::vector<HitRatioPoint> BlockStore::miss_ratio_curve() const {
  std::vector<HitRatioPoint> curve;
  MutexLock lock(mutex_);
  if (!curve_) return curve;
  for (const auto& point : curve_->points()) curve.push_back({point.blocks, point.hit_ratio});
  return curve;
}

void BlockStore::run_ids(BlockId deepest, std::span<BlockId> out) const noexcept {
  // The first block's parent is outside the run and may change, so it is never read.
  for (std::size_t i = out.size(); i > 0; --i) {
    out[i - 1] = deepest;
    if (i > 1) deepest = table_.parent(deepest);
  }
}

BlockIdentity BlockStore::identity(BlockId id) const noexcept {
  const BlockTag tag = table_.tag(id);
  const BlockRest& rest = table_.rest(id);
  BlockIdentity identity{.sequence_hash = table_.hash(id),
                         .parent_hash = SequenceHash(),
                         .position = rest.position,
                         .token_count = rest.token_count,
                         .digest = rest.digest,
                         .name_space = tag.name_space,
                         .epoch = tag.epoch,
                         .forgotten = !is_current(tag)};
  const bool is_linked = tag.stage == BlockStage::Registered || tag.stage == BlockStage::Detached;
  if (!is_linked) {
    identity.parent_hash = table_.parent_hash(id);
  } else if (rest.position > 0) {
    BlockId parent = tag.parent;
    if (parent == kNoBlock) {
      MutexLock lock(mutex_);
      parent = table_.parent(id);  // it may have come meanwhile
      if (parent == kNoBlock) identity.parent_hash = orphans_.parent_hash(id);
    }
    if (parent != kNoBlock) identity.parent_hash = table_.hash(parent);
  }
  return identity;
}

// A place in the order stands for a whole path: up from there, every block that has a listed one
// alone as its child goes next.
void BlockStore::coldest(std::size_t count, std::vector<detail::BlockKey>& out) const {
  std::vector<BlockId> listed(count);
  MutexLock lock(mutex_);
  listed.resize(order_->coldest(listed));
  for (const BlockId first : listed) {
    BlockId id = first;
    while (count > 0 && id != kNoBlock) {
      const BlockTag tag = table_.tag(id);
      if (tag.stage == BlockStage::Registered && is_current(tag)) {
        out.push_back({table_.hash(id), table_.rest(id).digest, tag.name_space});
        --count;
      }
      id = tag.parent;
      const bool is_next = id != kNoBlock && !table_.is_pinned(id) && table_.ties(id).listed == 0 &&
                           table_.ties(id).children == 1;
      if (!is_next) break;
    }
  }
}

bool BlockStore::is_worth_a_place(std::uint8_t uses) const {
  MutexLock lock(mutex_);
  return free_ > 0 || order_->is_worth_a_victim(uses);
}

}  // namespace kvbm
