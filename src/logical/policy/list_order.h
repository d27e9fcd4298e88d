// The orders that a list per level is enough for: least recently used, and first in, first out.
//
// Lru. One entry stands for a whole path: when the deepest block of a path is evicted its parent
// takes its place at the front. Blocks become unpinned children first, so of two listed blocks of
// one level the child is nearer the front than its parent, and the front is the coldest leaf.
//
// Fifo. A block keeps the place that it got when it first became evictable. Its turn may come while
// it is pinned or has children; then it is set aside, and is the very next victim of its level once
// it is an evictable leaf.
#pragma once

#include <array>
#include <cstdint>

#include "logical/policy/eviction_order.h"

namespace kvbm {

class ListOrder final : public EvictionOrder {
 public:
  // The table must have kLevels extra places: the heads of the lists.
  ListOrder(BlockTable& table, EvictionPolicy policy) noexcept;

  void add(BlockId id, std::size_t level) noexcept override;
  void add_leaf(BlockId id, std::size_t level) noexcept override;
  void pinned(BlockId id) noexcept override;
  void borrowed(BlockId) noexcept override {}  // it keeps its place
  void given_back(BlockId id, std::size_t level) noexcept override;
  void remove(BlockId id) noexcept override;
  BlockId pop() noexcept override;
  std::size_t coldest(std::span<BlockId> out) const noexcept override;
  void forget_all() noexcept override;
  bool wants_paths() const noexcept override { return keeps_places_; }
  void added(std::span<const BlockId> path) noexcept override;
  void check_invariants() const override;

 private:
  BlockId head_of(std::size_t level) const noexcept {
    return static_cast<BlockId>(table_.capacity() + level);
  }
  void insert_before(BlockId next, BlockId id) noexcept;
  void push_back(BlockId id, std::size_t level) noexcept;
  void push_front(BlockId id, std::size_t level) noexcept;
  std::size_t lowest_level() const noexcept;

  BlockTable& table_;
  const bool keeps_places_;
  std::array<std::uint64_t, (kLevels + 63) / 64> used_{};  // levels whose list is not empty
};

}  // namespace kvbm
