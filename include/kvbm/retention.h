// What callers know about the future of their blocks, for the pool to act on.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kvbm/types.h"

namespace kvbm {

// How much blocks are wanted. The lowest priority is evicted first, among equals what the policy
// says. Blocks begin with the defaults; a copy in another tier takes over what its source has.
// Source: TensorRT-LLM's retention per token range.
struct RetentionOptions {
  std::uint32_t priority = DEFAULT_PRIORITY;  // 0 .. MAX_PRIORITY
  // After that long the default priority comes back. None: it lasts as long as the content.
  std::optional<std::chrono::nanoseconds> duration = std::nullopt;
  // The caller's own class of use (chat, tool call, batch ...). EvictionPolicy::AgeIndex learns
  // for each class apart; hints that are equal modulo 8 are one class. 0: none.
  std::uint8_t hint = 0;
};

// Tokens begin .. end - 1 of a sequence, counted from the first token of the run's first block.
struct TokenRange {
  std::size_t begin = 0;
  std::optional<std::size_t> end = std::nullopt;  // none: to the end
};

// Names a lease of one pool.
using LeaseId = std::uint64_t;

// One point of a miss-ratio curve: what an LRU pool of so many blocks would have found.
struct HitRatioPoint {
  std::size_t blocks = 0;
  double hit_ratio = 0;  // 0 .. 1, of block accesses
};

}  // namespace kvbm
