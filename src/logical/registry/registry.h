// Which slot of one pool holds which sequence hash. Not thread-safe: the pool's mutex guards it.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <iterator>
#include <unordered_map>

#include "kvbm/types.h"

namespace kvbm {

inline constexpr BlockId kNoBlock = ~BlockId{0};

// Our own names are XXH3 outputs, but an engine may supply others, even 1, 2, 3: they are mixed
// once more, so that no choice of names makes the maps slow by accident.
struct MixedHash {
  using is_avalanching = void;
  std::size_t operator()(SequenceHash hash) const noexcept {
    std::uint64_t mixed = hash.value() ^ (hash.value() >> 32);
    mixed *= 0x9e3779b97f4a7c15u;
    return mixed ^ (mixed >> 29);
  }
};

class BlockRegistry {
 public:
  // Room for `count` entries. Filling it once allocates nothing; after many erasures the map may
  // rehash.
  explicit BlockRegistry(std::size_t count) { by_hash_.reserve(count); }

  // The registered block, or kNoBlock.
  BlockId find(SequenceHash hash) const noexcept {
    const auto found = by_hash_.find(hash);
    return found == by_hash_.end() ? kNoBlock : found->second;
  }
  // Requires: find(hash) == kNoBlock.
  void insert(SequenceHash hash, BlockId id) { by_hash_.emplace(hash, id); }
  // Requires: find(hash) != kNoBlock.
  void erase(SequenceHash hash) noexcept { by_hash_.erase(hash); }
  std::size_t size() const noexcept { return by_hash_.size(); }

  // Orphans are registered blocks whose parent is not in this pool. They wait here, under the
  // parent's hash, so that the parent finds them when it arrives.
  void add_orphan(SequenceHash parent, BlockId id) { orphans_.emplace(parent, id); }
  void remove_orphan(SequenceHash parent, BlockId id) noexcept {
    const auto [first, last] = orphans_.equal_range(parent);
    for (auto it = first; it != last; ++it) {
      if (it->second == id) {
        orphans_.erase(it);
        return;
      }
    }
  }
  // Offers every orphan of `parent` to adopt(id); those it accepts are orphans no more.
  template <class Adopt>
  void adopt_orphans(SequenceHash parent, Adopt adopt) {
    if (orphans_.empty()) return;
    auto [it, last] = orphans_.equal_range(parent);
    while (it != last) it = adopt(it->second) ? orphans_.erase(it) : std::next(it);
  }
  std::size_t orphan_count() const noexcept { return orphans_.size(); }

 private:
  boost::unordered_flat_map<SequenceHash, BlockId, MixedHash> by_hash_;
  std::unordered_multimap<SequenceHash, BlockId, MixedHash> orphans_;
};

}  // namespace kvbm
