#include "logical/policy/lru_shadow.h"

#include <algorithm>

#include "logical/policy/check.h"

namespace kvbm {

// At most `capacity` requests have a block here. The quarter more is for empty ones between them,
// so that compact() is rare.
LruShadow::LruShadow(std::size_t capacity) : ring_(capacity + capacity / 4 + 2) {}

bool LruShadow::use(std::int64_t last_use) noexcept {
  if (found_ == nullptr || found_->time != last_use) {
    std::size_t low = 0, high = count_;
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (at(middle).time < last_use) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    if (low == count_ || at(low).time != last_use) return false;
    found_ = &at(low);
  }
  if (found_->blocks == 0) return false;
  --found_->blocks;
  --size_;
  return true;
}

void LruShadow::trim(std::size_t room) noexcept {
  while (size_ > room) {
    Request& oldest = at(0);
    const std::size_t gone = std::min(oldest.blocks, size_ - room);
    oldest.blocks -= gone;
    size_ -= gone;
    if (oldest.blocks > 0) break;
    first_ = (first_ + 1) % ring_.size();
    --count_;
  }
}

void LruShadow::compact() noexcept {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    if (at(i).blocks > 0) at(kept++) = at(i);
  }
  count_ = kept;
}

void LruShadow::finish(std::int64_t now, std::size_t blocks, std::size_t room) noexcept {
  found_ = nullptr;
  blocks = std::min(blocks, room);
  trim(room - blocks);
  if (blocks == 0) return;
  while (count_ > 0 && at(count_ - 1).blocks == 0) --count_;
  if (count_ == ring_.size()) compact();
  at(count_++) = {now, blocks};
  size_ += blocks;
}

void LruShadow::check_invariants() const {
  std::size_t blocks = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    blocks += at(i).blocks;
    policy_check(i == 0 || at(i - 1).time < at(i).time, "requests of the shadow are out of order");
  }
  policy_check(blocks == size_, "the size of the shadow is not the sum of its requests");
}

}  // namespace kvbm
