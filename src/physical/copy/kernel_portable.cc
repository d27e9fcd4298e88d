#include <cstring>

#include "physical/copy/kernel.h"

namespace kvbm {
namespace {

constexpr std::uint64_t kPrime32 = 0x9E3779B1;
constexpr std::uint64_t kLow32 = 0xFFFFFFFF;

std::uint64_t load(const std::byte* from) noexcept {
  std::uint64_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <bool kCopies>
void accumulate(Accumulators& sums, std::byte* target, const std::byte* source,
                const std::byte* secret, std::size_t stripes) noexcept {
  Accumulators local = sums;
  for (std::size_t i = 0; i < stripes; ++i) {
    if constexpr (kCopies) std::memcpy(target + i * kStripeBytes, source, kStripeBytes);
    for (std::size_t k = 0; k < 8; ++k) {
      const std::uint64_t value = load(source + 8 * k);
      const std::uint64_t keyed = value ^ load(secret + 8 * k);
      local.lane[k ^ 1] += value;
      local.lane[k] += (keyed & kLow32) * (keyed >> 32);
    }
    source += kStripeBytes;
    secret += 8;
  }
  sums = local;
}

void fold(Accumulators& sums, std::span<const Accumulators> partials,
          const std::byte* secret) noexcept {
  Accumulators local = sums;
  for (const Accumulators& partial : partials) {
    for (std::size_t k = 0; k < 8; ++k) {
      std::uint64_t lane = local.lane[k] + partial.lane[k];
      lane ^= lane >> 47;
      lane ^= load(secret + 8 * k);
      local.lane[k] = lane * kPrime32;
    }
  }
  sums = local;
}

}  // namespace

const CopyKernel kPortableKernel = {.name = "portable",
                                    .stream = nullptr,
                                    .accumulate_only = accumulate<false>,
                                    .accumulate_cached = accumulate<true>,
                                    .accumulate_streaming = nullptr,
                                    .fold = fold};

}  // namespace kvbm
