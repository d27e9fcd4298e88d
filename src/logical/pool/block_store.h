// The blocks of one pool: which are free, which are held, which may be evicted, and which sequence
// hash each one carries. Knows nothing of memory; a block is a number here.
//
// Life of a block:  Absent -> Free -> Mutable -> Complete -> Registered -> Free
//                   a Registered block that must never be matched again becomes Detached: it keeps
//                   its ties and its holds, and is evicted like any other.
//                   a Complete block whose name is taken becomes a Duplicate where the pool allows
//                   them: held, never matched, free after its last hold. It holds the registered
//                   block as well. So does a block that only claims the name (its digest differs)
//                   or whose namespace was reset since it was named; those hold no other block.
//
// Holds. Every handle is one hold, counted in the block's row. A count moves between 0 and 1 only
// under the mutex; all other changes are lock-free.
//
// Pins. A registered block is pinned while it has a hold or a pinned child, so one hold on the
// deepest block of a chain keeps the whole chain. What becomes unpinned together, a path, is given
// to the eviction order by its deepest block alone: its ancestors cannot be evicted before it.
//
// Epochs. Every namespace counts its resets. A name is matched only in the epoch in which its block
// was named, so a reset is one increment, whatever the pool's size.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "kvbm/detail/hold.h"
#include "kvbm/metadata.h"
#include "kvbm/result.h"
#include "kvbm/retention.h"
#include "kvbm/types.h"
#include "logical/mrc/miss_ratio_curve.h"
#include "logical/policy/eviction_order.h"
#include "logical/pool/identity.h"
#include "logical/pool/metadata_array.h"
#include "logical/registry/hash_index.h"
#include "logical/registry/orphans.h"
#include "observe/event_sink.h"

namespace kvbm {

using TimePoint = std::chrono::steady_clock::time_point;

// Whether names are accesses for the miss ratio curve, or were asked for before in the same lookup.
enum class Asked : std::uint8_t { New, Again };

// Names to look up: sequence hashes of one namespace and, where the caller has them, the digests
// that must agree with them (none, or one per hash).
struct Names {
  std::span<const SequenceHash> hashes;
  std::span<const std::uint64_t> digests = {};
  NamespaceId name_space = 0;

  // From any contiguous range of hashes.
  template <class Hashes>
    requires std::convertible_to<Hashes&&, std::span<const SequenceHash>>
  Names(Hashes&& sequence_hashes, std::span<const std::uint64_t> keyed = {}, NamespaceId which = 0)
      : hashes(sequence_hashes), digests(keyed), name_space(which) {}
};

// A matched chain: `count` blocks that end in `deepest`, which carries one hold. count 0 = a miss.
struct RunRef {
  BlockId deepest = kNoBlock;
  std::uint32_t count = 0;
};

// Where threads may meet: between what a call has seen without the mutex and taking it.
enum class RaceWindow : std::uint8_t {
  LastRelease,   // of a block's last hold
  FirstHold,     // of a block that only its child pins
  Naming,        // between reading the epoch and writing the name
  Registration,  // of blocks that were found Complete
};

// Opens the windows in tests: at() may wait there.
class RaceHook {
 public:
  virtual ~RaceHook() = default;
  virtual void at(RaceWindow window) noexcept = 0;
};

struct BlockStoreOptions {
  std::size_t capacity;      // blocks that there may ever be
  bool start_empty = false;  // all Absent, until add_blocks() or finish_restore()
  // Blocks that may be handed out at once; the others follow with make_ready(). All are counted in
  // total_blocks(). Not with start_empty.
  std::size_t ready_blocks = ~std::size_t{0};  // or the capacity, if that is less
  BlockRegistrationDuplicationSetting duplicates = BlockRegistrationDuplicationSetting::Disabled;
  const detail::MetadataTable* metadata = nullptr;  // null: BasicMetadata
  Tier tier = Tier::Device;                         // told in events
  std::shared_ptr<EventSink> events = nullptr;
  EvictionPolicy policy = EvictionPolicy::Lru;
  std::size_t curve_samples = 0;  // blocks that the miss-ratio curve follows; 0: no curve
  RaceHook* race_hook = nullptr;  // of tests; outlives the store
};

// Counters since the store was made, and sizes now.
struct BlockStoreStats {
  std::uint64_t total = 0;
  std::uint64_t available = 0;  // free + evictable
  std::uint64_t free = 0;
  std::uint64_t registered = 0;  // can be matched
  std::uint64_t allocations = 0;
  std::uint64_t registrations = 0;
  std::uint64_t duplicates = 0;  // registrations of a name that was present
  std::uint64_t collisions = 0;  // registrations of a hash that was present with another digest
  std::uint64_t matches = 0;     // blocks found
  std::uint64_t evictions = 0;
  std::uint64_t detached = 0;
};

// Tells which of two restored blocks is newer.
class RestoredAges {
 public:
  virtual bool is_newer(BlockId one, BlockId than) const noexcept = 0;

 protected:
  ~RestoredAges() = default;
};

// What a reset made unmatchable.
struct ResetCounts {
  std::size_t evictable = 0;
  std::size_t still_held = 0;  // valid for their holders, free after their last hold
};

// A block whose content is in its place already, from an earlier life of the pool.
struct RestoredBlock {
  BlockId id;
  BlockId parent_guess = kNoBlock;            // may be wrong, or any number
  std::uint32_t priority = DEFAULT_PRIORITY;  // 0 .. MAX_PRIORITY
  BlockIdentity identity;                     // `epoch` is not looked at
};

// How long a block is wanted, besides what the policy thinks.
struct Retention {
  std::uint32_t priority = DEFAULT_PRIORITY;      // 0 .. MAX_PRIORITY
  std::optional<TimePoint> until = std::nullopt;  // then the default priority; none: for good
  std::uint8_t hint = 0;                          // see RetentionOptions
};

// Thread-safe. No call does I/O or waits for another thread's I/O. Ids given to it must come from
// it and be in the state that the call names; the handles of hold.h see to that.
class BlockStore {
 public:
  struct Closer {
    void operator()(BlockStore* store) const noexcept { store->close(); }
  };
  // The owner's pointer. Blocks may be held longer: whoever comes last deletes the store.
  using Owner = std::unique_ptr<BlockStore, Closer>;

  // `backing` is kept alive as long as any block is held; the store never looks inside.
  // Errors: InvalidConfig unless 1 <= capacity < 2^32 - 256.
  static Result<Owner> create(const BlockStoreOptions& options,
                              std::shared_ptr<void> backing = nullptr);

  BlockStore(const BlockStore&) = delete;
  BlockStore& operator=(const BlockStore&) = delete;

  // --- life of a block; block_store.cc -------------------------------------------------------

  // Absent -> Free. Errors: InvalidMutableBlock{id, capacity} if one does not exist or is not
  // Absent; then nothing is added.
  Result<void> add_blocks(std::span<const BlockId> ids);
  // The next `count` blocks, or as many as there are, may be handed out from now on.
  void make_ready(std::size_t count) noexcept;

  // Fills `out` with Mutable blocks, each with one hold: free ones first, then what the eviction
  // order gives. All or nothing. Returns how many were evicted; their names are appended to
  // `evicted`, if given. Cost: O(out.size()), one lock.
  // Errors: NotEnoughBlocksAvailable{requested, available}; nothing is evicted.
  Result<std::size_t> allocate(std::span<BlockId> out,
                               std::vector<SequenceHash>* evicted = nullptr);

  // The same for one block; kNoBlock if none is available.
  BlockId allocate_one() noexcept;

  // Mutable -> Complete: from now on the block has a name, in the present epoch of its namespace. A
  // second call renames it.
  void complete(BlockId id, const BlockIdentity& identity);
  // Complete -> Mutable: the name is gone, the metadata reset.
  void uncomplete(BlockId id);

  // Complete -> Registered, in order. Each id is replaced by the block that carries its name:
  // itself, or the one that was there first (then the given block is free again). The caller's hold
  // moves along. Returns how many were new. One lock. Errors: BlockNotComplete{requested =
  // position}; then nothing was registered.
  Result<std::size_t> register_blocks(std::span<BlockId> ids);

  // One more hold on a block that is held or pinned. Threads: lock-free unless it is the first.
  void add_hold(BlockId id) noexcept;
  // Gives one hold back. The last hold of an unregistered block frees it. May delete the store.
  void release(BlockId id) noexcept;
  // The same for one hold of each. At most one lock.
  void release(std::span<const BlockId> ids) noexcept;
  // Keeps the store, but no block, alive. May delete the store when given back.
  void add_weak() noexcept;
  void release_weak() noexcept;

  // A Registered block that the caller holds is never matched again. Runs that go through it stay
  // valid. Does nothing if it was detached before.
  void detach(BlockId id);

  // Forgets every registered block, of one namespace or of all: those that nobody holds are the
  // first to be evicted (of one namespace: when their turn comes), the others stay valid for their
  // holders. Nothing that was named before is ever matched again. Cost: O(1), one lock.
  ResetCounts reset();
  ResetCounts reset(NamespaceId name_space);

  // --- blocks that survived; block_store_restore.cc ------------------------------------------
  // Of a store that was started empty and is not shared yet: any number of calls of restore(), then
  // one of finish_restore(). The restored blocks have one hold each then, which is the caller's. To
  // give the holds back in the order in which the blocks were once put makes the eviction order.
  // Until then they are matched like any other block, but not evicted.

  // Absent -> Complete, each with one hold and named in the present epoch of its namespace.
  // Requires: every id once, below the capacity; priorities in range.
  // Cost: O(blocks.size()); ids that grow are the fastest.
  void restore(std::span<const RestoredBlock> blocks);
  // Complete -> Registered, tied to their parents wherever those lie; Absent -> Free, to be handed
  // out in ascending order. Of several blocks with one name the newest stays, or where no age is
  // given the one with the lowest id, whatever their digests are; the others are Free as well and
  // are returned, in ascending order.
  // Counts nothing as a registration and makes no events. Cost: O(capacity); about 20 ns a block,
  // 40 without a right guess, 700 where the parent did not survive.
  std::vector<BlockId> finish_restore(const RestoredAges* ages = nullptr);
  // Makes the Registered events that finish_restore() did not, of those that can still be matched.
  // Cost: O(ids), one lock; none in a store without events.
  void announce(std::span<const BlockId> ids);

  // --- matching; block_store_match.cc --------------------------------------------------------

  // Longest prefix of a chain that is registered here, held as one run. Each name must be the child
  // of the one before it; a run ends where that does not hold. Cost: O(hits), one lock; and for new
  // names that of MissRatioCurve::access().
  RunRef match_run(const Names& chain, Asked asked = Asked::New);

  // Longest prefix of the names that is registered, one hold each, ids in `out`; returns how many.
  // Requires: out.size() >= names.hashes.size().
  std::size_t match(const Names& names, std::span<BlockId> out);

  // Those that are registered, misses skipped: one hold and one entry {position in names, id} each.
  // Cost: O(names), one lock.
  void scan(const Names& names, std::vector<std::pair<std::size_t, BlockId>>& found);
  // Holds the block of this name, if it is registered, for what is no use of it: a copy to another
  // tier. Makes no event, counts no match, protects from nothing else. One lock.
  BlockId borrow(const detail::BlockKey& key);
  // Gives such a hold back: the block is evicted as soon as if it had not been held, unless it was
  // used meanwhile. Of several at once, the last counts as a use. May delete the store. One lock.
  void give_back(BlockId id) noexcept;
  // Makes the longest registered prefix the most recently used, as a match and a drop would.
  // Returns its length. Cost: O(hits), one lock.
  std::size_t touch(const Names& names);

  // Whether the name is registered now. Takes no hold and does not count as use.
  bool contains(SequenceHash hash, NamespaceId name_space = 0) const;
  // The same for many: bit by bit into `present`. One lock. Requires: equal sizes.
  void contains(const Names& names, std::span<bool> present) const;

  // Appends the names of up to `count` blocks that would be evicted next, in about that order, each
  // that can still be matched. Takes no hold and does not count as use. Cost: O(count), one lock.
  void coldest(std::size_t count, std::vector<detail::BlockKey>& out) const;
  // Whether a block that was used so often before is worth more here than what would be evicted for
  // it: always, while there is room or where the policy asks for no more than the last use.
  bool is_worth_a_place(std::uint8_t uses) const;

  // Ids of a held run, root first. Requires: out.size() <= the run's count; then the deepest
  // out.size() blocks are given. Threads: lock-free.
  void run_ids(BlockId deepest, std::span<BlockId> out) const noexcept;

  // What a held Complete or Registered block is. Threads: lock-free but for an orphan's parent.
  BlockIdentity identity(BlockId id) const noexcept;
  bool is_complete(BlockId id) const noexcept;

  // --- what is wanted longer; block_store_retention.cc ---------------------------------------

  // From now on, for blocks that the caller holds. Takes effect when they are unpinned.
  // Errors: InvalidConfig{priority, MAX_PRIORITY}, or if `until` is not in the future; then nothing
  // changes.
  Result<void> retain(std::span<const BlockId> ids, const Retention& retention);
  // The registered prefix of the names is evicted last of all, until it is matched. Returns its
  // length.
  std::size_t protect(const Names& names);
  // One more hold on a held or pinned block, until then or until it is given back.
  // Errors: InvalidConfig if `until` is not in the future.
  Result<LeaseId> lease(BlockId id, TimePoint until);
  // False if the lease has expired or was given back before.
  bool release_lease(LeaseId lease);
  // Tells the time: leases and priorities that are over end now. Never goes back.
  // Cost: O(what ends), one lock.
  void advance(TimePoint now);
  // Whether advance() has anything to do: something that ends, or a policy that learns from time.
  // Threads: lock-free.
  bool wants_time() const noexcept { return wants_time_.load(std::memory_order_relaxed); }

  // Metadata of a held block. basic_metadata() where the pool has no table, metadata() where it
  // has.
  BasicMetadata basic_metadata(BlockId id) const;
  // Errors: InvalidConfig{priority, MAX_PRIORITY}.
  Result<void> set_priority(BlockId id, std::uint32_t priority);
  std::uint32_t priority(BlockId id) const noexcept { return table_.priority(id); }
  // How often its namespace was reset, modulo 65,535: what blocks that are named now carry.
  std::uint16_t epoch(NamespaceId name_space) const noexcept {
    return namespaces_[name_space].epoch.load(std::memory_order_relaxed);
  }
  void* metadata(BlockId id) noexcept { return metadata_.at(id); }
  std::optional<std::uint64_t> offload_priority(BlockId id) const;
  // As a transfer from one pool to another does, retention included. Requires: both have the same
  // metadata type.
  void copy_metadata(BlockId to, const BlockStore& from, BlockId source);

  // What LRU stores of other sizes would have found of the blocks that matches asked for. NaN and
  // nothing without a curve or before the first match.
  double hit_ratio_at(std::size_t blocks) const;
  std::vector<HitRatioPoint> miss_ratio_curve() const;

  std::size_t capacity() const noexcept { return table_.capacity(); }
  std::size_t total_blocks() const noexcept { return total_.load(std::memory_order_relaxed); }
  std::size_t available_blocks() const;
  BlockStoreStats stats() const;
  void* backing() const noexcept { return backing_.get(); }
  // Memory of what the store knows of its blocks.
  std::size_t bookkeeping_bytes() const;

  // Aborts with a message if any structure contradicts another. O(capacity).
  void check_invariants() const;

 private:
  struct Namespace {
    std::atomic<std::uint16_t> epoch{0};
    std::uint32_t registered = 0;  // of this epoch
    std::uint32_t evictable = 0;   // those of them that are not pinned
  };
  struct Lease {
    BlockId id;
    TimePoint until;
  };

  BlockStore(const BlockStoreOptions& options, std::shared_ptr<void> backing);
  ~BlockStore() = default;
  void close() noexcept;

  std::size_t available() const noexcept KVBM_REQUIRES(mutex_) { return free_ + evictable_; }
  bool is_current(const BlockTag& tag) const noexcept {
    return tag.epoch == namespaces_[tag.name_space].epoch.load(std::memory_order_relaxed);
  }
  void meet(RaceWindow window) const noexcept {
    if (race_hook_) race_hook_->at(window);
  }
  BlockId find(SequenceHash hash, NamespaceId name_space) const noexcept KVBM_REQUIRES(mutex_);
  void hold_locked(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void became_held(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  bool release_one_of_many(BlockId id, std::uint32_t seen) noexcept;
  // Whether a hold is a use of the block, after which it is young.
  enum class Use : bool { No, Yes };
  bool release_locked(BlockId id, Use use = Use::Yes) noexcept KVBM_REQUIRES(mutex_);
  void pin(BlockId id, Use use = Use::Yes) noexcept KVBM_REQUIRES(mutex_);
  void unpin(BlockId id, Use use) noexcept KVBM_REQUIRES(mutex_);
  void set_borrowed(BlockId id, bool borrowed) noexcept KVBM_REQUIRES(mutex_);
  void count_evictable(BlockId id, std::int64_t change, std::int64_t matchable) noexcept
      KVBM_REQUIRES(mutex_);
  void put_path_in_order(BlockId deepest, std::size_t length) noexcept KVBM_REQUIRES(mutex_);

  BlockId register_locked(BlockId id, BlockId before) KVBM_REQUIRES(mutex_);
  void make_duplicate(BlockId id, BlockId primary) noexcept KVBM_REQUIRES(mutex_);
  void link(BlockId id, BlockId before) KVBM_REQUIRES(mutex_);
  bool is_parent(BlockId other, BlockId id) const noexcept KVBM_REQUIRES(mutex_);
  std::vector<BlockId> register_restored(const RestoredAges* ages) KVBM_REQUIRES(mutex_);
  void tie_restored() KVBM_REQUIRES(mutex_);
  void tie_by_name(std::span<const BlockId> ids) KVBM_REQUIRES(mutex_);
  void tie(BlockId id, BlockId parent) noexcept KVBM_REQUIRES(mutex_);
  void evict(BlockId id, std::vector<SequenceHash>* evicted) KVBM_REQUIRES(mutex_);
  void take_free(std::span<BlockId> out) noexcept KVBM_REQUIRES(mutex_);
  void evict_into(std::span<BlockId> out, std::vector<SequenceHash>* evicted) KVBM_REQUIRES(mutex_);
  void hand_out(const BlockRows& rows, BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void tell_acquired(std::span<const BlockId> ids) noexcept KVBM_REQUIRES(mutex_);
  void tell_allocated(std::span<const BlockId> ids) KVBM_REQUIRES(mutex_);
  void free_block(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void add_block(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void add_ready(std::size_t count) noexcept KVBM_REQUIRES(mutex_);
  std::size_t free_unregistered(std::span<const BlockId> ids) noexcept KVBM_REQUIRES(mutex_);
  ResetCounts reset_locked(NamespaceId name_space) KVBM_REQUIRES(mutex_);
  void sweep_epochs(NamespaceId name_space) noexcept KVBM_REQUIRES(mutex_);

  std::uint64_t matchable_tag(NamespaceId name_space) const noexcept;
  class Scattered;
  template <class Visit>
  std::size_t walk(const Names& names, bool as_chain, BlockId& deepest, const Visit& visit) const
      KVBM_REQUIRES(mutex_);
  template <class Visit>
  std::size_t walk_neighbours(const Names& names, std::size_t first, BlockId previous, BlockId step,
                              const Visit& visit) const KVBM_REQUIRES(mutex_);
  std::size_t walk_and_hold(const Names& names, std::span<BlockId> out) KVBM_REQUIRES(mutex_);
  void prefetch_first(const Names& names) const noexcept;
  void prefetch_chain(BlockId first, std::size_t length) const noexcept KVBM_REQUIRES(mutex_);

  std::size_t level_of(BlockId id) const noexcept KVBM_REQUIRES(mutex_);
  bool is_special(BlockId id) const noexcept KVBM_REQUIRES(mutex_);
  void retain_locked(BlockId id, const Retention& retention) KVBM_REQUIRES(mutex_);
  void set_level(BlockId id, std::uint32_t priority, bool is_protected) noexcept
      KVBM_REQUIRES(mutex_);
  void change_level(BlockId id, std::uint32_t priority, bool is_protected) noexcept
      KVBM_REQUIRES(mutex_);
  void set_hint(BlockId id, std::uint8_t hint) noexcept KVBM_REQUIRES(mutex_);
  void make_ordinary(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void unprotect(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void drop_expiry(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void expire(TimePoint now) KVBM_REQUIRES(mutex_);
  void update_wants_time() noexcept KVBM_REQUIRES(mutex_);

  void ask(std::span<const SequenceHash> hashes) noexcept KVBM_REQUIRES(mutex_);
  void note(BlockEvent::Kind kind, BlockId id) KVBM_REQUIRES(mutex_);
  void publish() noexcept KVBM_REQUIRES(mutex_);
  void check_places() const KVBM_REQUIRES(mutex_);
  void check_ties() const KVBM_REQUIRES(mutex_);
  void check_names() const KVBM_REQUIRES(mutex_);
  void check_retention() const KVBM_REQUIRES(mutex_);

  const BlockRegistrationDuplicationSetting duplicates_;
  const Tier tier_;
  const std::shared_ptr<EventSink> events_;
  const std::shared_ptr<void> backing_;
  RaceHook* const race_hook_;
  MetadataArray metadata_;
  std::atomic<std::size_t> total_{0};              // blocks that are not Absent, or not ready yet
  std::size_t ready_ KVBM_GUARDED_BY(mutex_) = 0;  // ids below may be in use
  std::atomic<bool> wants_time_{false};
  std::array<Namespace, 256> namespaces_;

  mutable Mutex mutex_;
  BlockTable table_;  // rows of held blocks belong to their holders, the others to the mutex
  LargeArray<std::uint32_t> acquired_ticks_;  // BasicMetadata; the low halves
  HashIndex index_ KVBM_GUARDED_BY(mutex_);
  Orphans orphans_ KVBM_GUARDED_BY(mutex_);
  const std::unique_ptr<EvictionOrder> order_ KVBM_PT_GUARDED_BY(mutex_);
  const bool order_wants_paths_;
  std::vector<BlockId> path_ KVBM_GUARDED_BY(mutex_);  // of the running call
  BlockId first_free_ KVBM_GUARDED_BY(mutex_) = kNoBlock;
  BlockId last_free_ KVBM_GUARDED_BY(mutex_) = kNoBlock;  // if any is free
  std::size_t free_ KVBM_GUARDED_BY(mutex_) = 0;
  std::size_t evictable_ KVBM_GUARDED_BY(mutex_) = 0;  // registered or detached, and not pinned
  std::size_t held_ KVBM_GUARDED_BY(mutex_) = 0;       // blocks with holds > 0
  std::size_t special_ KVBM_GUARDED_BY(mutex_) = 0;    // blocks that retention knows of
  // From one block of a chain to the next: 1 or -1, as it was last.
  mutable BlockId likely_step_ KVBM_GUARDED_BY(mutex_) = 1;
  std::size_t weak_ KVBM_GUARDED_BY(mutex_) = 0;
  bool closed_ KVBM_GUARDED_BY(mutex_) = false;
  std::uint64_t tick_ KVBM_GUARDED_BY(mutex_) = 0;

  TimePoint now_ KVBM_GUARDED_BY(mutex_) = TimePoint::min();
  std::unordered_map<LeaseId, Lease> leases_ KVBM_GUARDED_BY(mutex_);
  std::set<std::pair<TimePoint, LeaseId>> lease_ends_ KVBM_GUARDED_BY(mutex_);
  LeaseId next_lease_ KVBM_GUARDED_BY(mutex_) = 1;
  std::unordered_map<BlockId, TimePoint> expiries_ KVBM_GUARDED_BY(mutex_);  // of priorities
  std::set<std::pair<TimePoint, BlockId>> expiry_ends_ KVBM_GUARDED_BY(mutex_);

  std::optional<MissRatioCurve> curve_ KVBM_GUARDED_BY(mutex_);
  std::vector<BlockEvent> noted_ KVBM_GUARDED_BY(mutex_);  // of the running call
  BlockStoreStats counters_ KVBM_GUARDED_BY(mutex_);
};

}  // namespace kvbm
