// Where the blocks lie that a disk tier was given last, to guess the place of a block's parent.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kvbm/types.h"

namespace kvbm::detail {

// A small table in which later blocks displace earlier ones. An answer may be wrong: a slot is
// taken again, or two names look alike. Thread-safe, lock-free.
class RecentSlots {
 public:
  void note(SequenceHash hash, BlockId slot) noexcept {
    entry(hash).store(half_of(hash) << 32 | slot, std::memory_order_relaxed);
  }
  // kNoBlock if it is not remembered.
  BlockId find(SequenceHash hash) const noexcept {
    const std::uint64_t found = entry(hash).load(std::memory_order_relaxed);
    return found >> 32 == half_of(hash) ? static_cast<BlockId>(found) : kNoBlock;
  }

 private:
  static constexpr std::size_t kEntries = 4096;  // more than all transfers in flight have

  static std::uint64_t half_of(SequenceHash hash) noexcept { return hash.value() >> 32; }
  std::atomic<std::uint64_t>& entry(SequenceHash hash) noexcept {
    return entries_[hash.value() % kEntries];
  }
  const std::atomic<std::uint64_t>& entry(SequenceHash hash) const noexcept {
    return entries_[hash.value() % kEntries];
  }

  std::array<std::atomic<std::uint64_t>, kEntries> entries_{};
};

}  // namespace kvbm::detail
