// The blocks of one pool: which are free, which are held, which may be evicted, and which sequence
// hash each one carries. Knows nothing of memory; a block is a number here.
//
// Life of a block:  Free -> Mutable -> Complete -> Registered -> Free
//                   a Registered block that must never be matched again becomes Detached: it keeps
//                   its ties and its holds, and is evicted like any other.
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
#include <span>
#include <vector>

#include "base/mutex.h"
#include "kvbm/result.h"
#include "kvbm/types.h"
#include "logical/pool/identity.h"
#include "logical/registry/registry.h"

namespace kvbm {

// A matched chain: `count` blocks that end in `deepest`, which carries one hold. count 0 = a miss.
struct RunRef {
  BlockId deepest = kNoBlock;
  std::uint32_t count = 0;
};

// Counters since the store was made, and sizes now.
struct BlockStoreStats {
  std::uint64_t total = 0;
  std::uint64_t available = 0;  // free + evictable
  std::uint64_t registered = 0;
  std::uint64_t allocations = 0;
  std::uint64_t registrations = 0;
  std::uint64_t duplicates = 0;  // registrations of a hash that was present
  std::uint64_t evictions = 0;
  std::uint64_t detached = 0;
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
  // Errors: InvalidConfig unless 1 <= total_blocks < 2^32 - 1.
  static Result<Owner> create(std::size_t total_blocks, std::shared_ptr<const void> backing = {});

  BlockStore(const BlockStore&) = delete;
  BlockStore& operator=(const BlockStore&) = delete;

  // Fills `out` with Mutable blocks, each with one hold: free ones first, then the coldest
  // evictable ones. All or nothing. Cost: O(out.size()), one lock.
  // Errors: NotEnoughBlocksAvailable{requested, available}; nothing is evicted.
  Result<void> allocate(std::span<BlockId> out);

  // Mutable -> Complete: from now on the block has a name. Errors: none; a second call renames.
  void complete(BlockId id, const BlockIdentity& identity);

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

  // Whether the hash is registered now. Takes no hold and does not count as use.
  bool contains(SequenceHash hash) const;

  // One more hold on a block that is held or pinned. Threads: lock-free unless it is the first.
  void add_hold(BlockId id) noexcept;
  // Gives one hold back. The last hold of an unregistered block frees it. May delete the store.
  void release(BlockId id) noexcept;

  // A Registered block that the caller holds is never matched again. Runs that go through it stay
  // valid. Does nothing if it was detached before.
  void detach(BlockId id);

  // Ids of a held run, root first. Requires: out.size() <= the run's count; then the deepest
  // out.size() blocks are given. Threads: lock-free.
  void run_ids(BlockId deepest, std::span<BlockId> out) const noexcept;

  // What a held Complete or Registered block is. Threads: lock-free.
  BlockIdentity identity(BlockId id) const noexcept;
  bool is_complete(BlockId id) const noexcept;

  std::size_t total_blocks() const noexcept { return total_; }
  std::size_t available_blocks() const;
  BlockStoreStats stats() const;
  const void* backing() const noexcept { return backing_.get(); }

  // Aborts with a message if any structure contradicts another. O(total_blocks).
  void check_invariants() const;

 private:
  enum class State : std::uint8_t { Free, Mutable, Complete, Registered, Detached };

  // While a block is held, only its holder's thread writes the identity fields of its slot and
  // `parent` does not change unless an orphan is adopted, so that they can be read without the
  // lock.
  struct Slot {
    std::atomic<std::uint32_t> holds{0};
    BlockId prev = kNoBlock;  // free list or evictable list
    BlockId next = kNoBlock;
    BlockId parent = kNoBlock;
    std::uint32_t children = 0;         // registered here with this block as parent
    std::uint32_t pinned_children = 0;  // those of them that are pinned
    SequenceHash hash;
    SequenceHash parent_hash;
    std::uint32_t token_count = 0;
    std::uint32_t position = 0;
    std::atomic<State> state{State::Free};
  };

  struct List {
    BlockId head = kNoBlock;
    BlockId tail = kNoBlock;
    std::size_t size = 0;
  };

  BlockStore(std::size_t total_blocks, std::shared_ptr<const void> backing);
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
  void free_slot(BlockId id) noexcept KVBM_REQUIRES(mutex_);
  BlockId evict_coldest() noexcept KVBM_REQUIRES(mutex_);
  void check_lists() const KVBM_REQUIRES(mutex_);
  void check_links() const KVBM_REQUIRES(mutex_);

  const std::size_t total_;
  const std::shared_ptr<const void> backing_;
  const std::unique_ptr<Slot[]> slots_;

  mutable Mutex mutex_;
  Registry registry_ KVBM_GUARDED_BY(mutex_);
  List free_ KVBM_GUARDED_BY(mutex_);
  List evictable_ KVBM_GUARDED_BY(mutex_);
  std::size_t held_ KVBM_GUARDED_BY(mutex_) = 0;  // slots with holds > 0
  bool closed_ KVBM_GUARDED_BY(mutex_) = false;
  BlockStoreStats counters_ KVBM_GUARDED_BY(mutex_);
};

}  // namespace kvbm
