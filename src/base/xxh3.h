// XXH3-64, the hash of names, digests and checksums, compiled in from the xxHash headers.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace kvbm {

static_assert(std::endian::native == std::endian::little,
              "hashes are defined over little-endian bytes and taken from memory as it lies");

inline std::uint64_t xxh3(const void* data, std::size_t bytes, std::uint64_t seed = 0) noexcept {
  return XXH3_64bits_withSeed(data, bytes, seed);
}

}  // namespace kvbm
