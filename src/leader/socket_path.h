// Unix sockets by their paths.
#pragma once

#include <sys/types.h>

#include <string>

#include "kvbm/result.h"
#include "platform/os/descriptor.h"

namespace kvbm::leader {

// Errors: InvalidConfig {bytes, most that a path can have} for an empty or too long path, or one
// with a zero byte.
Result<void> check_socket_path(const std::string& path);

// A socket that listens, whose file only the owner may use and goes with it. Not thread-safe.
class Listener {
 public:
  // Takes the place of a socket that a dead process left. Errors: those of check_socket_path();
  // OperationFailed if a living process listens there or something else is there, which stays, and
  // with errno if the system refuses.
  static Result<Listener> open(const std::string& path);
  ~Listener();
  Listener(Listener&&) noexcept = default;

  int descriptor() const noexcept { return socket_.number(); }

 private:
  Listener(Descriptor socket, std::string path, dev_t device, ino_t inode)
      : socket_(std::move(socket)), path_(std::move(path)), device_(device), inode_(inode) {}

  Descriptor socket_;
  std::string path_;
  dev_t device_;  // of the file, to see whether it is still there
  ino_t inode_;
};

// A connected socket that does not block. Does not wait. Errors: those of check_socket_path();
// OperationFailed with errno.
Result<Descriptor> connect_to(const std::string& path);

}  // namespace kvbm::leader
