// Tells how many hits plain LRU would have had in the place of another policy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvbm {

// A cache of prefixes under LRU needs no copy of its contents: it holds the blocks that were used
// last, as many as fit, and of one request the shallower ones. So it is enough to count, for each
// request, the blocks that were not used since. Exact where each block's last use is known and
// requests do not overlap. 20 bytes for each block of the capacity, allocated by the constructor.
// Not thread-safe.
class LruShadow {
 public:
  // Requires: capacity >= 1.
  explicit LruShadow(std::size_t capacity);

  // One request: use() for its blocks, root first, then finish().
  // `last_use` is that of the block's previous use, as given to finish(), or 0 if it has none.
  // Returns whether LRU would have had the block. O(log capacity), O(1) for a block that was last
  // used together with the one before it.
  bool use(std::int64_t last_use) noexcept;
  // The request used `blocks` blocks; LRU keeps the newest `room` ones. Amortized O(1).
  // Requires: `now` is positive and greater at each call; room <= capacity.
  void finish(std::int64_t now, std::size_t blocks, std::size_t room) noexcept;

  // Blocks that LRU would have.
  std::size_t size() const noexcept { return size_; }

  // Aborts with a message if the counts contradict each other. O(capacity).
  void check_invariants() const;

 private:
  struct Request {
    std::int64_t time = 0;
    std::size_t blocks = 0;  // that were not used since, and are not evicted
  };

  Request& at(std::size_t i) noexcept { return ring_[(first_ + i) % ring_.size()]; }
  const Request& at(std::size_t i) const noexcept { return ring_[(first_ + i) % ring_.size()]; }
  void trim(std::size_t room) noexcept;
  void compact() noexcept;

  std::vector<Request> ring_;  // oldest first, from first_, count_ of them
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  std::size_t size_ = 0;
  Request* found_ = nullptr;  // of the block before
};

}  // namespace kvbm
