// TCP on plain POSIX sockets: addresses, listening, connecting, and moving an exact number of
// bytes, each under a deadline. Nothing here raises SIGPIPE.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kvbm/result.h"
#include "platform/os/descriptor.h"

namespace kvbm {

// Ends calls that wait, now and later, for good. stop() may be called from any thread.
class StopSignal {
 public:
  // Errors: OperationFailed with errno if the system gives no more descriptors.
  static Result<StopSignal> create();

  void stop() const noexcept;
  bool is_stopped() const noexcept;
  // Can be read as soon as it is stopped, and stays so.
  int descriptor() const noexcept { return event_.number(); }

 private:
  explicit StopSignal(Descriptor event) noexcept : event_(std::move(event)) {}
  Descriptor event_;  // an eventfd that nobody reads
};

// How long a call may wait: TimedOut after the deadline, Cancelled once it is stopped.
struct Until {
  std::chrono::steady_clock::time_point deadline;
  const StopSignal* stop = nullptr;  // must outlive the call
};

// Waits until the descriptor can be read (POLLIN) or written (POLLOUT), or has failed. Errors:
// TimedOut; Cancelled; OperationFailed with errno.
Result<void> wait_for(int descriptor, short events, const Until& until);

// An IPv4 or IPv6 address with a port.
class SocketAddress {
 public:
  // Requires: an address of one of these families.
  SocketAddress(const sockaddr* address, socklen_t bytes) noexcept;
  const sockaddr* data() const noexcept { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t size() const noexcept { return size_; }
  // Whether only this machine can reach it: 127.0.0.0/8, also mapped into IPv6, and ::1.
  bool is_loopback() const noexcept;
  // "127.0.0.1:80", "[::1]:80".
  std::string to_string() const;

 private:
  sockaddr_storage storage_{};
  socklen_t size_ = 0;
};

struct HostPort {
  std::string host;  // name or address, without brackets
  std::uint16_t port;
};
// "host:port" or "[address]:port". Errors: InvalidConfig naming the text and what is wrong.
Result<HostPort> parse_host_port(const std::string& text);

// The addresses of "host:port", in the order in which they are to be tried; at least one. Names are
// looked up on a thread of their own, which is left behind at the deadline: the system's resolver
// knows none. Errors: those of parse_host_port(); OperationFailed with the resolver's words;
// TimedOut; Cancelled.
Result<std::vector<SocketAddress>> resolve(const std::string& host_port, const Until& until);

// A socket that listens. Not thread-safe, but descriptor() may be polled by others.
class TcpListener {
 public:
  // Port 0: the system chooses one. Errors: OperationFailed with errno, naming the address.
  static Result<TcpListener> open(const SocketAddress& address);

  int descriptor() const noexcept { return socket_.number(); }
  const SocketAddress& address() const noexcept { return address_; }  // with the real port
  // Who waits to be accepted; nothing if nobody does. Does not wait. Errors: OperationFailed with
  // errno, when the system gives no descriptor.
  Result<std::optional<Descriptor>> accept();

 private:
  TcpListener(Descriptor socket, SocketAddress address)
      : socket_(std::move(socket)), address_(address) {}
  Descriptor socket_;
  SocketAddress address_;
};

// A connected socket: no delay, with keep-alive, and given up if what was sent is not acknowledged
// within 15 s. It does not block; use wait_for(), or the functions below. Errors: TimedOut;
// Cancelled; OperationFailed with errno, naming the address.
Result<Descriptor> connect_tcp(const SocketAddress& address, const Until& until);

// The other end of a connected socket. Errors: OperationFailed with errno.
Result<SocketAddress> remote_address(const Descriptor& socket);

// Sends all of both spans, the first one first, with as few packets as possible. After an error an
// unknown part was sent and the connection is of no use. Errors: TimedOut; Cancelled;
// OperationFailed with errno.
Result<void> send_all(const Descriptor& socket, std::span<const std::byte> first,
                      std::span<const std::byte> second, const Until& until);
inline Result<void> send_all(const Descriptor& socket, std::span<const std::byte> bytes,
                             const Until& until) {
  return send_all(socket, bytes, {}, until);
}

// Fills all of `bytes`, and reads nothing that comes after them. After an error the connection is
// of no use. Errors: TimedOut; Cancelled; OperationFailed with errno, or {bytes wanted, bytes that
// came} if the other end has closed.
Result<void> receive_exact(const Descriptor& socket, std::span<std::byte> bytes,
                           const Until& until);

}  // namespace kvbm
