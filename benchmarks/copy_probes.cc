#include "benchmarks/copy_probes.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kvbm::bench {
namespace {

void copy_cached(std::span<const CopyRun> runs) {
  for (const CopyRun& run : runs) std::memcpy(run.target, run.source, run.bytes);
}

#if defined(__x86_64__)

constexpr std::size_t kAheadBytes = 512;

using Stream = void (*)(std::byte* target, const std::byte* source, std::size_t bytes);

[[gnu::target("avx512f")]] void stream_avx512(std::byte* target, const std::byte* source,
                                              std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += 64) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target + at), _mm512_loadu_si512(source + at));
  }
}

[[gnu::target("avx512f")]] void stream_ahead_avx512(std::byte* target, const std::byte* source,
                                                    std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(source + at + kAheadBytes), _MM_HINT_NTA);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target + at), _mm512_loadu_si512(source + at));
  }
}

[[gnu::target("avx2")]] void stream_avx2(std::byte* target, const std::byte* source,
                                         std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += 32) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target + at),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + at)));
  }
}

[[gnu::target("avx2")]] void stream_ahead_avx2(std::byte* target, const std::byte* source,
                                               std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(source + at + kAheadBytes), _MM_HINT_NTA);
    for (std::size_t part = at; part < at + 64; part += 32) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(target + part),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + part)));
    }
  }
}

template <Stream kStream>
void one_by_one(std::span<const CopyRun> runs) {
  for (const CopyRun& run : runs) kStream(run.target, run.source, run.bytes);
  _mm_sfence();
}

// Four runs at a time; a run that is alone is cut into four.
template <Stream kStream>
void four_in_turns(std::span<const CopyRun> runs) {
  constexpr std::size_t kTurn = 512;
  if (runs.size() < 4) {
    for (const CopyRun& run : runs) {
      const std::size_t quarter = run.bytes / 4;
      for (std::size_t at = 0; at < quarter; at += kTurn) {
        for (std::size_t part = 0; part < run.bytes; part += quarter) {
          kStream(run.target + part + at, run.source + part + at, kTurn);
        }
      }
    }
  } else {
    for (; !runs.empty(); runs = runs.subspan(4)) {
      for (std::size_t at = 0; at < runs.front().bytes; at += kTurn) {
        for (const CopyRun& run : runs.first(4)) kStream(run.target + at, run.source + at, kTurn);
      }
    }
  }
  _mm_sfence();
}

#endif

}  // namespace

std::vector<CopyProbe> copy_probes() {
  std::vector<CopyProbe> probes = {{"memcpy", copy_cached}};
#if defined(__x86_64__)
  const auto add = [&](CopyProbe plain, CopyProbe ahead, CopyProbe turns) {
    probes.insert(probes.end(), {std::move(plain), std::move(ahead), std::move(turns)});
  };
  if (__builtin_cpu_supports("avx2")) {
    add({"past the caches, 32 bytes", one_by_one<stream_avx2>},
        {"the same, fetching ahead", one_by_one<stream_ahead_avx2>},
        {"the same, 4 places in turns", four_in_turns<stream_avx2>});
  }
  if (__builtin_cpu_supports("avx512f")) {
    add({"past the caches, 64 bytes", one_by_one<stream_avx512>},
        {"the same, fetching ahead", one_by_one<stream_ahead_avx512>},
        {"the same, 4 places in turns", four_in_turns<stream_avx512>});
  }
#endif
  return probes;
}

}  // namespace kvbm::bench
