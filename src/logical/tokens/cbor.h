// Canonical CBOR (RFC 8949), as far as names of blocks need it: shortest heads, definite lengths.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "kvbm/types.h"

namespace kvbm {

// Writes into a buffer of its own, which clear() keeps. Threads: none.
class CborWriter {
 public:
  void clear() noexcept { size_ = 0; }
  std::span<const std::byte> bytes() const noexcept { return {buffer_.data(), size_}; }

  void null() { head(7, 22); }
  void array(std::uint64_t count) { head(4, count); }
  void integer(std::int64_t number) {
    if (number >= 0) {
      head(0, static_cast<std::uint64_t>(number));
    } else {
      head(1, ~static_cast<std::uint64_t>(number));
    }
  }
  void text(std::string_view text) { string(3, std::as_bytes(std::span(text))); }
  void byte_string(std::span<const std::byte> bytes) { string(2, bytes); }

  // An array of unsigned integers. Without branches on the numbers, which nobody could predict.
  void token_array(std::span<const Token> tokens) {
    array(tokens.size());
    // The last store may reach three bytes behind its number.
    std::byte* at = reserve(tokens.size() * kTokenBytes + sizeof(std::uint64_t));
    const std::byte* const begin = at;
    for (const Token token : tokens) {
      const unsigned width = (token > 23) + (token > 0xFF) + (token > 0xFFFF);
      const std::uint64_t payload =
          std::uint64_t{__builtin_bswap32(token)} >> (32 - 8 * kPayloadBytes[width]);
      const std::uint64_t bytes = (payload << 8) | (width == 0 ? token : kHead[width]);
      static_assert(std::endian::native == std::endian::little);
      std::memcpy(at, &bytes, sizeof bytes);
      at += 1 + kPayloadBytes[width];
    }
    size_ += static_cast<std::size_t>(at - begin);
  }

 private:
  static constexpr std::size_t kHeadBytes = 9;
  static constexpr std::size_t kTokenBytes = 5;
  static constexpr std::uint8_t kHead[] = {0, 24, 25, 26};  // by the width of a number
  static constexpr std::uint8_t kPayloadBytes[] = {0, 1, 2, 4};

  // Room for so many bytes behind the ones that are there.
  std::byte* reserve(std::size_t count) {
    if (buffer_.size() < size_ + count) buffer_.resize(std::max(2 * buffer_.size(), size_ + count));
    return buffer_.data() + size_;
  }

  void head(unsigned type, std::uint64_t value) {
    std::byte* at = reserve(kHeadBytes);
    const auto put = [&](unsigned info, unsigned payload_bytes) {
      at[0] = static_cast<std::byte>(type << 5 | info);
      for (unsigned i = 0; i < payload_bytes; ++i) {
        at[1 + i] = static_cast<std::byte>(value >> (8 * (payload_bytes - 1 - i)));
      }
      size_ += 1 + payload_bytes;
    };
    if (value < 24) {
      put(static_cast<unsigned>(value), 0);
    } else if (value <= 0xFF) {
      put(24, 1);
    } else if (value <= 0xFFFF) {
      put(25, 2);
    } else if (value <= 0xFFFF'FFFF) {
      put(26, 4);
    } else {
      put(27, 8);
    }
  }

  void string(unsigned type, std::span<const std::byte> bytes) {
    head(type, bytes.size());
    std::byte* at = reserve(bytes.size());
    std::copy(bytes.begin(), bytes.end(), at);
    size_ += bytes.size();
  }

  std::vector<std::byte> buffer_;
  std::size_t size_ = 0;
};

}  // namespace kvbm
