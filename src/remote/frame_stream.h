// One end of a connection that moves whole frames and waits for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kvbm/result.h"
#include "platform/os/tcp.h"
#include "remote/frames.h"

namespace kvbm::remote {

// After an error the connection is of no use. Not thread-safe.
class FrameStream {
 public:
  explicit FrameStream(Descriptor socket) noexcept : socket_(std::move(socket)) {}

  // The next frame, and no byte that comes after it; valid until the next call. Errors: those of
  // receive_exact() and leader::read_header(), InvalidConfig for another version; OperationFailed
  // {bytes, most} for a longer body.
  Result<Frame> receive(const Until& until, std::size_t max_body_bytes = leader::kMaxBodyBytes);
  // Errors: those of send_all().
  Result<void> send(std::span<const std::byte> frame, const Until& until) {
    return send_all(socket_, frame, until);
  }

  // The number of the next request, never twice in this connection.
  std::uint64_t next_request() noexcept { return ++last_request_; }

  const Descriptor& socket() const noexcept { return socket_; }
  // The socket, to go on with by other means: nothing that came is kept here.
  Descriptor take_socket() && noexcept { return std::move(socket_); }

 private:
  Descriptor socket_;
  std::uint64_t last_request_ = 0;
  std::vector<std::byte> bytes_;  // of the last frame
};

}  // namespace kvbm::remote
