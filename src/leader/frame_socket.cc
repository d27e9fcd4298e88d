#include "leader/frame_socket.h"

#include <sys/socket.h>

#include <cerrno>

namespace kvbm::leader {
namespace {

bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

FrameSocket::FrameSocket(Descriptor socket)
    : socket_(std::move(socket)), chunk_(std::make_unique_for_overwrite<std::byte[]>(kReadBytes)) {}

Result<std::optional<Frame>> FrameSocket::next() {
  KVBM_TRY(const auto frame, next_frame(std::span<const std::byte>(in_).subspan(taken_)));
  if (frame) taken_ += frame->size();
  return frame;
}

Result<void> FrameSocket::receive() {
  in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(taken_));
  taken_ = 0;
  const ssize_t received = ::recv(socket_.number(), chunk_.get(), kReadBytes, 0);
  if (received > 0) {
    in_.insert(in_.end(), chunk_.get(), chunk_.get() + received);
    return {};
  }
  if (received == 0) return Error{ErrorCode::OperationFailed, 0, 0, 0, "the other end has closed"};
  if (would_block(errno)) return {};
  return Error{ErrorCode::OperationFailed, errno, 0, 0, "cannot read from the socket"};
}

Result<void> FrameSocket::send(std::span<const std::byte> frame) {
  std::size_t sent = 0;
  if (unsent() == 0) {
    KVBM_TRY(sent, write_some(frame));
  }
  const auto rest = frame.subspan(sent);
  out_.insert(out_.end(), rest.begin(), rest.end());
  return {};
}

Result<void> FrameSocket::flush() {
  if (unsent() == 0) return {};
  KVBM_TRY(const std::size_t sent, write_some(std::span<const std::byte>(out_).subspan(sent_)));
  sent_ += sent;
  if (unsent() == 0) {
    out_.clear();
    sent_ = 0;
  }
  return {};
}

// How many of them the socket took.
Result<std::size_t> FrameSocket::write_some(std::span<const std::byte> bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t now =
        ::send(socket_.number(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (now < 0) {
      if (errno == EINTR) continue;
      if (would_block(errno)) break;
      return Error{ErrorCode::OperationFailed, errno, 0, 0, "cannot write to the socket"};
    }
    sent += static_cast<std::size_t>(now);
  }
  return sent;
}

}  // namespace kvbm::leader
