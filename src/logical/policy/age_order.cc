#include "logical/policy/age_order.h"

#include <algorithm>

#include "logical/policy/check.h"

namespace kvbm {

AgeOrder::AgeOrder(BlockTable& table) : table_(table), order_(table.capacity()) {
  path_.reserve(table.capacity());
}

void AgeOrder::add(BlockId id, std::size_t level) noexcept {
  if (table_.ties(id).children == 0) add_leaf(id, level);
}

void AgeOrder::add_leaf(BlockId id, std::size_t level) noexcept {
  order_.insert(id, static_cast<std::uint32_t>(level));
  table_.ties(id).listed = 1;
}

void AgeOrder::remove(BlockId id) noexcept {
  order_.remove(id);
  table_.ties(id).listed = 0;
}

BlockId AgeOrder::pop() noexcept {
  const BlockId id = order_.victim(now_ns_);
  remove(id);
  return id;
}

void AgeOrder::matched(std::span<const BlockId> found) noexcept { order_.on_match(found, now_ns_); }

void AgeOrder::released(std::span<const BlockId> path) noexcept {
  path_.clear();
  for (std::size_t i = path.size(); i > 0; --i) {
    path_.push_back({path[i - 1], table_.hash(path[i - 1])});
  }
  order_.on_request(path_, table_.rest(path.front()).flags & block_flags::kHint, now_ns_);
}

void AgeOrder::registered(BlockId id) noexcept { order_.on_insert(id, table_.hash(id)); }

void AgeOrder::evicted(BlockId id) noexcept {
  if (table_.stage(id) == BlockStage::Registered) {
    order_.on_evict(id, table_.hash(id));
  } else {
    order_.on_discard(id);
  }
}

std::size_t AgeOrder::bytes() const noexcept {
  return sizeof *this + order_.bytes() + path_.capacity() * sizeof(PathBlock);
}

void AgeOrder::check_invariants() const {
  order_.check_invariants();
  for (BlockId id = 0; id < table_.capacity(); ++id) {
    policy_check(order_.contains(id) == (table_.ties(id).listed == 1),
                 "a listed block is in the order");
  }
}

}  // namespace kvbm
