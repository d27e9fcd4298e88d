// Ticks of a pool: 64 bits, of which each block keeps the low 32.
#pragma once

#include <cstdint>

namespace kvbm {

// The latest tick up to `now` whose low half is `low`: the one that was kept, if that was less than
// 2^32 ticks ago.
constexpr std::uint64_t widen_tick(std::uint64_t now, std::uint32_t low) noexcept {
  return now - static_cast<std::uint32_t>(static_cast<std::uint32_t>(now) - low);
}

}  // namespace kvbm
