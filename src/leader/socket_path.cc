#include "leader/socket_path.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

namespace kvbm::leader {
namespace {

constexpr std::size_t kMaxPathBytes = sizeof(sockaddr_un::sun_path) - 1;
constexpr int kBacklog = 16;
// How long is waited for another process that opens a socket in the same directory.
constexpr std::chrono::milliseconds kLockPatience{500};

Error system_error(int error, std::string what) {
  return Error{ErrorCode::OperationFailed, error, 0, 0, std::move(what)};
}

// Requires: a valid path.
sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<Descriptor> new_socket() {
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.number() < 0) return system_error(errno, "the system gives no more sockets");
  return socket;
}

// errno of the attempt, or 0.
int try_connect(const Descriptor& socket, const std::string& path) {
  const sockaddr_un address = address_of(path);
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  return ::connect(socket.number(), generic, sizeof address) == 0 ? 0 : errno;
}

// Who looks at a path and then takes it must be alone: of two that find a dead socket at once, the
// second would remove the first one's. The lock is on the directory, so no file is left behind.
Result<Descriptor> lock_directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string directory =
      slash == std::string::npos ? "." : path.substr(0, slash == 0 ? 1 : slash);
  Descriptor opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (opened.number() < 0) return system_error(errno, "cannot open directory " + directory);
  const auto give_up = std::chrono::steady_clock::now() + kLockPatience;
  while (::flock(opened.number(), LOCK_EX | LOCK_NB) != 0) {
    const int failed = errno;
    if (failed != EWOULDBLOCK || std::chrono::steady_clock::now() >= give_up) {
      return system_error(failed, "cannot lock directory " + directory);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return opened;
}

// Removes a socket that nobody listens to. Nothing else is touched.
Result<void> clear_path(const std::string& path) {
  struct stat there{};
  if (::lstat(path.c_str(), &there) != 0) {
    if (errno == ENOENT) return {};
    return system_error(errno, "cannot look at " + path);
  }
  if (!S_ISSOCK(there.st_mode)) {
    return system_error(EEXIST, path + " is not a socket; give the server a path of its own");
  }
  KVBM_TRY(const Descriptor socket, new_socket());
  const int error = try_connect(socket, path);
  // A full queue of connections is that of a living process.
  if (error == 0 || error == EAGAIN) {
    return system_error(EADDRINUSE, "another process serves " + path);
  }
  if (error == ENOENT) return {};
  if (error != ECONNREFUSED) return system_error(error, "cannot tell who serves " + path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return system_error(errno, "cannot remove the dead socket " + path);
  }
  return {};
}

}  // namespace

Result<void> check_socket_path(const std::string& path) {
  if (path.empty()) {
    return Error{ErrorCode::InvalidConfig, 0, 0, kMaxPathBytes, "the path of a socket is empty"};
  }
  if (path.size() > kMaxPathBytes) {
    return Error{ErrorCode::InvalidConfig, 0, path.size(), kMaxPathBytes,
                 "the path of a socket is too long: " + path};
  }
  if (path.find('\0') != std::string::npos) {
    return Error{ErrorCode::InvalidConfig, 0, path.size(), kMaxPathBytes,
                 "the path of a socket has a zero byte"};
  }
  return {};
}

Result<Listener> Listener::open(const std::string& path) {
  KVBM_CHECK_OK(check_socket_path(path));
  KVBM_TRY(const Descriptor lock, lock_directory_of(path));
  KVBM_CHECK_OK(clear_path(path));
  KVBM_TRY(Descriptor socket, new_socket());
  const sockaddr_un address = address_of(path);
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  if (::bind(socket.number(), generic, sizeof address) != 0) {
    return system_error(errno, "cannot make the socket " + path);
  }
  struct stat made{};
  // Nobody can connect before it listens.
  if (::chmod(path.c_str(), 0600) != 0 || ::lstat(path.c_str(), &made) != 0 ||
      ::listen(socket.number(), kBacklog) != 0) {
    const int failed = errno;
    ::unlink(path.c_str());
    return system_error(failed, "cannot listen at " + path);
  }
  return Listener(std::move(socket), path, made.st_dev, made.st_ino);
}

Listener::~Listener() {
  if (socket_.number() < 0) return;  // moved from
  // Somebody may have removed the file, and another process may have made its own since.
  const auto lock = lock_directory_of(path_);
  struct stat there{};
  if (::lstat(path_.c_str(), &there) == 0 && there.st_dev == device_ && there.st_ino == inode_) {
    ::unlink(path_.c_str());
  }
}

Result<Descriptor> connect_to(const std::string& path) {
  KVBM_CHECK_OK(check_socket_path(path));
  KVBM_TRY(Descriptor socket, new_socket());
  if (const int error = try_connect(socket, path); error != 0) {
    return system_error(error, "cannot connect to " + path);
  }
  return socket;
}

}  // namespace kvbm::leader
