// Registered blocks whose parent is not in their pool. They wait here, under the parent's hash, so
// that the parent finds them when it arrives. Rare, so its memory is allocated as it is needed.
// Not thread-safe: the pool's mutex guards it.
#pragma once

#include <iterator>
#include <unordered_map>

#include "logical/registry/hash_index.h"

namespace kvbm {

class Orphans {
 public:
  void add(SequenceHash parent, BlockId id) {
    by_parent_.emplace(parent, id);
    parent_of_.emplace(id, parent);
  }
  // Requires: the block is here.
  void remove(BlockId id) noexcept {
    const auto known = parent_of_.find(id);
    const auto [first, last] = by_parent_.equal_range(known->second);
    for (auto it = first; it != last; ++it) {
      if (it->second != id) continue;
      by_parent_.erase(it);
      break;
    }
    parent_of_.erase(known);
  }
  // Requires: the block is here.
  SequenceHash parent_hash(BlockId id) const noexcept { return parent_of_.find(id)->second; }

  // Offers every orphan of `parent` to adopt(id); those it accepts are orphans no more.
  template <class Adopt>
  void adopt(SequenceHash parent, Adopt adopt) {
    if (by_parent_.empty()) return;
    auto [it, last] = by_parent_.equal_range(parent);
    while (it != last) {
      if (adopt(it->second)) {
        parent_of_.erase(it->second);
        it = by_parent_.erase(it);
      } else {
        ++it;
      }
    }
  }
  std::size_t size() const noexcept { return parent_of_.size(); }

 private:
  struct Mixed {
    std::size_t operator()(SequenceHash hash) const noexcept { return mix_hash(hash); }
  };
  std::unordered_multimap<SequenceHash, BlockId, Mixed> by_parent_;
  std::unordered_map<BlockId, SequenceHash> parent_of_;
};

}  // namespace kvbm
