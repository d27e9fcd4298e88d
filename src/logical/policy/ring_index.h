// Finds an entry of a fixed array by its hash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kvbm/types.h"

namespace kvbm {

// Open addressing with linear probing at a load of at most 2/3. Holds positions only, 6 bytes for
// each entry of the array; the hashes are read from there. All memory is allocated by the
// constructor. Calls are O(1) on average. Not thread-safe.
class RingIndex {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  // For positions in `hashes`, which must outlive the index and may not move. Requires: fewer than
  // 2^32 - 1 entries.
  explicit RingIndex(std::span<const SequenceHash> hashes)
      : hashes_(hashes), slots_(hashes.size() + hashes.size() / 2 + 2, kNone) {}

  // The position whose hash was inserted and not erased since, or kNone.
  std::uint32_t find(SequenceHash hash) const noexcept { return slots_[slot_of(hash)]; }
  // Requires: hashes[position] is the hash, and no position with this hash is present.
  void insert(std::uint32_t position) noexcept { slots_[slot_of(hashes_[position])] = position; }
  // Requires: the position is present and hashes[position] unchanged since it was inserted.
  void erase(std::uint32_t position) noexcept {
    std::size_t hole = slot_of(hashes_[position]);
    // Later entries of the run move up where the hole would cut them off from their home.
    for (std::size_t at = next(hole); slots_[at] != kNone; at = next(at)) {
      const std::size_t home = home_of(hashes_[slots_[at]]);
      const bool stays = hole <= at ? hole < home && home <= at : hole < home || home <= at;
      if (stays) continue;
      slots_[hole] = slots_[at];
      hole = at;
    }
    slots_[hole] = kNone;
  }

 private:
  // The multiplication spreads names like 1, 2, 3 as well as hashes.
  std::size_t home_of(SequenceHash hash) const noexcept {
    const std::uint64_t mixed = (hash.value() ^ (hash.value() >> 32)) * 0x9e3779b97f4a7c15u;
    return static_cast<std::size_t>((static_cast<unsigned __int128>(mixed) * slots_.size()) >> 64);
  }
  std::size_t next(std::size_t slot) const noexcept {
    return slot + 1 == slots_.size() ? 0 : slot + 1;
  }
  std::size_t slot_of(SequenceHash hash) const noexcept {
    std::size_t slot = home_of(hash);
    while (slots_[slot] != kNone && hashes_[slots_[slot]] != hash) slot = next(slot);
    return slot;
  }

  const std::span<const SequenceHash> hashes_;
  std::vector<std::uint32_t> slots_;
};

}  // namespace kvbm
