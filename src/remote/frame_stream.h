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
  // A frame and what follows it. Errors: those of send_all(); then part of a frame may have been
  // sent, behind which nothing can be said any more.
  Result<void> send(std::span<const std::byte> frame, const Until& until) {
    return send(frame, {}, until);
  }
  Result<void> send(std::span<const std::byte> frame, std::span<const std::byte> behind,
                    const Until& until);
  bool can_send() const noexcept { return can_send_; }

  // The number of the next request, never twice in this connection.
  std::uint64_t next_request() noexcept { return ++last_request_; }

  const Descriptor& socket() const noexcept { return socket_; }
  // The socket, to go on with by other means: nothing that came is kept here.
  Descriptor take_socket() && noexcept { return std::move(socket_); }

 private:
  Descriptor socket_;
  std::uint64_t last_request_ = 0;
  bool can_send_ = true;
  std::vector<std::byte> bytes_;  // of the last frame
};

}  // namespace kvbm::remote
