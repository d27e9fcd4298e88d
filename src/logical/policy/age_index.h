// The eviction order "age-index": of the blocks that may be evicted, the one that a learned model
// gives the least chance of being used again for the time it takes to keep it.
//
// It keeps an account of its hits against those that plain LRU would have had, which a shadow
// counts. While the account is overdrawn it evicts the least recently used block instead, until it
// has earned a new trial. So no traffic makes it much worse than LRU. The shadow knows no levels:
// where levels cost hits, the order falls back too, to LRU within each level.
#pragma once

#include <array>
#include <boost/intrusive/set.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kvbm/types.h"
#include "logical/policy/age_model.h"
#include "logical/policy/ghosts.h"
#include "logical/policy/lru_shadow.h"
#include "logical/registry/block_table.h"

namespace kvbm {

// How a request's blocks are named to the order.
struct PathBlock {
  BlockId id = kNoBlock;
  SequenceHash hash;
};

// Life of a block here:
//   on_insert()   it was registered
//   on_match()    a request has found it; each time
//   on_request()  a request that found or registered it has ended; each time
//   insert()      it may be evicted: nobody holds it and no child of it is resident
//   remove()      it may not be any longer; or it was chosen, and
//   on_evict()    leaves for other content
// All memory is allocated by the constructor: about 105 bytes for each block and 1.3 MB. Not
// thread-safe: the pool's mutex guards it. Ids are below the capacity; levels at most kMaxLevel,
// hints at most kMaxHint; times are ns of any clock that does not go back.
class AgeIndexOrder {
 public:
  static constexpr std::uint32_t kMaxLevel = 102;
  static constexpr std::uint8_t kMaxHint = 7;

  // Requires: 1 <= capacity < 2^31.
  explicit AgeIndexOrder(std::size_t capacity);
  ~AgeIndexOrder();
  AgeIndexOrder(const AgeIndexOrder&) = delete;
  AgeIndexOrder& operator=(const AgeIndexOrder&) = delete;

  // The block was registered under this hash. O(1).
  void on_insert(BlockId id, SequenceHash hash) noexcept;
  // A request has found these blocks, the root of their sequence first. Every match must be told,
  // or the account does not know what this order is good for. O(found). Requires: none is in the
  // order.
  void on_match(std::span<const BlockId> found, std::int64_t now_ns) noexcept;
  // A request has ended that used these blocks, the root of its sequence first, each the parent of
  // the next. `hint` is the caller's class of the last one. Once per request, before insert() of
  // the blocks that it leaves. O(path), and every 64 requests one rebuild of the model.
  // Requires: none is in the order.
  void on_request(std::span<const PathBlock> path, std::uint8_t hint, std::int64_t now_ns) noexcept;
  // The block leaves this pool but may come back: what is known of it is remembered. O(1).
  // Requires: on_insert(id, hash) before, and not contains(id).
  void on_evict(BlockId id, SequenceHash hash) noexcept;
  // The block leaves for good, for instance because its bytes were wrong. O(1).
  // Requires: on_insert(id) before, and not contains(id).
  void on_discard(BlockId id) noexcept;

  // Blocks of lower levels are chosen first. O(log n).
  // Requires: on_insert(id) before, and not contains(id).
  void insert(BlockId id, std::uint32_t level) noexcept;
  // O(1), amortized. Requires: contains(id).
  void remove(BlockId id) noexcept;
  bool contains(BlockId id) const noexcept { return nodes_[id].is_linked(); }
  bool empty() const noexcept { return size_ == 0; }
  std::size_t size() const noexcept { return size_; }

  // The block to evict next, which stays in the order, or kNoBlock if there is none. To evict it,
  // call remove(), on_evict(), and, where its parent may be evicted now, insert(parent).
  // O(non-empty classes of the lowest level).
  BlockId victim(std::int64_t now_ns) noexcept;

  // The blocks of the lowest levels that were used longest ago, the oldest first, but for those
  // that were forgotten; returns how many. O(out.size() + levels and classes).
  std::size_t coldest(std::span<BlockId> out) const noexcept;
  // Whether a block that is inserted now, after so many earlier uses, would be worth as much as the
  // next victim; true while that is not chosen by the model. O(non-empty classes).
  bool is_worth_a_victim(std::uint8_t uses, std::int64_t now_ns) const noexcept;

  // All blocks that are in the order now are chosen before any other. O(1).
  void forget_all() noexcept;

  // Whether victims are chosen by the model now, and not by the time of their last use alone.
  bool learned() const noexcept { return model_.trained() && !falling_back_; }

  // Memory that it takes, itself not counted.
  std::size_t bytes() const noexcept;

  // Aborts with a message if any structure contradicts another. O(capacity).
  void check_invariants() const;

 private:
  using Hook =
      boost::intrusive::set_base_hook<boost::intrusive::optimize_size<true>,
                                      boost::intrusive::link_mode<boost::intrusive::safe_link>>;
  static constexpr std::size_t kLevels = kMaxLevel + 1;

  struct Node : Hook {
    std::int64_t last_use = 0;  // 0: none is known
    UseClass use_class = 0;
    std::uint8_t level = 0;
    bool resident = false;
    bool fresh = false;     // no request has ended since it was registered
    bool followed = false;  // the model may have a sample of it
  };
  struct Older {
    bool operator()(const Node& a, const Node& b) const noexcept { return a.last_use < b.last_use; }
  };
  using Set = boost::intrusive::multiset<Node, boost::intrusive::compare<Older>,
                                         boost::intrusive::constant_time_size<false>>;

  BlockId id_of(const Node& node) const noexcept {
    return static_cast<BlockId>(&node - nodes_.get());
  }
  Set& set_of(const Node& node) noexcept {
    return sets_[node.level * kUseClasses + node.use_class];
  }
  std::uint32_t lowest_level() const noexcept;
  const Node* forgotten() noexcept;
  const Node& oldest(std::uint32_t level) const noexcept;
  const Node& least_worth(std::uint32_t level, std::int64_t now_ns) const noexcept;
  void follow_samples(std::span<const PathBlock> path, std::int64_t now) noexcept;
  std::int64_t next_time(std::int64_t now_ns) noexcept;
  // Blocks for which LRU would have room besides those that running requests have registered.
  std::size_t lru_room() const noexcept { return resident_ - fresh_; }
  void judge(std::size_t blocks) noexcept;

  const std::size_t capacity_;
  const std::unique_ptr<Node[]> nodes_;
  const std::unique_ptr<Set[]> sets_;             // [level][class]
  std::array<std::uint64_t, kLevels> classes_{};  // bit c: the set of class c is not empty
  std::array<std::uint64_t, 2> levels_{};         // bit l: classes_[l] != 0
  std::size_t size_ = 0;
  std::size_t resident_ = 0;
  std::size_t fresh_ = 0;  // of the resident ones
  std::int64_t last_time_ = 0;
  std::int64_t forgotten_until_ = 0;  // blocks of a last use up to then were forgotten
  bool has_forgotten_ = false;        // some of them may be in the order

  // A chain that was begun is evicted to its end before another one is begun.
  BlockId draining_ = kNoBlock;  // the next of it
  bool just_evicted_ = false;    // nothing was inserted since the last eviction
  Node evicted_;                 // what that block was

  AgeModel model_;
  Ghosts ghosts_;
  LruShadow lru_;
  double credit_;  // hits of this order less those of LRU, and what judge() grants
  bool falling_back_ = false;
};

}  // namespace kvbm
