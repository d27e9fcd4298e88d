// One hold on a block: what every block handle is made of.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <utility>

#include "kvbm/types.h"

namespace kvbm {

class BlockStore;

namespace detail {

void release_hold(BlockStore* store, BlockId id) noexcept;
void release_holds(BlockStore* store, std::span<const BlockId> ids) noexcept;
void add_weak_hold(BlockStore* store) noexcept;
void release_weak_hold(BlockStore* store) noexcept;

// Move-only, 16 bytes. Gives the hold back when destroyed; may outlive the pool. Empty after a
// move.
class Hold {
 public:
  Hold() noexcept = default;
  // Adopts a hold that the store has already counted. `count` is the length of a run, else 1.
  Hold(BlockStore* store, BlockId id, std::uint32_t count = 1) noexcept
      : store_(store), id_(id), count_(count) {}
  Hold(Hold&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)), id_(other.id_), count_(other.count_) {}
  Hold& operator=(Hold&& other) noexcept {
    Hold old(std::move(*this));
    store_ = std::exchange(other.store_, nullptr);
    id_ = other.id_;
    count_ = other.count_;
    return *this;
  }
  ~Hold() {
    if (store_) release_hold(store_, id_);
  }

  explicit operator bool() const noexcept { return store_ != nullptr; }
  BlockStore* store() const noexcept { return store_; }
  BlockId id() const noexcept { return id_; }
  std::uint32_t count() const noexcept { return count_; }
  // Gives the hold to the caller, who must adopt or release it.
  BlockId disown() noexcept {
    store_ = nullptr;
    return id_;
  }

 private:
  BlockStore* store_ = nullptr;
  BlockId id_ = 0;
  std::uint32_t count_ = 0;
};

// Gives back the holds of many items, take(item) each, at once: one lock for each run of holds of
// one store.
template <class Item, class Take>
void release_all(std::span<Item> items, Take take) noexcept {
  std::array<BlockId, 256> ids;
  std::size_t count = 0;
  BlockStore* store = nullptr;
  for (Item& item : items) {
    Hold hold = take(item);
    if (!hold) continue;
    if (count == ids.size() || hold.store() != store) {
      if (count > 0) release_holds(store, std::span(ids).first(count));
      store = hold.store();
      count = 0;
    }
    ids[count++] = hold.disown();
  }
  if (count > 0) release_holds(store, std::span(ids).first(count));
}
template <class HoldType>
void release_all(std::span<HoldType> holds) noexcept {
  release_all(holds, [](HoldType& hold) -> Hold { return std::move(hold); });
}

// The states of a block as types, so that a call that is legal in one state only takes that one.
class MutableHold : public Hold {
 public:
  using Hold::Hold;
};
class CompleteHold : public Hold {
 public:
  using Hold::Hold;
};
class ImmutableHold : public Hold {
 public:
  using Hold::Hold;
};
// One hold on the deepest block of a chain; count() blocks.
class RunHold : public Hold {
 public:
  using Hold::Hold;
};

// What a weak handle remembers of a block: all that tells it from other blocks.
struct BlockKey {
  SequenceHash hash;
  std::uint64_t digest = 0;
  NamespaceId name_space = 0;
};

// Remembers a registered block without keeping it. Move-only, 32 bytes; may outlive the pool.
class WeakHold {
 public:
  WeakHold() noexcept = default;
  WeakHold(BlockStore* store, const BlockKey& key) noexcept : store_(store), key_(key) {
    add_weak_hold(store_);
  }
  WeakHold(WeakHold&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)), key_(other.key_) {}
  WeakHold& operator=(WeakHold&& other) noexcept {
    std::swap(store_, other.store_);
    std::swap(key_, other.key_);
    return *this;
  }
  ~WeakHold() {
    if (store_) release_weak_hold(store_);
  }

  explicit operator bool() const noexcept { return store_ != nullptr; }
  BlockStore* store() const noexcept { return store_; }
  const BlockKey& key() const noexcept { return key_; }

 private:
  BlockStore* store_ = nullptr;
  BlockKey key_;
};

}  // namespace detail
}  // namespace kvbm
