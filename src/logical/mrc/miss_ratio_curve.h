// How often LRU caches of all sizes would hit, estimated from one pass in fixed memory.
//
// A block is followed if its hash, scrambled, is at most a limit; so a random share of the blocks
// is seen, and of each of them every access. The distance of an access is the number of followed
// blocks used since the same block's last use; divided by the share it estimates the distance in
// all blocks, and a cache hits when it is larger than that. When there are too many followed
// blocks, the one with the largest scrambled hash is dropped and the limit set below it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kvbm/types.h"

namespace kvbm {

// Not thread-safe. Never allocates after its construction, except for what points() returns.
class MissRatioCurve {
 public:
  // Follows at most `max_samples` blocks, in about 50 bytes each and 30 KiB. More make the curve
  // more exact: 8192 usually give it within 0.01.
  // Requires: 1 <= max_samples < 2^29.
  explicit MissRatioCurve(std::size_t max_samples = 8192);

  // Counts one use of a block. Equal blocks have equal hashes; different ones should be spread over
  // all 64 bits, as sequence hashes are. Cost: one multiplication for a block that is not followed,
  // O(log max_samples) for one that is.
  void access(std::uint64_t hash) noexcept {
    ++accesses_;
    const std::uint64_t scrambled = hash * kMultiplier;  // a bijection
    if (scrambled <= limit_) access_followed(scrambled);
  }

  // The same for each of the hashes.
  void access(std::span<const SequenceHash> hashes) noexcept {
    accesses_ += hashes.size();
    for (const SequenceHash hash : hashes) {
      const std::uint64_t scrambled = hash.value() * kMultiplier;
      if (scrambled <= limit_) access_followed(scrambled);
    }
  }

  std::uint64_t accesses() const noexcept { return accesses_; }

  // The share of all accesses so far that an LRU cache of so many blocks, empty at first, would
  // have hit; 0 before any. Cost: O(number of distances that are told apart), a few thousand
  // additions.
  double hit_ratio(std::size_t capacity_blocks) const noexcept;

  struct Point {
    std::size_t blocks;
    double hit_ratio;
  };
  // The curve where it rises, by growing capacity: between two points it is near a straight line,
  // after the last one level. Capacities below 128 are told apart, larger ones to within 1.6 %.
  std::vector<Point> points() const;

  // Aborts with a message if any structure contradicts another. O(max_samples).
  void check_invariants() const;

 private:
  static constexpr std::uint64_t kMultiplier = 0x9e3779b97f4a7c15u;

  struct Followed {
    std::uint64_t scrambled = 0;
    std::uint32_t time = 0;  // of the last use, among the followed blocks
  };

  void access_followed(std::uint64_t scrambled) noexcept;
  void follow(std::uint64_t scrambled) noexcept;
  void drop_largest() noexcept;
  std::uint32_t next_time() noexcept;
  void mark(std::uint32_t time, std::uint32_t follower) noexcept;
  void unmark(std::uint32_t time) noexcept;
  std::uint32_t marks_up_to(std::uint32_t time) const noexcept;
  void add_to_tree(std::uint32_t time, std::uint32_t amount) noexcept;
  double share() const noexcept;
  double unseen_hits() const noexcept;

  std::size_t home(std::uint64_t scrambled) const noexcept;
  std::size_t find(std::uint64_t scrambled) const noexcept;
  void erase(std::size_t place) noexcept;

  std::uint64_t limit_ = ~std::uint64_t{0};
  std::uint64_t accesses_ = 0;

  const std::size_t max_samples_;
  std::vector<Followed> followed_;  // those that are in heap_; the numbers of the others in free_
  std::vector<std::uint32_t> free_;
  std::vector<std::uint32_t> heap_;   // largest scrambled hash first
  std::vector<std::uint32_t> table_;  // open addressing, linear probing; kNone where empty

  std::vector<std::uint32_t> at_time_;  // whose last use that was; kNone where it was used since
  std::vector<std::uint32_t> tree_;     // Fenwick tree over at_time_: 1 where it is not kNone
  std::uint32_t now_ = 0;               // the first time that is unused

  // An access that is seen stands for 1/share of them. Giving later ones more weight, instead of
  // scaling the earlier ones down whenever the limit falls, comes to the same curve.
  std::vector<double> hits_by_size_;  // by the least capacity that hits, in bins
  double seen_ = 0;                   // weight of all accesses of followed blocks
};

}  // namespace kvbm
