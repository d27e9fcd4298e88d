// What is remembered of blocks that were evicted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kvbm/types.h"
#include "logical/policy/ring_index.h"

namespace kvbm {

struct Ghost {
  std::uint8_t uses = 0;      // 0..3
  std::int64_t last_use = 0;  // ns, 0..2^61-1
  friend bool operator==(const Ghost&, const Ghost&) = default;
};

// The newest `capacity` evictions that were not taken back. 22 bytes each, allocated by the
// constructor. Calls are O(1). Not thread-safe.
class Ghosts {
 public:
  // Requires: 1 <= capacity < 2^32 - 1.
  explicit Ghosts(std::size_t capacity);

  // Forgets the oldest if it is full. A hash that is present is replaced.
  void add(SequenceHash hash, Ghost ghost) noexcept;
  // Removes and returns what is known of the hash.
  std::optional<Ghost> take(SequenceHash hash) noexcept;

  std::size_t size() const noexcept { return size_; }

  // Aborts with a message if the index contradicts the ring. O(capacity).
  void check_invariants() const;

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};

  void drop(std::uint32_t position) noexcept;

  std::vector<SequenceHash> hashes_;
  std::vector<std::uint64_t> packed_;  // last use * 4 + uses, or kEmpty
  RingIndex index_;
  std::uint32_t next_ = 0;
  std::size_t size_ = 0;
};

}  // namespace kvbm
