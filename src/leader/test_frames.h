// For tests: frames, and frames with something changed.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "leader/frame.h"

namespace kvbm::leader {

using Bytes = std::vector<std::byte>;

inline Frame frame_of(const Bytes& bytes) {
  const auto frame = next_frame(bytes);
  EXPECT_TRUE(frame.has_value() && frame->has_value());
  return **frame;
}

template <class T>
Bytes with(Bytes bytes, std::size_t at, T value) {
  std::memcpy(&bytes[at], &value, sizeof value);
  return bytes;
}

// The frame with a body of another length, and a header that says so.
inline Bytes resized(Bytes bytes, std::size_t body) {
  bytes.resize(kHeaderBytes + body);
  return with(bytes, 4, static_cast<std::uint32_t>(body));
}

}  // namespace kvbm::leader
