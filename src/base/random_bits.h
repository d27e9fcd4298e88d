// Numbers that tell one process, or one life of it, from all others.
#pragma once

#include <cstdint>
#include <random>

namespace kvbm {

// 64 bits from the system's source of random numbers. Thread-safe.
inline std::uint64_t random_bits() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

}  // namespace kvbm
