// How much may be written to a disk that wears out.
#pragma once

#include <chrono>
#include <cstdint>

#include "kvbm/store.h"
#include "kvbm/types.h"
#include "logical/policy/ghosts.h"
#include "tiers/token_bucket.h"

namespace kvbm::detail {

// Bytes per day that a store may write: what is configured, or a day's share of what the disk is
// rated for; 0: any number.
std::uint64_t write_budget(const DiskStoreConfig& config) noexcept;

// A token bucket that holds an hour's share and begins full. While it is half full or more every
// block is admitted; below that, such as were offered and refused before, since blocks that come
// back are worth their bytes; and none that it has no bytes for. So the budget holds over any hour.
//
// Not thread-safe; time comes in with every call. Calls are O(1).
class WriteBudget {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // Requires: bytes_per_day > 0. Remembers the newest kRemembered blocks that it refused.
  explicit WriteBudget(std::uint64_t bytes_per_day);

  // Whether this block may be written now; then its bytes are spent.
  bool admit(SequenceHash hash, std::uint64_t bytes, TimePoint now) noexcept;

  double bytes_left() const noexcept { return bucket_.left(); }

 private:
  static constexpr std::size_t kRemembered = 65536;

  TokenBucket bucket_;
  Ghosts refused_;
};

}  // namespace kvbm::detail
