// What a block store means, too simple to be wrong: one row per block, no lists, no index, no count
// of pins or children. Every question is answered by looking at all rows.
//
// Which block is evicted next.
//
// Every evictable block has a level: forgotten, then priorities 0 .. 100, then protected. Lru and
// Fifo give places in a level:
//   1. Blocks that become unpinned together are a path, deepest block first. The deepest one gets a
//      place at the young end of its level; each block above it follows it, without a place of its
//      own, unless its level is another one: then it gets a place there.
//   2. Lru: a block that is pinned loses its place.
//      Fifo: it keeps it; and a block that had one before gets no other at the young end. If its
//      turn came while it was pinned or had children, it gets one at the old end as soon as it is
//      an evictable leaf.
//   3. A block that changes its level loses its place; if it is evictable, it gets one at the young
//      end of its new level.
//   4. The victim is the oldest place of the lowest level. If that is no evictable leaf, it loses
//      its place and the next one is asked.
//   5. An evictable block that loses its last child, and has no place, gets one at the old end.
//   6. A block that is borrowed, by whoever pins it first, and its ancestors keep their places.
//   Given
//      back without having been matched meanwhile, they have them as before; an evictable leaf
//      whose turn came meanwhile gets one at the old end.
//   7. reset(): the places of all levels, lowest level first, become places of the forgotten level.
//      reset(namespace) moves no place.
// Where no level changed while its block was evictable, this is plain Lru: the lowest level first,
// in it the path that became unpinned first, in it the deepest block. That is checked, too.
//
// AgeIndex: the victim may be any evictable leaf of the lowest level; see is_exact().
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "logical/pool/block_store.h"

namespace kvbm::model {

// Planted, to prove that a difference is found.
enum class Mistake { None, EvictsTheYoungest };

// One store. Not thread-safe. Ids, stages and arguments must be as the store's header demands.
class Oracle {
 public:
  Oracle(const BlockStoreOptions& options, Mistake mistake);

  // False: refused, nothing changed. So it is for all that return bool below.
  bool add_blocks(std::span<const BlockId> ids);
  std::size_t available() const;
  // Takes over what the store handed out, if that is right; else says what is wrong. `evicted` gets
  // the names that the store must report.
  std::optional<std::string> allocate(std::span<const BlockId> given,
                                      std::vector<SequenceHash>& evicted);
  void complete(BlockId id, const BlockIdentity& identity);
  void uncomplete(BlockId id);
  // The blocks that carry the names now.
  std::vector<BlockId> register_blocks(std::span<const BlockId> ids);
  // What a restart could save: the blocks that can be matched, each with a right guess.
  std::vector<RestoredBlock> survivors() const;
  // restore() and finish_restore(). Returns what is refused.
  std::vector<BlockId> restore(std::vector<RestoredBlock> blocks);
  void hold(BlockId id);
  void release(BlockId id);
  // kNoBlock if there is none of this name.
  BlockId borrow(const detail::BlockKey& key);
  void give_back(BlockId id);
  void detach(BlockId id);
  ResetCounts reset();
  ResetCounts reset(NamespaceId name_space);

  std::vector<BlockId> match(const Names& names);
  std::vector<BlockId> match_run(const Names& names);
  // kNoBlock for a miss.
  std::vector<BlockId> scan(const Names& names);
  std::size_t touch(const Names& names);
  std::size_t protect(const Names& names);
  bool contains(SequenceHash hash, NamespaceId name_space) const;
  bool contains(SequenceHash hash, std::uint64_t digest, NamespaceId name_space) const;

  bool retain(std::span<const BlockId> ids, const Retention& retention);
  bool set_priority(BlockId id, std::uint32_t priority);
  void copy_metadata(BlockId to, const Oracle& from, BlockId source);
  bool can_lease(TimePoint until) const { return until > now_; }
  void lease(LeaseId lease, BlockId id, TimePoint until);
  bool release_lease(LeaseId lease);
  bool advance(TimePoint now);
  bool wants_time() const;
  // Ends the leases.
  void close();

  BlockIdentity identity(BlockId id) const;
  std::uint32_t priority(BlockId id) const { return blocks_[id].priority; }
  // Which path a block was last released in, 0 for none since it was registered; and how many
  // blocks of the path are below it.
  std::pair<std::uint64_t, std::size_t> released_at(BlockId id) const {
    return {blocks_[id].released_at, blocks_[id].above};
  }
  bool is_held(BlockId id) const { return blocks_[id].holds > 0; }
  bool is_any_held() const;
  BlockStoreStats stats() const;

 private:
  struct Place {
    std::size_t level;
    std::int64_t order;
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  struct Block {
    BlockStage stage = BlockStage::Absent;
    std::size_t holds = 0;
    BlockIdentity identity;
    BlockId parent = kNoBlock;  // of a Duplicate: the block that it holds
    std::uint32_t priority = DEFAULT_PRIORITY;
    std::uint8_t hint = 0;
    std::optional<TimePoint> until;
    bool is_protected = false;
    bool is_borrowed = false;  // by somebody who was alone then, and nobody has used it since
    std::optional<Place> place;
    bool had_place = false;         // Fifo: as the deepest block of a path or above it
    std::uint64_t released_at = 0;  // number of its last path
    std::size_t above = 0;          // its place in that path; 0 is the deepest
  };
  struct Lease {
    LeaseId lease;
    BlockId id;
    TimePoint until;
  };

  // The one switch between a prediction and a plausibility check.
  bool is_exact() const { return policy_ != EvictionPolicy::AgeIndex; }
  bool is_linked(BlockId id) const;
  bool is_current(BlockId id) const;
  std::size_t level_of(BlockId id) const;
  std::vector<char> pinned() const;
  std::vector<char> parents() const;
  BlockId find(SequenceHash hash, NamespaceId name_space) const;
  std::vector<BlockId> prefix(const Names& names, bool as_chain) const;
  void use(BlockId id);
  void free(BlockId id);
  void forget_retention(BlockId id);
  BlockId register_one(BlockId id);
  void link(BlockId id);
  void put_in_order(const std::vector<BlockId>& path);
  void give_place(BlockId id);
  void change_level(BlockId id, std::uint32_t priority, bool is_protected);
  void retain_one(BlockId id, const Retention& retention);
  BlockId choose_victim(const std::vector<char>& pinned);
  std::optional<std::string> judge_victim(BlockId id, const std::vector<char>& pinned) const;
  void evict(BlockId id, const std::vector<char>& pinned, std::vector<SequenceHash>& evicted);
  std::size_t count(BlockStage stage) const;
  ResetCounts forget(NamespaceId name_space, const std::vector<char>& pinned);

  const EvictionPolicy policy_;
  const BlockRegistrationDuplicationSetting duplicates_;
  const Mistake mistake_;
  std::vector<Block> blocks_;
  std::vector<Lease> leases_;
  std::vector<std::uint16_t> epochs_ = std::vector<std::uint16_t>(256);
  BlockStoreStats counters_;
  TimePoint now_ = TimePoint::min();
  std::int64_t young_ = 0;  // the last place that was given at the young end
  std::int64_t old_ = 0;    // the last one at the old end
  std::uint64_t paths_ = 0;
  bool levels_changed_ = false;  // of an evictable block, ever
};

}  // namespace kvbm::model
