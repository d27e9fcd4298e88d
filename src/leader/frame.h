// Frames: what leaders, ranks and peers send each other is made of them. Every byte that comes in
// is checked. Threads: any.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kvbm/result.h"

namespace kvbm::leader {

inline constexpr std::uint8_t kProtocolVersion = 1;
inline constexpr std::size_t kHeaderBytes = 16;
inline constexpr std::size_t kMaxFrameBytes = 8u << 20;  // with its header
inline constexpr std::size_t kMaxBodyBytes = kMaxFrameBytes - kHeaderBytes;

// An answer's number is its request's with the highest bit set, as far as it has one of its own.
enum class FrameType : std::uint8_t {
  // Leaders and peers ask.
  Hello = 1,
  Lookup = 2,
  Trim = 3,
  Release = 4,
  Info = 129,
  Plan = 130,
  Failure = 131,
  // Only peers ask: docs/peer_protocol.md.
  Challenge = 16,
  Proof = 17,
  Introduction = 18,
  Fetch = 19,
  Pull = 20,
  Confirm = 21,
  Ping = 22,
  Goodbye = 23,
  ChallengeAnswer = 144,
  ProofAnswer = 145,
  IntroductionAnswer = 146,
  Fetched = 147,
  Block = 148,
  Confirmed = 149,
  Pong = 150,
};

struct FrameHeader {
  FrameType type;
  std::size_t body_bytes;
  std::uint64_t request;  // chosen by who asks; an answer repeats it
};

struct Frame {
  FrameType type;
  std::uint64_t request;
  std::span<const std::byte> body;

  std::size_t size() const noexcept { return kHeaderBytes + body.size(); }
};

// The header that these bytes begin with; nothing while it is not all there. Errors:
// OperationFailed for bytes that can begin no frame.
Result<std::optional<FrameHeader>> read_header(std::span<const std::byte> bytes);

// The first frame of what has come in; nothing while it is not all there. Its body refers to
// `bytes`. Errors: those of read_header().
Result<std::optional<Frame>> next_frame(std::span<const std::byte> bytes);

// What is wrong with a frame.
inline Error garbage(std::string what, std::uint64_t requested = 0, std::uint64_t available = 0) {
  return Error{ErrorCode::OperationFailed, 0, requested, available, std::move(what)};
}

// Writes a frame of a known length, the header first.
class FrameWriter {
 public:
  FrameWriter(FrameType type, std::uint64_t request, std::size_t body_bytes)
      : bytes_(kHeaderBytes + body_bytes) {
    put(kProtocolVersion);
    put(static_cast<std::uint8_t>(type));
    put(std::uint16_t{0});
    put(static_cast<std::uint32_t>(body_bytes));
    put(request);
  }
  template <class T>
  void put(T value) {
    append(&value, sizeof value);
  }
  // Requires: the frame has room for it.
  void append(const void* data, std::size_t size) {
    if (size == 0) return;
    std::memcpy(&bytes_[written_], data, size);
    written_ += size;
  }
  std::vector<std::byte> finish() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
  std::size_t written_ = 0;
};

// Reads fields one after the other. Past the end they are 0 and whole() is false.
class FrameReader {
 public:
  explicit FrameReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  T get() {
    T value{};
    copy(&value, sizeof value);
    return value;
  }
  std::string get_text(std::size_t size) {
    std::string text(std::min(size, bytes_.size()), '\0');
    copy(text.data(), size);
    return text;
  }
  void copy(void* to, std::size_t size) {
    if (size > bytes_.size()) {
      is_short_ = true;
      bytes_ = {};
    } else if (size > 0) {
      std::memcpy(to, bytes_.data(), size);
      bytes_ = bytes_.subspan(size);
    }
  }
  std::size_t left() const noexcept { return bytes_.size(); }
  // Whether something that was read was not there.
  bool is_short() const noexcept { return is_short_; }
  // The same, and nothing is left.
  bool whole() const noexcept { return !is_short_ && bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
  bool is_short_ = false;
};

}  // namespace kvbm::leader
