// The blocks of one pool: which are free, which are held, which may be evicted, and which sequence
// hash each one carries. Knows nothing of memory; a block is a number here.
//
// Life of a block:  Absent -> Free -> Mutable -> Complete -> Registered -> Free
//                   a Registered block that must never be matched again becomes Detached: it keeps
//                   its ties and its holds, and is evicted like any other.
//                   a Complete block whose hash is registered already becomes a Duplicate where the
//                   pool allows them: held, never matched, free after its last hold. It holds the
//                   registered block as well.
//
// Holds. Every handle is one hold, counted in the block's slot. A count moves between 0 and 1 only
// under the mutex; all other changes are lock-free.
//
// Pins. A registered block is pinned while it has a hold or a pinned child, so one hold on the
// deepest block of a chain keeps the whole chain. A block joins the evictable list at the moment it
// becomes unpinned; children are unpinned before their parents, hence
//   invariant: of two evictable blocks the child is nearer the head than its parent.
// Evicting the head therefore always takes a leaf, in O(1), and the list is the LRU order in which
// a sequence leaves deepest block first.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "kvbm/metadata.h"
#include "kvbm/result.h"
#include "kvbm/types.h"
#include "logical/pool/identity.h"
#include "logical/pool/metadata_array.h"
#include "logical/registry/registry.h"
#include "observe/event_sink.h"

namespace kvbm {

// A matched chain: `count` blocks that end in `deepest`, which carries one hold. count 0 = a miss.
struct RunRef {
  BlockId deepest = kNoBlock;
  std::uint32_t count = 0;
};

struct BlockStoreOptions {
  std::size_t capacity;      // blocks that there may ever be
  bool start_empty = false;  // all Absent, until add_blocks()
  BlockRegistrationDuplicationSetting duplicates = BlockRegistrationDuplicationSetting::Disabled;
  const detail::MetadataTable* metadata = nullptr;  // null: BasicMetadata
  Tier tier = Tier::Device;                         // told in events
  std::shared_ptr<EventSink> events = nullptr;
};

// Counters since the store was made, and sizes now.
struct BlockStoreStats {
  std::uint64_t total = 0;
  std::uint64_t available = 0;  // free + evictable
  std::uint64_t free = 0;
  std::uint64_t registered = 0;
  std::uint64_t allocations = 0;
  std::uint64_t registrations = 0;
  std::uint64_t duplicates = 0;  // registrations of a hash that was present
  std::uint64_t matches = 0;     // blocks found
  std::uint64_t evictions = 0;
  std::uint64_t detached = 0;
};

struct ResetCounts {
  std::size_t freed = 0;
  std::size_t still_held = 0;  // never matched again, free after their last hold
};

// Thread-safe. No call does I/O or waits for another thread's I/O. Ids given to it must come from
// it and be in the state that the call names; the handles of handle.h see to that.
class BlockStore {
 public:
  struct Closer {
    void operator()(BlockStore* store) const noexcept { store->close(); }
  };
  // The owner's pointer. Blocks may be held longer: whoever comes last deletes the store.
  using Owner = std::unique_ptr<BlockStore, Closer>;

  // `backing` is kept alive as long as any block is held; the store never looks inside.
  // Errors: InvalidConfig unless 1 <= capacity < 2^32 - 1.
  static Result<Owner> create(const BlockStoreOptions& options,
                              std::shared_ptr<void> backing = nullptr);

  BlockStore(const BlockStore&) = delete;
  BlockStore& operator=(const BlockStore&) = delete;

  // Absent -> Free. Errors: InvalidMutableBlock{id, capacity} if one does not exist or is not
  // Absent; then nothing is added.
  Result<void> add_blocks(std::span<const BlockId> ids);

  // Fills `out` with Mutable blocks, each with one hold: free ones first, then the coldest
  // evictable ones. All or nothing. Returns how many were evicted. Cost: O(out.size()), one
  // lock.
  // Errors: NotEnoughBlocksAvailable{requested, available}; nothing is evicted.
  Result<std::size_t> allocate(std::span<BlockId> out);

  // Mutable -> Complete: from now on the block has a name. A second call renames it.
  void complete(BlockId id, const BlockIdentity& identity);
  // Complete -> Mutable: the name is gone, the metadata reset.
  void uncomplete(BlockId id);

  // Complete -> Registered, in order. Each id is replaced by the block that carries its hash:
  // itself, or the one that was there first (then the given block is free again). The caller's hold
  // moves along. Returns how many were new. One lock. Errors: BlockNotComplete{requested =
  // position}; then nothing was registered.
  Result<std::size_t> register_blocks(std::span<BlockId> ids);

  // Longest prefix of `chain` that is registered here, held as one run. Each hash must be the child
  // of the one before it; a run ends where that does not hold. Cost: O(hits), one lock.
  RunRef match_run(std::span<const SequenceHash> chain);

  // Longest prefix of `hashes` that is registered, one hold each, ids in `out`; returns how many.
  // Requires: out.size() >= hashes.size().
  std::size_t match(std::span<const SequenceHash> hashes, std::span<BlockId> out);

  // Those of `hashes` that are registered, misses skipped: one hold and one entry {position in
  // hashes, id} each. Cost: O(hashes), one lock.
  void scan(std::span<const SequenceHash> hashes,
            std::vector<std::pair<std::size_t, BlockId>>& found);
  // Makes the longest registered prefix the most recently used, as a match and a drop would.
  // Returns its length. Cost: O(hits), one lock.
  std::size_t touch(std::span<const SequenceHash> hashes);

  // Forgets every registered block: those that nobody holds are free, the others stay valid for
  // their holders and are never matched again. Cost: O(capacity), one lock.
  ResetCounts reset();

  // Whether the hash is registered now. Takes no hold and does not count as use.
  bool contains(SequenceHash hash) const;

  // One more hold on a block that is held or pinned. Threads: lock-free unless it is the first.
  void add_hold(BlockId id) noexcept;
  // Gives one hold back. The last hold of an unregistered block frees it. May delete the store.
  void release(BlockId id) noexcept;
  // Keeps the store, but no block, alive. May delete the store when given back.
  void add_weak() noexcept;
  void release_weak() noexcept;

  // A Registered block that the caller holds is never matched again. Runs that go through it stay
  // valid. Does nothing if it was detached before.
  void detach(BlockId id);

  // Ids of a held run, root first. Requires: out.size() <= the run's count; then the deepest
  // out.size() blocks are given. Threads: lock-free.
  void run_ids(BlockId deepest, std::span<BlockId> out) const noexcept;

  // What a held Complete or Registered block is. Threads: lock-free.
  BlockIdentity identity(BlockId id) const noexcept;
  bool is_complete(BlockId id) const noexcept;

  // Metadata of a held block. basic_metadata() where the pool has no table, metadata() where it
  // has.
  BasicMetadata basic_metadata(BlockId id) const;
  void set_priority(BlockId id, std::uint32_t priority);
  void* metadata(BlockId id) noexcept { return metadata_.at(id); }
  std::optional<std::uint64_t> offload_priority(BlockId id) const;
  // As a transfer from one pool to another does. Requires: both have the same metadata type.
  void copy_metadata(BlockId to, const BlockStore& from, BlockId source);

  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t total_blocks() const noexcept { return total_.load(std::memory_order_relaxed); }
  std::size_t available_blocks() const;
  BlockStoreStats stats() const;
  void* backing() const noexcept { return backing_.get(); }

  // Aborts with a message if any structure contradicts another. O(capacity).
  void check_invariants() const;

 private:
  enum class State : std::uint8_t {
    Absent,
    Free,
    Mutable,
    Complete,
    Registered,
    Detached,
    Duplicate,
  };

  // While a block is held, only its holder's thread writes the identity fields of its slot and
  // `parent` does not change unless an orphan is adopted, so that they can be read without the
  // lock.
  struct Slot {
    std::atomic<std::uint32_t> holds{0};
    BlockId prev = kNoBlock;  // free list or evictable list
    BlockId next = kNoBlock;
    BlockId parent = kNoBlock;          // of a Duplicate: the registered block
    std::uint32_t children = 0;         // registered here with this block as parent
    std::uint32_t pinned_children = 0;  // those of them that are pinned
    SequenceHash hash;
    SequenceHash parent_hash;
    std::uint32_t position = 0;
    std::uint32_t priority = 0;  // BasicMetadata, with the low halves of its ticks
    std::uint32_t returned_tick = 0;
    std::uint32_t acquired_tick = 0;
    std::uint16_t token_count = 0;
    std::atomic<State> state{State::Absent};
  };

  struct List {
    BlockId head = kNoBlock;
    BlockId tail = kNoBlock;
    std::size_t size = 0;
  };

  BlockStore(const BlockStoreOptions& options, std::shared_ptr<void> backing);
  ~BlockStore() = default;
  void close() noexcept;

  void push_back(List& list, BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void remove(List& list, BlockId id) noexcept KVBM_REQUIRES(mutex_);
  bool is_pinned(const Slot& slot) const noexcept;
  void hold_locked(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void pin(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void unpin(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void link(BlockId id) KVBM_REQUIRES(mutex_);
  void unlink(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  bool release_locked(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void free_slot(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void evict(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void on_acquired(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void on_returned(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  void note(BlockEvent::Kind kind, BlockId id) KVBM_REQUIRES(mutex_);
  void publish() noexcept KVBM_REQUIRES(mutex_);
  std::uint64_t widen(std::uint32_t tick) const noexcept KVBM_REQUIRES(mutex_);
  void check_lists() const KVBM_REQUIRES(mutex_);
  void check_links() const KVBM_REQUIRES(mutex_);

  const std::size_t capacity_;
  const BlockRegistrationDuplicationSetting duplicates_;
  const Tier tier_;
  const std::shared_ptr<EventSink> events_;
  const std::shared_ptr<void> backing_;
  const std::unique_ptr<Slot[]> slots_;
  MetadataArray metadata_;
  std::atomic<std::size_t> total_{0};  // blocks that are not Absent

  mutable Mutex mutex_;
  BlockRegistry registry_ KVBM_GUARDED_BY(mutex_);
  List free_ KVBM_GUARDED_BY(mutex_);
  List evictable_ KVBM_GUARDED_BY(mutex_);
  std::size_t held_ KVBM_GUARDED_BY(mutex_) = 0;  // slots with holds > 0
  std::size_t weak_ KVBM_GUARDED_BY(mutex_) = 0;
  bool closed_ KVBM_GUARDED_BY(mutex_) = false;
  std::uint64_t tick_ KVBM_GUARDED_BY(mutex_) = 0;
  std::vector<BlockEvent> noted_ KVBM_GUARDED_BY(mutex_);  // of the running call
  BlockStoreStats counters_ KVBM_GUARDED_BY(mutex_);
};

}  // namespace kvbm
