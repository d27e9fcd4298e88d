#include "logical/policy/list_order.h"

#include <bit>
#include <cassert>
#include <cstdio>
#include <cstdlib>

namespace kvbm {

ListOrder::ListOrder(BlockTable& table, EvictionPolicy policy) noexcept
    : table_(table), keeps_places_(policy == EvictionPolicy::Fifo) {
  for (std::size_t level = 0; level < kLevels; ++level) {
    table_.place(head_of(level)) = {head_of(level), head_of(level)};
  }
}

void ListOrder::insert_before(BlockId next, BlockId id) noexcept {
  const BlockId prev = table_.place(next).prev;
  table_.place(id) = {prev, next};
  table_.place(prev).next = id;
  table_.place(next).prev = id;
  table_.ties(id).listed = 1;
}

void ListOrder::push_back(BlockId id, std::size_t level) noexcept {
  insert_before(head_of(level), id);
  used_[level / 64] |= std::uint64_t{1} << level % 64;
}

void ListOrder::push_front(BlockId id, std::size_t level) noexcept {
  insert_before(table_.place(head_of(level)).next, id);
  used_[level / 64] |= std::uint64_t{1} << level % 64;
}

void ListOrder::remove(BlockId id) noexcept {
  const BlockPlace place = table_.place(id);
  table_.place(place.prev).next = place.next;
  table_.place(place.next).prev = place.prev;
  table_.ties(id).listed = 0;
  if (place.prev == place.next && place.prev >= table_.capacity()) {  // only the head is left
    const std::size_t level = place.prev - table_.capacity();
    used_[level / 64] &= ~(std::uint64_t{1} << level % 64);
  }
}

void ListOrder::add(BlockId id, std::size_t level) noexcept {
  if (!keeps_places_) {
    if (table_.ties(id).listed) remove(id);  // it was borrowed, and used meanwhile
    return push_back(id, level);
  }
  if (table_.ties(id).listed) return;
  std::uint8_t& flags = table_.rest(id).flags;
  if ((flags & block_flags::kPlaced) == 0) {
    flags |= block_flags::kPlaced;
    push_back(id, level);
  } else if (table_.ties(id).children == 0) {
    push_front(id, level);
  }
}

void ListOrder::added(std::span<const BlockId> path) noexcept {
  for (const BlockId id : path) table_.rest(id).flags |= block_flags::kPlaced;
}

void ListOrder::add_leaf(BlockId id, std::size_t level) noexcept { push_front(id, level); }

void ListOrder::pinned(BlockId id) noexcept {
  if (!keeps_places_) remove(id);
}

// If its place is gone, its turn had come.
void ListOrder::given_back(BlockId id, std::size_t level) noexcept {
  if (!table_.ties(id).listed && table_.ties(id).children == 0) push_front(id, level);
}

std::size_t ListOrder::lowest_level() const noexcept {
  std::size_t word = 0;
  while (used_[word] == 0) {
    ++word;
    assert(word < used_.size());
  }
  return word * 64 + static_cast<std::size_t>(std::countr_zero(used_[word]));
}

BlockId ListOrder::pop() noexcept {
  for (;;) {
    const BlockId first = table_.place(head_of(lowest_level())).next;
    remove(first);
    // Taken out for nothing at most once per time that it was put in: no scan.
    if (table_.ties(first).children == 0 && !table_.is_pinned(first)) return first;
  }
}

std::size_t ListOrder::coldest(std::span<BlockId> out) const noexcept {
  std::size_t found = 0;
  std::size_t visits = 2 * out.size();
  for (std::size_t level = kLevelForgotten + 1; level < kLevels; ++level) {
    if ((used_[level / 64] >> level % 64 & 1) == 0) continue;
    for (BlockId id = table_.place(head_of(level)).next; id != head_of(level);
         id = table_.place(id).next) {
      if (found == out.size() || visits-- == 0) return found;
      if (!table_.is_pinned(id)) out[found++] = id;
    }
  }
  return found;
}

void ListOrder::forget_all() noexcept {
  const BlockId forgotten = head_of(kLevelForgotten);
  for (std::size_t level = 0; level < kLevels; ++level) {
    const BlockId head = head_of(level);
    const BlockPlace ends = table_.place(head);
    if (level == kLevelForgotten || ends.next == head) continue;
    const BlockId last = table_.place(forgotten).prev;
    table_.place(last).next = ends.next;
    table_.place(ends.next).prev = last;
    table_.place(ends.prev).next = forgotten;
    table_.place(forgotten).prev = ends.prev;
    table_.place(head) = {head, head};
    used_[0] |= std::uint64_t{1} << kLevelForgotten;
    used_[level / 64] &= ~(std::uint64_t{1} << level % 64);
  }
}

void ListOrder::check_invariants() const {
  const auto require = [](bool condition, const char* what, BlockId id) {
    if (condition) return;
    std::fprintf(stderr, "kvbm: eviction order invariant broken: %s (block %u)\n", what, id);
    std::abort();
  };
  std::size_t listed = 0;
  for (std::size_t level = 0; level < kLevels; ++level) {
    const bool used = (used_[level / 64] >> level % 64 & 1) != 0;
    BlockId previous = head_of(level);
    require(used == (table_.place(previous).next != previous), "used levels are marked", previous);
    for (BlockId id = table_.place(previous).next; id != head_of(level);
         id = table_.place(id).next) {
      require(table_.place(id).prev == previous, "list links agree in both directions", id);
      require(table_.ties(id).listed == 1, "a listed block knows it", id);
      previous = id;
      ++listed;
    }
    require(table_.place(head_of(level)).prev == previous, "the last block is the last", previous);
  }
  for (BlockId id = 0; id < table_.capacity(); ++id) {
    if (table_.ties(id).listed) --listed;
  }
  require(listed == 0, "a block that is listed is in a list", kNoBlock);
}

}  // namespace kvbm
