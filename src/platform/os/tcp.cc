#include "platform/os/tcp.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>

namespace kvbm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBacklog = 64;
// How long the other end may be unreachable before the system gives the connection up.
constexpr int kUserTimeoutMilliseconds = 15'000;
constexpr int kKeepAliveIdleSeconds = 10;
constexpr int kKeepAliveIntervalSeconds = 2;

Error system_error(int error, std::string what) {
  return Error{ErrorCode::OperationFailed, error, 0, 0, std::move(what)};
}

bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

// Milliseconds until then, rounded up so that it has passed afterwards; 0 if it has.
int milliseconds_until(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000'000));
}

Result<void> set_options(const Descriptor& socket) {
  struct Option {
    int level;
    int name;
    int value;
  };
  constexpr Option kOptions[] = {{IPPROTO_TCP, TCP_NODELAY, 1},
                                 {SOL_SOCKET, SO_KEEPALIVE, 1},
                                 {IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds},
                                 {IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds},
                                 {IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMilliseconds}};
  for (const auto& [level, name, value] : kOptions) {
    if (::setsockopt(socket.number(), level, name, &value, sizeof value) != 0) {
      return system_error(errno, "cannot set an option of a socket");
    }
  }
  return {};
}

Result<Descriptor> new_socket(const SocketAddress& address) {
  Descriptor socket(
      ::socket(address.data()->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (socket.number() < 0) return system_error(errno, "the system gives no more sockets");
  return socket;
}

using Addresses = std::vector<SocketAddress>;

// Blocks as long as the resolver does.
Result<Addresses> look_up(const HostPort& to, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed =
      ::getaddrinfo(to.host.c_str(), std::to_string(to.port).c_str(), &hints, &found);
  if (failed != 0) {
    return Error{ErrorCode::OperationFailed, failed == EAI_SYSTEM ? errno : 0, 0, 0,
                 "cannot find the address of " + to.host + ": " + ::gai_strerror(failed)};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  Addresses addresses;
  for (const addrinfo* next = found; next; next = next->ai_next) {
    if (next->ai_family != AF_INET && next->ai_family != AF_INET6) continue;
    addresses.emplace_back(next->ai_addr, next->ai_addrlen);
  }
  if (addresses.empty()) {
    return Error{ErrorCode::OperationFailed, 0, 0, 0, to.host + " has no IPv4 or IPv6 address"};
  }
  return addresses;
}

// A look-up that may outlive who waits for it.
struct NameLookup {
  HostPort to;
  StopSignal done;
  Result<Addresses> found = Addresses();  // once done
};

Result<Addresses> look_up_name(HostPort to, const Until& until) {
  KVBM_TRY(StopSignal done, StopSignal::create());
  const auto lookup =
      std::make_shared<NameLookup>(NameLookup{.to = std::move(to), .done = std::move(done)});
  try {
    std::thread([lookup] {
      lookup->found = look_up(lookup->to, 0);
      lookup->done.stop();
    }).detach();
  } catch (const std::system_error& error) {
    return system_error(error.code().value(), "the system gives no more threads");
  }
  KVBM_CHECK_OK(wait_for(lookup->done.descriptor(), POLLIN, until));
  return lookup->found;
}

}  // namespace

Result<StopSignal> StopSignal::create() {
  Descriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (event.number() < 0) return system_error(errno, "the system gives no more descriptors");
  return StopSignal(std::move(event));
}

void StopSignal::stop() const noexcept { ::eventfd_write(event_.number(), 1); }

bool StopSignal::is_stopped() const noexcept {
  pollfd polled{.fd = event_.number(), .events = POLLIN, .revents = 0};
  return ::poll(&polled, 1, 0) > 0;
}

Result<void> wait_for(int descriptor, short events, const Until& until) {
  std::array<pollfd, 2> polled = {
      {{.fd = descriptor, .events = events, .revents = 0},
       {.fd = until.stop ? until.stop->descriptor() : -1, .events = POLLIN, .revents = 0}}};
  for (;;) {
    const int left = milliseconds_until(until.deadline);
    // Also if it is ready: who sends a byte now and then must not put the deadline off.
    if (left == 0) return Error{ErrorCode::TimedOut, 0, 0, 0, "the deadline has passed"};
    const int ready = ::poll(polled.data(), polled.size(), left);
    if (ready < 0 && errno != EINTR) return system_error(errno, "cannot wait for a socket");
    if (ready <= 0) continue;
    if (polled[1].revents != 0) return Error{ErrorCode::Cancelled, 0, 0, 0, "stopped"};
    return {};
  }
}

SocketAddress::SocketAddress(const sockaddr* address, socklen_t bytes) noexcept
    : size_(std::min(bytes, socklen_t{sizeof storage_})) {
  std::memcpy(&storage_, address, size_);
}

bool SocketAddress::is_loopback() const noexcept {
  if (storage_.ss_family == AF_INET) {
    sockaddr_in address{};
    std::memcpy(&address, &storage_, sizeof address);
    return ntohl(address.sin_addr.s_addr) >> 24 == 127;
  }
  sockaddr_in6 address{};
  std::memcpy(&address, &storage_, sizeof address);
  if (IN6_IS_ADDR_V4MAPPED(&address.sin6_addr)) return address.sin6_addr.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&address.sin6_addr);
}

std::string SocketAddress::to_string() const {
  char host[NI_MAXHOST] = "?";
  char port[NI_MAXSERV] = "?";
  ::getnameinfo(data(), size_, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
  const bool is_v6 = storage_.ss_family == AF_INET6;
  return (is_v6 ? "[" + std::string(host) + "]" : std::string(host)) + ":" + port;
}

Result<HostPort> parse_host_port(const std::string& text) {
  const auto wrong = [&text](const std::string& what) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0, "'" + text + "' is no host:port: " + what};
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return wrong("it has no port");
  std::string host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return wrong("an IPv6 address stands in brackets");
  }
  if (host.empty() || host.find('\0') != std::string::npos) return wrong("it has no host");
  std::uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed, failed] = std::from_chars(text.data() + colon + 1, end, port);
  if (failed != std::errc() || parsed != end) return wrong("the port is not 0 to 65535");
  return HostPort{.host = std::move(host), .port = port};
}

Result<std::vector<SocketAddress>> resolve(const std::string& host_port, const Until& until) {
  KVBM_TRY(HostPort to, parse_host_port(host_port));
  if (auto numeric = look_up(to, AI_NUMERICHOST)) return numeric;
  return look_up_name(std::move(to), until);
}

Result<TcpListener> TcpListener::open(const SocketAddress& address) {
  KVBM_TRY(Descriptor socket, new_socket(address));
  // A server that is started again need not wait for the connections of the one before to fade.
  const int reuse = 1;
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (::setsockopt(socket.number(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse) != 0 ||
      ::bind(socket.number(), address.data(), address.size()) != 0 ||
      ::listen(socket.number(), kBacklog) != 0 ||
      ::getsockname(socket.number(), reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    return system_error(errno, "cannot listen at " + address.to_string());
  }
  return TcpListener(std::move(socket),
                     SocketAddress(reinterpret_cast<const sockaddr*>(&bound), size));
}

Result<std::optional<Descriptor>> TcpListener::accept() {
  Descriptor accepted(::accept4(socket_.number(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (accepted.number() < 0) {
    if (would_block(errno) || errno == ECONNABORTED) return std::optional<Descriptor>();
    return system_error(errno, "cannot accept a connection");
  }
  // One that is gone already fails where it is used.
  if (!set_options(accepted)) return std::optional<Descriptor>();
  return std::optional(std::move(accepted));
}

Result<Descriptor> connect_tcp(const SocketAddress& address, const Until& until) {
  KVBM_TRY(Descriptor socket, new_socket(address));
  KVBM_CHECK_OK(set_options(socket));
  const auto failed = [&address](int error) {
    return system_error(error, "cannot connect to " + address.to_string());
  };
  if (::connect(socket.number(), address.data(), address.size()) != 0) {
    if (errno != EINPROGRESS) return failed(errno);
    KVBM_CHECK_OK(wait_for(socket.number(), POLLOUT, until));
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(socket.number(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error != 0) return failed(error);
  }
  return socket;
}

Result<SocketAddress> remote_address(const Descriptor& socket) {
  sockaddr_storage remote{};
  socklen_t size = sizeof remote;
  if (::getpeername(socket.number(), reinterpret_cast<sockaddr*>(&remote), &size) != 0) {
    return system_error(errno, "the socket is not connected");
  }
  return SocketAddress(reinterpret_cast<const sockaddr*>(&remote), size);
}

Result<void> send_all(const Descriptor& socket, std::span<const std::byte> first,
                      std::span<const std::byte> second, const Until& until) {
  while (!first.empty() || !second.empty()) {
    // sendmsg() takes what it does not change as not const.
    const auto piece = [](std::span<const std::byte> bytes) {
      return iovec{const_cast<std::byte*>(bytes.data()), bytes.size()};
    };
    std::array<iovec, 2> pieces = {piece(first), piece(second)};
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    const ssize_t sent = ::sendmsg(socket.number(), &message, MSG_NOSIGNAL);
    if (sent >= 0) {
      const auto of_first = std::min(static_cast<std::size_t>(sent), first.size());
      first = first.subspan(of_first);
      second = second.subspan(static_cast<std::size_t>(sent) - of_first);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      KVBM_CHECK_OK(wait_for(socket.number(), POLLOUT, until));
    } else if (errno != EINTR) {
      return system_error(errno, "cannot write to the socket");
    }
  }
  return {};
}

Result<void> receive_exact(const Descriptor& socket, std::span<std::byte> bytes,
                           const Until& until) {
  std::size_t come = 0;
  while (come < bytes.size()) {
    const ssize_t received = ::recv(socket.number(), bytes.data() + come, bytes.size() - come, 0);
    if (received > 0) {
      come += static_cast<std::size_t>(received);
    } else if (received == 0) {
      return Error{ErrorCode::OperationFailed, 0, bytes.size(), come, "the other end has closed"};
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      KVBM_CHECK_OK(wait_for(socket.number(), POLLIN, until));
    } else if (errno != EINTR) {
      return system_error(errno, "cannot read from the socket");
    }
  }
  return {};
}

}  // namespace kvbm
