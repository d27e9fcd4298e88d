// What copying and summing have in common: reading at several places in turns. A CPU fetches ahead
// within a page only, and asks for the next page late; with several places to read at, others go on
// meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "physical/copy/copy.h"

namespace kvbm {

// Measured: 2 strands gain half of it, 8 lose. Turns of less than 512 bytes at 4 strands lose all,
// because written lines leave the CPU before they are whole; longer ones gain less with short runs.
inline constexpr std::size_t kStrands = 4;
inline constexpr std::size_t kTurnBytes = 512;
// A run that alone is worth cutting into strands.
inline constexpr std::size_t kLongRunBytes = std::size_t{64} << 10;

inline std::size_t bytes_to_line(const std::byte* target) noexcept {
  return -reinterpret_cast<std::uintptr_t>(target) % kStripeBytes;
}

// Makes what was streamed visible before later writes.
inline void fence_streams() noexcept {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

std::size_t bytes_of(std::span<const CopyRun> runs) noexcept;

// How to write `bytes` in all. Never Nothing.
Write write_for(Store store, std::size_t bytes, const CopyKernel& kernel) noexcept;

}  // namespace kvbm
