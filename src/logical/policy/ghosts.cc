#include "logical/policy/ghosts.h"

#include "logical/policy/check.h"

namespace kvbm {

Ghosts::Ghosts(std::size_t capacity)
    : hashes_(capacity), packed_(capacity, kEmpty), index_(hashes_) {}

void Ghosts::drop(std::uint32_t position) noexcept {
  index_.erase(position);
  packed_[position] = kEmpty;
  --size_;
}

void Ghosts::add(SequenceHash hash, Ghost ghost) noexcept {
  if (const std::uint32_t old = index_.find(hash); old != RingIndex::kNone) drop(old);
  if (packed_[next_] != kEmpty) drop(next_);
  hashes_[next_] = hash;
  packed_[next_] = static_cast<std::uint64_t>(ghost.last_use) << 2 | ghost.uses;
  index_.insert(next_);
  ++size_;
  next_ = next_ + 1 == hashes_.size() ? 0 : next_ + 1;
}

std::optional<Ghost> Ghosts::take(SequenceHash hash) noexcept {
  const std::uint32_t position = index_.find(hash);
  if (position == RingIndex::kNone) return std::nullopt;
  const std::uint64_t packed = packed_[position];
  drop(position);
  return Ghost{static_cast<std::uint8_t>(packed & 3), static_cast<std::int64_t>(packed >> 2)};
}

void Ghosts::check_invariants() const {
  std::size_t live = 0;
  for (std::uint32_t i = 0; i < hashes_.size(); ++i) {
    if (packed_[i] == kEmpty) continue;
    ++live;
    policy_check(index_.find(hashes_[i]) == i, "a ghost cannot be found by its hash");
  }
  policy_check(live == size_, "the number of ghosts is wrong");
}

}  // namespace kvbm
