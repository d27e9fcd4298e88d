// AgeIndexOrder as an order of a pool: told what the pool tells every order.
#pragma once

#include <vector>

#include "logical/policy/age_index.h"
#include "logical/policy/eviction_order.h"

namespace kvbm {

static_assert(AgeIndexOrder::kMaxLevel == kLevels - 1);

class AgeOrder final : public EvictionOrder {
 public:
  static constexpr std::size_t kMaxCapacity = (std::size_t{1} << 31) - 1;

  // Requires: table.capacity() <= kMaxCapacity.
  explicit AgeOrder(BlockTable& table);

  void add(BlockId id, std::size_t level) noexcept override;
  void add_leaf(BlockId id, std::size_t level) noexcept override;
  void borrowed(BlockId id) noexcept override { remove(id); }
  void given_back(BlockId id, std::size_t level) noexcept override { add(id, level); }
  void pinned(BlockId id) noexcept override { remove(id); }
  void remove(BlockId id) noexcept override;
  BlockId pop() noexcept override;
  std::size_t coldest(std::span<BlockId> out) const noexcept override {
    return order_.coldest(out);
  }
  bool is_worth_a_victim(std::uint8_t uses) const noexcept override {
    return order_.is_worth_a_victim(uses, now_ns_);
  }
  void forget_all() noexcept override { order_.forget_all(); }

  bool wants_paths() const noexcept override { return true; }
  void matched(std::span<const BlockId> found) noexcept override;
  void released(std::span<const BlockId> path) noexcept override;
  void registered(BlockId id) noexcept override;
  void evicted(BlockId id) noexcept override;
  bool wants_time() const noexcept override { return true; }
  void advance(std::int64_t now_ns) noexcept override { now_ns_ = now_ns; }

  std::size_t bytes() const noexcept override;
  void check_invariants() const override;

 private:
  BlockTable& table_;
  AgeIndexOrder order_;
  std::vector<PathBlock> path_;  // of the running call; has room for every block
  std::int64_t now_ns_ = 0;
};

}  // namespace kvbm
