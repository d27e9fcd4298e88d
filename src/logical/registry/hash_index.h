// Which block of one pool carries which sequence hash. Not thread-safe: the pool's mutex guards it.
//
// Open addressing with linear probing over 4-byte cells at a load of at most 4/7, sized once: no
// operation allocates, rehashes or fails, and 7 bytes a block is all it costs. A cell holds a
// block's id and, in the bits that ids of this pool leave free, how far from home it lies and a few
// bits of its hash; so that a probe reads the block table for the right block almost only, and
// erasing moves cells without reading it.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/large_array.h"
#include "logical/registry/block_table.h"

namespace kvbm {

// Our own names are XXH3 outputs, but an engine may supply others, even 1, 2, 3: they are mixed
// once more, so that no choice of names makes the index slow by accident.
inline std::uint64_t mix_hash(SequenceHash hash) noexcept {
  std::uint64_t mixed = hash.value() ^ (hash.value() >> 32);
  mixed *= 0x9e3779b97f4a7c15u;
  mixed ^= mixed >> 29;
  return mixed * 0xbf58476d1ce4e5b9u;
}

class HashIndex {
 public:
  // Room for every block of the table.
  explicit HashIndex(const BlockTable& table)
      : table_(table),
        id_bits_(static_cast<int>(std::bit_width(table.capacity()))),
        distance_bits_(std::min(4, 32 - id_bits_)),
        cells_(std::max<std::size_t>(16, table.capacity() + table.capacity() / 4 * 3)) {}

  // The block with this hash for which accept(id) holds, or kNoBlock. Several blocks may carry one
  // hash: those of other namespaces and epochs.
  template <class Accept>
  BlockId find(SequenceHash hash, Accept accept) const noexcept {
    const std::uint64_t mixed = mix_hash(hash);
    const std::uint32_t check = check_of(mixed);
    for (std::size_t at = home_of(mixed); cells_[at] != 0; at = next(at)) {
      if (check_in(cells_[at]) != check) continue;
      const BlockId id = id_in(cells_[at]);
      if (table_.hash(id) == hash && accept(id)) return id;
    }
    return kNoBlock;
  }

  // For hashes that will be looked up soon: first the cells of all, then the blocks of all, so that
  // the memory's latencies overlap.
  void prefetch_cell(SequenceHash hash) const noexcept {
    __builtin_prefetch(&cells_[home_of(mix_hash(hash))]);
  }
  // The first candidate for this hash, or kNoBlock. Reads cells only.
  BlockId candidate(SequenceHash hash) const noexcept {
    const std::uint64_t mixed = mix_hash(hash);
    const std::uint32_t check = check_of(mixed);
    for (std::size_t at = home_of(mixed); cells_[at] != 0; at = next(at)) {
      if (check_in(cells_[at]) == check) return id_in(cells_[at]);
    }
    return kNoBlock;
  }

  // Requires: the block is not in the index; its hash is in the table.
  void insert(BlockId id) noexcept {
    const std::uint64_t mixed = mix_hash(table_.hash(id));
    std::size_t at = home_of(mixed);
    std::size_t distance = 0;
    for (; cells_[at] != 0; at = next(at)) ++distance;
    cells_[at] = cell(id, distance, check_of(mixed));
    ++size_;
  }

  // Requires: the block is in the index; its hash is in the table.
  void erase(BlockId id) noexcept {
    std::size_t hole = home_of(mix_hash(table_.hash(id)));
    while (cells_[hole] == 0 || id_in(cells_[hole]) != id) hole = next(hole);
    --size_;
    // Each later cell of the cluster moves into the hole unless that is before its home.
    std::size_t gap = 1;
    for (std::size_t at = next(hole); cells_[at] != 0; at = next(at), ++gap) {
      const std::size_t distance = distance_of(at);
      if (distance < gap) continue;
      cells_[hole] = cell(id_in(cells_[at]), distance - gap, check_in(cells_[at]));
      hole = at;
      gap = 0;
    }
    cells_[hole] = 0;
  }

  std::size_t size() const noexcept { return size_; }
  std::size_t bytes() const noexcept { return cells_.bytes(); }

  // How far from home the farthest block lies. O(cells).
  std::size_t longest_distance() const noexcept {
    std::size_t longest = 0;
    for (std::size_t at = 0; at < cells_.size(); ++at) {
      if (cells_[at] != 0) longest = std::max(longest, distance_of(at));
    }
    return longest;
  }
  // Whether every cell says the truth about its block and can be reached from its home.
  bool is_consistent() const noexcept {
    std::size_t used = 0;
    for (std::size_t at = 0; at < cells_.size(); ++at) {
      if (cells_[at] == 0) continue;
      ++used;
      const std::uint64_t mixed = mix_hash(table_.hash(id_in(cells_[at])));
      const std::size_t home = home_of(mixed);
      const std::size_t distance = at >= home ? at - home : at + cells_.size() - home;
      if (distance_of(at) != distance || check_in(cells_[at]) != check_of(mixed)) return false;
      for (std::size_t before = home; before != at; before = next(before)) {
        if (cells_[before] == 0) return false;
      }
    }
    return used == size_;
  }

 private:
  // A cell from its low end: id + 1 (so that 0 is an empty cell), distance from home, check bits.
  std::uint32_t cell(BlockId id, std::size_t distance, std::uint32_t check) const noexcept {
    const auto stored = static_cast<std::uint32_t>(std::min(distance, far()));
    const std::uint64_t high = std::uint64_t{check} << distance_bits_ | stored;
    return static_cast<std::uint32_t>(high << id_bits_ | (id + 1));
  }
  BlockId id_in(std::uint32_t cell) const noexcept {
    return static_cast<BlockId>((cell & ((std::uint64_t{1} << id_bits_) - 1)) - 1);
  }
  std::uint32_t check_in(std::uint32_t cell) const noexcept {
    return static_cast<std::uint32_t>(std::uint64_t{cell} >> (id_bits_ + distance_bits_));
  }
  std::uint32_t check_of(std::uint64_t mixed) const noexcept {
    const std::uint64_t mask = (std::uint64_t{1} << (32 - id_bits_ - distance_bits_)) - 1;
    return static_cast<std::uint32_t>(mixed & mask);
  }
  // The largest distance that a cell can say: this far, or farther.
  std::size_t far() const noexcept { return (std::size_t{1} << distance_bits_) - 1; }
  std::size_t distance_of(std::size_t at) const noexcept {
    const std::size_t stored =
        static_cast<std::size_t>(std::uint64_t{cells_[at]} >> id_bits_) & far();
    if (stored < far()) return stored;
    const std::size_t home = home_of(mix_hash(table_.hash(id_in(cells_[at]))));
    return at >= home ? at - home : at + cells_.size() - home;
  }
  std::size_t home_of(std::uint64_t mixed) const noexcept {
    return static_cast<std::size_t>(static_cast<unsigned __int128>(mixed) * cells_.size() >> 64);
  }
  std::size_t next(std::size_t at) const noexcept { return at + 1 == cells_.size() ? 0 : at + 1; }

  const BlockTable& table_;
  const int id_bits_;
  const int distance_bits_;
  LargeArray<std::uint32_t> cells_;
  std::size_t size_ = 0;
};

}  // namespace kvbm
