// One end of a connection, which moves whole frames and never waits.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kvbm/result.h"
#include "leader/protocol.h"
#include "platform/os/descriptor.h"

namespace kvbm::leader {

// Not thread-safe.
class FrameSocket {
 public:
  // Requires: a connected stream socket that does not block.
  explicit FrameSocket(Descriptor socket);

  int descriptor() const noexcept { return socket_.number(); }

  // The next frame that has come in; valid until the next call. Errors: those of next_frame().
  Result<std::optional<Frame>> next();
  // Takes in what has come, at most kReadBytes, perhaps nothing. Called when next() has none, so
  // that no more than a frame and kReadBytes are kept. Errors: OperationFailed, with errno or
  // because the other end has closed.
  Result<void> receive();

  // Sends what the socket takes now and keeps the rest for flush(). Errors: OperationFailed with
  // errno; then the connection is of no use.
  Result<void> send(std::span<const std::byte> frame);
  Result<void> flush();
  // Bytes that are kept for flush().
  std::size_t unsent() const noexcept { return out_.size() - sent_; }

 private:
  static constexpr std::size_t kReadBytes = 64 * 1024;
  Result<std::size_t> write_some(std::span<const std::byte> bytes);

  Descriptor socket_;
  std::unique_ptr<std::byte[]> chunk_;
  std::vector<std::byte> in_;
  std::size_t taken_ = 0;  // of in_
  std::vector<std::byte> out_;
  std::size_t sent_ = 0;  // of out_
};

}  // namespace kvbm::leader
