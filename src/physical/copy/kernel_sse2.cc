#if defined(__x86_64__)

#include <emmintrin.h>

#include "physical/copy/kernel.h"

namespace kvbm {
namespace {

constexpr std::size_t kParts = kStripeBytes / sizeof(__m128i);

inline __m128i load(const void* from, std::size_t part) noexcept {
  return _mm_loadu_si128(static_cast<const __m128i*>(from) + part);
}

template <Write kWrite>
inline void store(std::byte* target, std::size_t part, __m128i value) noexcept {
  if constexpr (kWrite == Write::Cached) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target) + part, value);
  }
  if constexpr (kWrite == Write::Streaming) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(target) + part, value);
  }
}

void stream(std::byte* target, const std::byte* source, std::size_t bytes) noexcept {
  for (std::size_t at = 0; at < bytes; at += kStripeBytes) {
    for (std::size_t part = 0; part < kParts; ++part) {
      store<Write::Streaming>(target + at, part, load(source + at, part));
    }
  }
}

template <Write kWrite>
void accumulate(Accumulators& sums, std::byte* target, const std::byte* source,
                const std::byte* secret, std::size_t stripes) noexcept {
  __m128i lanes[kParts];
  for (std::size_t part = 0; part < kParts; ++part) lanes[part] = load(&sums, part);
  __m128i raw[kParts] = {};  // swapped and added at the end, which spares a step per stripe
#pragma GCC unroll 8
  for (std::size_t i = 0; i < stripes; ++i) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const __m128i value = load(source, part);
      store<kWrite>(target, part, value);
      const __m128i keyed = _mm_xor_si128(value, load(secret, part));
      const __m128i product = _mm_mul_epu32(keyed, _mm_srli_epi64(keyed, 32));
      raw[part] = _mm_add_epi64(raw[part], value);
      lanes[part] = _mm_add_epi64(lanes[part], product);
    }
    source += kStripeBytes;
    if constexpr (kWrite != Write::Nothing) target += kStripeBytes;
    secret += 8;
  }
  for (std::size_t part = 0; part < kParts; ++part) {
    lanes[part] = _mm_add_epi64(lanes[part], _mm_shuffle_epi32(raw[part], 0x4E));
    _mm_store_si128(reinterpret_cast<__m128i*>(&sums) + part, lanes[part]);
  }
}

void fold(Accumulators& sums, std::span<const Accumulators> partials,
          const std::byte* secret) noexcept {
  const __m128i prime = _mm_set1_epi32(static_cast<int>(0x9E3779B1));
  __m128i lanes[kParts];
  for (std::size_t part = 0; part < kParts; ++part) lanes[part] = load(&sums, part);
  for (const Accumulators& partial : partials) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const __m128i sum = _mm_add_epi64(lanes[part], load(&partial, part));
      const __m128i mixed =
          _mm_xor_si128(_mm_xor_si128(sum, _mm_srli_epi64(sum, 47)), load(secret, part));
      const __m128i low = _mm_mul_epu32(mixed, prime);
      const __m128i high = _mm_mul_epu32(_mm_srli_epi64(mixed, 32), prime);
      lanes[part] = _mm_add_epi64(low, _mm_slli_epi64(high, 32));
    }
  }
  for (std::size_t part = 0; part < kParts; ++part) {
    _mm_store_si128(reinterpret_cast<__m128i*>(&sums) + part, lanes[part]);
  }
}

}  // namespace

const CopyKernel kSse2Kernel = {.name = "sse2",
                                .stream = stream,
                                .accumulate_only = accumulate<Write::Nothing>,
                                .accumulate_cached = accumulate<Write::Cached>,
                                .accumulate_streaming = accumulate<Write::Streaming>,
                                .fold = fold};

}  // namespace kvbm

#endif
