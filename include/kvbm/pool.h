// A pool hands out the fixed set of blocks of one tier and takes them back.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kvbm/block.h"
#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm {

// Counters since the pool was made, and sizes now; all in blocks.
struct PoolStats {
  std::uint64_t total_blocks = 0;
  std::uint64_t available_blocks = 0;   // free or evictable
  std::uint64_t registered_blocks = 0;  // can be matched
  std::uint64_t allocations = 0;
  std::uint64_t registrations = 0;
  std::uint64_t duplicates = 0;  // registrations of a block that was there already
  std::uint64_t evictions = 0;
  std::uint64_t quarantined = 0;  // taken out of matching because their bytes were wrong
};

namespace detail {

class TierPool;

std::size_t total_blocks(const TierPool& pool) noexcept;
std::size_t available_blocks(const TierPool& pool);
PoolStats stats(const TierPool& pool);
Result<std::vector<MutableHold>> allocate_blocks(TierPool& pool, std::size_t count);
Result<std::vector<ImmutableHold>> register_blocks(TierPool& pool,
                                                   std::vector<CompleteHold> blocks);
std::vector<ImmutableHold> match_hashes(TierPool& pool, std::span<const SequenceHash> hashes);
RunHold match_chain(TierPool& pool, std::span<const SequenceHash> hashes);

template <class To, class From>
std::vector<To> wrap_all(std::vector<From> holds) {
  std::vector<To> wrapped;
  wrapped.reserve(holds.size());
  for (From& hold : holds) wrapped.emplace_back(std::move(hold));
  return wrapped;
}

}  // namespace detail

// Made and owned by KvBlockManager. Thread-safe: one mutex; no call waits for another thread's I/O.
template <class S>
class BlockPool {
 public:
  explicit BlockPool(detail::TierPool* pool) : pool_(pool) {}

  std::size_t total_blocks() const noexcept { return detail::total_blocks(*pool_); }
  // Free plus evictable blocks at one instant; stale as soon as it is returned.
  std::size_t available_blocks() const { return detail::available_blocks(*pool_); }
  PoolStats stats() const { return detail::stats(*pool_); }

  // Takes `count` writable blocks: free ones first, then the coldest evictable leaves. All or
  // nothing. Their bytes are whatever was there. Cost: O(count), one lock.
  // Errors: NotEnoughBlocksAvailable{requested, available}; nothing is evicted.
  Result<std::vector<MutableBlock<S>>> allocate_blocks(std::size_t count) {
    KVBM_TRY(auto holds, detail::allocate_blocks(*pool_, count));
    return detail::wrap_all<MutableBlock<S>>(std::move(holds));
  }

  // Makes blocks that you filled visible to matches, in order, and offers them to the tier below.
  // Where a hash is registered already, the answer is the block that was there first and the given
  // one is free again. Outside the device tier the bytes are summed now, on this thread.
  // Cost: O(blocks), one lock, plus the summing.
  // Errors: InvalidMutableBlock{position, count} for an empty handle or one of another pool;
  // NotAccessible in the disk tier, whose blocks only a transfer can fill. Then nothing is
  // registered and the blocks are free.
  Result<std::vector<ImmutableBlock<S>>> register_blocks(std::vector<CompleteBlock<S>> blocks) {
    std::vector<detail::CompleteHold> holds;
    holds.reserve(blocks.size());
    for (auto& block : blocks) holds.push_back(block.take_hold());
    KVBM_TRY(auto registered, detail::register_blocks(*pool_, std::move(holds)));
    return detail::wrap_all<ImmutableBlock<S>>(std::move(registered));
  }

  // Longest prefix of `hashes` that is registered here; empty if the first one misses. A miss is an
  // answer. Cost: O(hits), one lock.
  std::vector<ImmutableBlock<S>> match_sequence_hashes(std::span<const SequenceHash> hashes) {
    return detail::wrap_all<ImmutableBlock<S>>(detail::match_hashes(*pool_, hashes));
  }
  // The same as one run; each hash must name the child of the one before it.
  BlockRun<S> match_run(std::span<const SequenceHash> hashes) {
    return BlockRun<S>(detail::match_chain(*pool_, hashes));
  }

 private:
  detail::TierPool* pool_;
};

}  // namespace kvbm
