// The inner loops of copying and summing, one set for each instruction set. What a caller wants is
// in copy.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kvbm {

// XXH3 reads a stream in stripes of 64 bytes, and stirs its accumulators after each block of 16.
inline constexpr std::size_t kStripeBytes = 64;
inline constexpr std::size_t kStripesPerBlock = 16;
inline constexpr std::size_t kSumBlockBytes = kStripeBytes * kStripesPerBlock;

// The accumulators of XXH3-64. Not initialised unless one says so.
struct alignas(64) Accumulators {
  std::uint64_t lane[8];
};

// What happens to the bytes that are summed.
enum class Write : std::uint8_t { Nothing, Cached, Streaming };

// All functions: thread-safe; targets and sources do not overlap; no fence.
struct CopyKernel {
  // Stores that go past the cache; bytes a multiple of 64, target at a multiple of 64.
  using Stream = void (*)(std::byte* target, const std::byte* source, std::size_t bytes) noexcept;
  // Adds stripes to the accumulators, and copies them. `secret` is that of the first stripe; each
  // further one takes it 8 bytes later. Streaming: target at a multiple of 64; Nothing: no target.
  using Accumulate = void (*)(Accumulators& sums, std::byte* target, const std::byte* source,
                              const std::byte* secret, std::size_t stripes) noexcept;
  // For each partial in turn: adds it, then stirs. `secret` is that of stirring. What was
  // accumulated from zero over a block is its partial: so blocks may be read in any order.
  using Fold = void (*)(Accumulators& sums, std::span<const Accumulators> partials,
                        const std::byte* secret) noexcept;

  const char* name;
  Stream stream;  // null: the instruction set has no such stores
  Accumulate accumulate_only;
  Accumulate accumulate_cached;
  Accumulate accumulate_streaming;  // null as `stream`
  Fold fold;

  Accumulate accumulate(Write write) const noexcept {
    if (write == Write::Nothing) return accumulate_only;
    return write == Write::Cached ? accumulate_cached : accumulate_streaming;
  }
};

extern const CopyKernel kPortableKernel;
#if defined(__x86_64__)
extern const CopyKernel kSse2Kernel;
extern const CopyKernel kAvx2Kernel;
extern const CopyKernel kAvx512Kernel;
#endif

}  // namespace kvbm
