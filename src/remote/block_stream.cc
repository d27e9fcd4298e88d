#include "remote/block_stream.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

namespace kvbm::remote {
namespace {

using Clock = std::chrono::steady_clock;

// Of one recv(). Larger ones leave the cache before they are summed, and the sender waits longer.
constexpr std::size_t kReceiveBytes = std::size_t{128} << 10;

// Shuts a connection down unless told that all went well.
class Guard {
 public:
  explicit Guard(const Descriptor& socket) noexcept : socket_(socket) {}
  ~Guard() {
    if (!is_good_) ::shutdown(socket_.number(), SHUT_RDWR);
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  void end() noexcept { is_good_ = true; }

 private:
  const Descriptor& socket_;
  bool is_good_ = false;
};

Result<void> check_target(const Layout& target, const BlockCopy& copy) {
  if (copy.target >= target.config().num_blocks) {
    return Error{ErrorCode::InvalidBlockIndex, 0, copy.target, target.config().num_blocks, {}};
  }
  for (const auto& memory : target.memories()) {
    if (memory->data()) continue;
    return Error{ErrorCode::NotAccessible, 0, 0, 0,
                 "a block is received where the CPU can address it"};
  }
  if (copy.payload_sum) return {};
  return Error{ErrorCode::InvalidConfig, 0, 0, 0,
               "a block of another process is only received with the sum that it must have"};
}

Error timed_out(std::size_t bytes, std::size_t left, std::string what) {
  return Error{ErrorCode::TimedOut, 0, bytes, bytes - left, std::move(what)};
}

// Takes all bytes of a block from the socket.
Result<void> fill(const Descriptor& socket, BlockSink& sink, std::span<std::byte> room,
                  const BlockPatience& patience) {
  const std::size_t bytes = sink.left();
  const auto silent_at = [&] { return Clock::now() + patience.silence; };
  auto silent = silent_at();
  while (sink.left() > 0) {
    // Both are looked at between pieces: bytes that never stop must not get by them.
    if (patience.until.stop && patience.until.stop->is_stopped()) {
      return Error{ErrorCode::Cancelled, 0, 0, 0, {}};
    }
    if (Clock::now() >= patience.until.deadline) {
      return timed_out(bytes, sink.left(), "a block has not come within its deadline");
    }
    const std::size_t piece = std::min({sink.left(), kReceiveBytes, room.size()});
    const ssize_t came = ::recv(socket.number(), room.data(), piece, MSG_DONTWAIT);
    if (came > 0) {
      sink.add(room.first(static_cast<std::size_t>(came)));
      silent = silent_at();
      continue;
    }
    if (came == 0) {
      return Error{ErrorCode::OperationFailed, 0, bytes, bytes - sink.left(),
                   "the other end has closed in the middle of a block"};
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      return Error{ErrorCode::OperationFailed, errno, 0, 0, "a block cannot be received"};
    }
    if (Clock::now() >= silent) {
      return timed_out(bytes, sink.left(), "the other end is silent in the middle of a block");
    }
    const auto waited = wait_for(
        socket.number(), POLLIN,
        {.deadline = std::min(patience.until.deadline, silent), .stop = patience.until.stop});
    // What has timed out is said above, with its numbers.
    if (!waited && waited.error().code != ErrorCode::TimedOut) return waited;
  }
  return {};
}

}  // namespace

Result<std::uint64_t> receive_block(const Descriptor& socket, const Layout& target,
                                    const BlockCopy& copy, Staging& staging,
                                    const BlockPatience& patience) {
  Guard guard(socket);
  KVBM_CHECK_OK(check_target(target, copy));
  BlockSink sink(target, copy.target);
  KVBM_CHECK_OK(fill(socket, sink, staging.bytes(), patience));
  guard.end();
  return sink.finish(*copy.payload_sum);
}

}  // namespace kvbm::remote
