// Waiting busily, for what comes sooner than a thread falls asleep and wakes.
#pragma once

#include <chrono>
#include <thread>

namespace kvbm {

// Tells the CPU that this thread only waits for another one.
inline void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" : : : "memory");
#endif
}

// Otherwise nobody can do anything while this thread waits busily.
inline bool has_other_cores() noexcept {
  static const bool has = std::thread::hardware_concurrency() > 1;
  return has;
}

// Until `happened` says so, or the time has come. Returns whether it has happened.
template <class Happened>
bool relax_until(Happened happened, std::chrono::steady_clock::time_point time) noexcept {
  constexpr int kBetweenClocks = 16;
  do {
    for (int i = 0; i < kBetweenClocks; ++i) {
      if (happened()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < time);
  return false;
}

}  // namespace kvbm
