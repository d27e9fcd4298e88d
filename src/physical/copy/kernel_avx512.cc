#if defined(__x86_64__)

#include <immintrin.h>

#include "physical/copy/kernel.h"

#if !defined(__clang__)
// GCC 12's own header makes a value of no meaning by initialising a variable with itself.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#define KVBM_TARGET [[gnu::target("avx512f")]]

namespace kvbm {
namespace {

constexpr std::size_t kParts = kStripeBytes / sizeof(__m512i);

KVBM_TARGET inline __m512i load(const void* from, std::size_t part) noexcept {
  return _mm512_loadu_si512(static_cast<const __m512i*>(from) + part);
}

template <Write kWrite>
KVBM_TARGET inline void store(std::byte* target, std::size_t part, __m512i value) noexcept {
  if constexpr (kWrite == Write::Cached) {
    _mm512_storeu_si512(reinterpret_cast<__m512i*>(target) + part, value);
  }
  if constexpr (kWrite == Write::Streaming) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target) + part, value);
  }
}

KVBM_TARGET void stream(std::byte* target, const std::byte* source, std::size_t bytes) noexcept {
  for (std::size_t at = 0; at < bytes; at += kStripeBytes) {
    for (std::size_t part = 0; part < kParts; ++part) {
      store<Write::Streaming>(target + at, part, load(source + at, part));
    }
  }
}

template <Write kWrite>
KVBM_TARGET void accumulate(Accumulators& sums, std::byte* target, const std::byte* source,
                            const std::byte* secret, std::size_t stripes) noexcept {
  __m512i lanes[kParts];
  for (std::size_t part = 0; part < kParts; ++part) lanes[part] = load(&sums, part);
  __m512i raw[kParts] = {};  // swapped and added at the end, which spares a step per stripe
#pragma GCC unroll 8
  for (std::size_t i = 0; i < stripes; ++i) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const __m512i value = load(source, part);
      store<kWrite>(target, part, value);
      const __m512i keyed = _mm512_xor_si512(value, load(secret, part));
      const __m512i product = _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32));
      raw[part] = _mm512_add_epi64(raw[part], value);
      lanes[part] = _mm512_add_epi64(lanes[part], product);
    }
    source += kStripeBytes;
    if constexpr (kWrite != Write::Nothing) target += kStripeBytes;
    secret += 8;
  }
  for (std::size_t part = 0; part < kParts; ++part) {
    lanes[part] = _mm512_add_epi64(
        lanes[part], _mm512_shuffle_epi32(raw[part], static_cast<_MM_PERM_ENUM>(0x4E)));
    _mm512_store_si512(reinterpret_cast<__m512i*>(&sums) + part, lanes[part]);
  }
}

KVBM_TARGET void fold(Accumulators& sums, std::span<const Accumulators> partials,
                      const std::byte* secret) noexcept {
  const __m512i prime = _mm512_set1_epi32(static_cast<int>(0x9E3779B1));
  __m512i lanes[kParts];
  for (std::size_t part = 0; part < kParts; ++part) lanes[part] = load(&sums, part);
  for (const Accumulators& partial : partials) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const __m512i sum = _mm512_add_epi64(lanes[part], load(&partial, part));
      const __m512i mixed =
          _mm512_xor_si512(_mm512_xor_si512(sum, _mm512_srli_epi64(sum, 47)), load(secret, part));
      const __m512i low = _mm512_mul_epu32(mixed, prime);
      const __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(mixed, 32), prime);
      lanes[part] = _mm512_add_epi64(low, _mm512_slli_epi64(high, 32));
    }
  }
  for (std::size_t part = 0; part < kParts; ++part) {
    _mm512_store_si512(reinterpret_cast<__m512i*>(&sums) + part, lanes[part]);
  }
}

}  // namespace

const CopyKernel kAvx512Kernel = {.name = "avx512",
                                  .stream = stream,
                                  .accumulate_only = accumulate<Write::Nothing>,
                                  .accumulate_cached = accumulate<Write::Cached>,
                                  .accumulate_streaming = accumulate<Write::Streaming>,
                                  .fold = fold};

}  // namespace kvbm

#endif
