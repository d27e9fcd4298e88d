// Memory of other processes of this machine, read without their help (cross memory attach).
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>
#include <utility>

#include "kvbm/result.h"

namespace kvbm {

// Which process, so that no other one is ever taken for it: a pid alone is given to somebody else
// when its process has ended.
struct ProcessIdentity {
  std::array<std::uint8_t, 16> boot_id{};  // of the kernel; another machine has another one
  std::uint64_t pid_namespace = 0;         // inode of the namespace that the pid counts in
  std::uint64_t start_ticks = 0;  // when it began, in clock ticks since the machine's start
  std::uint32_t pid = 0;
  std::uint32_t user = 0;  // effective user id

  // Cost: four small files of /proc. Errors: OperationFailed with errno, naming the file.
  static Result<ProcessIdentity> of_this_process();

  friend bool operator==(const ProcessIdentity&, const ProcessIdentity&) = default;
};

// Thread-safe: reads of different targets at once.
class ProcessMemory {
 public:
  // Errors: SourceGone with ESRCH if there is no such process, or if its pid is another one's now;
  // NotAccessible naming both values if it runs on another machine, in another pid namespace, or as
  // another user; OperationFailed with errno if this kernel cannot watch processes.
  static Result<ProcessMemory> open(const ProcessIdentity& owner);
  ~ProcessMemory();
  ProcessMemory(ProcessMemory&& other) noexcept
      : owner_(other.owner_), watch_(std::exchange(other.watch_, -1)) {}
  ProcessMemory& operator=(ProcessMemory&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(watch_, other.watch_);
    return *this;
  }

  // Copies what lies at `remote`, addresses of the other process, to `local`; both lists are as
  // many bytes long, in runs of any number and length. The owner may write it meanwhile, and it is
  // another process's if the owner has ended: check_alive() follows the last read, and the caller
  // must verify what was read. After an error, `local` holds anything. Cost: a system call for
  // every 512 runs or 2 GiB. Errors: InvalidConfig{local, remote bytes} if these differ; SourceGone
  // with ESRCH if the owner has ended; OperationFailed{bytes, bytes read} with EPERM if it must not
  // be read, or EFAULT if it has no memory there.
  Result<void> read(std::span<const iovec> local, std::span<const iovec> remote) const;

  // Whether all that was read before is the owner's: who lives now has had its pid all the while.
  // Cost: a system call. Errors: SourceGone with ESRCH if it has ended.
  Result<void> check_alive() const;

 private:
  ProcessMemory(const ProcessIdentity& owner, int watch) noexcept : owner_(owner), watch_(watch) {}
  bool has_ended() const noexcept;

  ProcessIdentity owner_;
  int watch_;  // a descriptor of the process itself, whatever becomes of its pid
};

}  // namespace kvbm
