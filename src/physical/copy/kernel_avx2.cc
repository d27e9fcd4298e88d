#if defined(__x86_64__)

#include <immintrin.h>

#include "physical/copy/kernel.h"

#define KVBM_TARGET [[gnu::target("avx2")]]

namespace kvbm {
namespace {

constexpr std::size_t kParts = kStripeBytes / sizeof(__m256i);

KVBM_TARGET inline __m256i load(const void* from, std::size_t part) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from) + part);
}

template <Write kWrite>
KVBM_TARGET inline void store(std::byte* target, std::size_t part, __m256i value) noexcept {
  if constexpr (kWrite == Write::Cached) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target) + part, value);
  }
  if constexpr (kWrite == Write::Streaming) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target) + part, value);
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
  __m256i lanes[kParts];
  for (std::size_t part = 0; part < kParts; ++part) lanes[part] = load(&sums, part);
  __m256i raw[kParts] = {};  // swapped and added at the end, which spares a step per stripe
#pragma GCC unroll 8
  for (std::size_t i = 0; i < stripes; ++i) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const __m256i value = load(source, part);
      store<kWrite>(target, part, value);
      const __m256i keyed = _mm256_xor_si256(value, load(secret, part));
      const __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
      raw[part] = _mm256_add_epi64(raw[part], value);
      lanes[part] = _mm256_add_epi64(lanes[part], product);
    }
    source += kStripeBytes;
    if constexpr (kWrite != Write::Nothing) target += kStripeBytes;
    secret += 8;
  }
  for (std::size_t part = 0; part < kParts; ++part) {
    lanes[part] = _mm256_add_epi64(lanes[part], _mm256_shuffle_epi32(raw[part], 0x4E));
    _mm256_store_si256(reinterpret_cast<__m256i*>(&sums) + part, lanes[part]);
  }
}

KVBM_TARGET void fold(Accumulators& sums, std::span<const Accumulators> partials,
                      const std::byte* secret) noexcept {
  const __m256i prime = _mm256_set1_epi32(static_cast<int>(0x9E3779B1));
  __m256i lanes[kParts];
  for (std::size_t part = 0; part < kParts; ++part) lanes[part] = load(&sums, part);
  for (const Accumulators& partial : partials) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const __m256i sum = _mm256_add_epi64(lanes[part], load(&partial, part));
      const __m256i mixed =
          _mm256_xor_si256(_mm256_xor_si256(sum, _mm256_srli_epi64(sum, 47)), load(secret, part));
      const __m256i low = _mm256_mul_epu32(mixed, prime);
      const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
      lanes[part] = _mm256_add_epi64(low, _mm256_slli_epi64(high, 32));
    }
  }
  for (std::size_t part = 0; part < kParts; ++part) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(&sums) + part, lanes[part]);
  }
}

}  // namespace

const CopyKernel kAvx2Kernel = {.name = "avx2",
                                .stream = stream,
                                .accumulate_only = accumulate<Write::Nothing>,
                                .accumulate_cached = accumulate<Write::Cached>,
                                .accumulate_streaming = accumulate<Write::Streaming>,
                                .fold = fold};

}  // namespace kvbm

#endif
