// Which blocks go down to the next tier, and when.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "kvbm/types.h"

namespace kvbm {

// When the blocks of a tier are offered to the tier below.
enum class OffloadMode : std::uint8_t {
  // As soon as they are registered. The tier below should be the larger one, or it only churns.
  WriteThrough,
  // Shortly before their pool would have to evict them: blocks that are used again and again in the
  // tier above are never written down.
  OnEviction,
  // Only those that the caller names: KvBlockManager::offload().
  Selective,
};
const char* to_string(OffloadMode mode) noexcept;  // "write-through", "on-eviction", "selective"
std::optional<OffloadMode> offload_mode(std::string_view name) noexcept;

// Which of the offered blocks are admitted.
enum class AdmissionRule : std::uint8_t {
  All,
  // Those that were used twice: registered again, or found by a lookup and onboarded. Keeps cold
  // traffic out, and costs hits: whatever is used twice is computed twice.
  SecondUse,
  // Those that the eviction policy of the tier below would rather have than its next victim. Under
  // Lru and Fifo that is every block; AgeIndex compares what it has learned.
  WorthMore,
};
const char* to_string(AdmissionRule rule) noexcept;  // "all", "second-use", "worth-more"
std::optional<AdmissionRule> admission_rule(std::string_view name) noexcept;

struct AdmissionConfig {
  AdmissionRule rule = AdmissionRule::All;
  std::uint32_t min_priority = 0;      // of a block, 0 .. MAX_PRIORITY
  std::uint64_t bytes_per_second = 0;  // that may be copied, a second's worth at once; 0: any

  friend bool operator==(const AdmissionConfig&, const AdmissionConfig&) = default;
};

// How a tier gives its blocks to the tier below.
struct OffloadPolicy {
  OffloadMode mode = OffloadMode::WriteThrough;
  AdmissionConfig admission = {};
};

}  // namespace kvbm
