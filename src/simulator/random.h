// Random numbers that are the same on every machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvbm::simulator {

// SplitMix64. Not thread-safe.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() noexcept {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // 0 .. limit - 1. Requires: limit > 0.
  std::size_t below(std::size_t limit) noexcept { return next() % limit; }
  // from .. to. Requires: from <= to.
  std::size_t between(std::size_t from, std::size_t to) noexcept {
    return from + below(to - from + 1);
  }
  double fraction() noexcept { return static_cast<double>(next() >> 11) * 0x1p-53; }
  bool chance(double probability) noexcept { return fraction() < probability; }
  template <class T, std::size_t kCount>
  const T& pick(const T (&from)[kCount]) noexcept {
    return from[below(kCount)];
  }

 private:
  std::uint64_t state_;
};

}  // namespace kvbm::simulator
