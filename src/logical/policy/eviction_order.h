// Which evictable block goes first.
//
// A block can be evicted when it is unpinned and no child of it is in the pool: leaves only, so
// that no order ever leaves a block that cannot be reached. What an order sees of a block is its
// row in the block table; it keeps `listed` and `kPlaced` there. The lowest level goes first:
//   level 0          of an epoch that is over
//   level 1 + p      of priority p
//   level 1 + 101    protected until used
// Not thread-safe: the pool's mutex guards it. No call allocates or scans.
#pragma once

#include <cstdint>
#include <span>

#include "kvbm/types.h"
#include "logical/registry/block_table.h"

namespace kvbm {

inline constexpr std::size_t kLevelForgotten = 0;
inline constexpr std::size_t kLevelProtected = 1 + (MAX_PRIORITY + 1);
inline constexpr std::size_t kLevels = kLevelProtected + 1;

class EvictionOrder {
 public:
  virtual ~EvictionOrder() = default;

  // The block has become unpinned, the deepest of its path to do so, or the deepest of its level.
  // Younger than all that came before.
  virtual void add(BlockId id, std::size_t level) noexcept = 0;
  // The block, unpinned and not listed, has lost its last child. It is the next one of its level,
  // unless the order has a better place for it.
  virtual void add_leaf(BlockId id, std::size_t level) noexcept = 0;
  // A listed block has become pinned.
  virtual void pinned(BlockId id) noexcept = 0;
  // A listed block has become pinned, but will come back as if it had not.
  virtual void borrowed(BlockId id) noexcept = 0;
  // A block that was borrowed, listed then or not, has become unpinned.
  virtual void given_back(BlockId id, std::size_t level) noexcept = 0;
  // A listed block leaves.
  virtual void remove(BlockId id) noexcept = 0;
  // Takes out the block to evict. Requires: an unpinned block.
  virtual BlockId pop() noexcept = 0;
  // The listed blocks that go first, in about the order in which pop() would take them, not those
  // that were forgotten; returns how many. Cost: O(out.size()) and at most as much again for blocks
  // that are set aside.
  virtual std::size_t coldest(std::span<BlockId> out) const noexcept = 0;
  // Whether a block that was used so often before would be worth as much as the next victim.
  virtual bool is_worth_a_victim(std::uint8_t /*uses*/) const noexcept { return true; }
  // All that are listed go before all others from now on.
  virtual void forget_all() noexcept = 0;

  // For orders that want them: a match has found these blocks, root first, and pinned them; a path
  // has become unpinned together, deepest block first, which is added next.
  virtual bool wants_paths() const noexcept { return false; }
  virtual void matched(std::span<const BlockId> /*found*/) noexcept {}
  virtual void released(std::span<const BlockId> /*path*/) noexcept {}
  // The same path, after what is added of it was added.
  virtual void added(std::span<const BlockId> /*path*/) noexcept {}
  // Likewise: the block was just registered, or is about to be evicted; its hash is in the table.
  virtual void registered(BlockId /*id*/) noexcept {}
  virtual void evicted(BlockId /*id*/) noexcept {}
  // Time for what ages. Nanoseconds of any clock that does not go back.
  virtual bool wants_time() const noexcept { return false; }
  virtual void advance(std::int64_t /*now_ns*/) noexcept {}

  virtual std::size_t bytes() const noexcept { return 0; }
  virtual void check_invariants() const {}
};

}  // namespace kvbm
