#include "platform/os/process_memory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace kvbm {
namespace {

Error proc_error(int error, const std::string& path) {
  return Error{ErrorCode::OperationFailed, error, 0, 0, "cannot read " + path};
}

Error gone(std::uint32_t pid, const std::string& why) {
  return Error{ErrorCode::SourceGone, ESRCH, 0, 0, "process " + std::to_string(pid) + " " + why};
}

// Of a small file of /proc.
Result<std::string> read_text(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return proc_error(errno, path);
  std::string text(4096, '\0');
  const ssize_t bytes = ::read(file, text.data(), text.size());
  const int error = errno;
  ::close(file);
  if (bytes < 0) return proc_error(error, path);
  text.resize(static_cast<std::size_t>(bytes));
  return text;
}

Result<std::array<std::uint8_t, 16>> read_boot_id() {
  const std::string path = "/proc/sys/kernel/random/boot_id";
  KVBM_TRY(std::string text, read_text(path));
  std::erase(text, '-');
  std::array<std::uint8_t, 16> id{};
  if (text.size() < 2 * id.size()) return proc_error(0, path);
  for (std::size_t i = 0; i < id.size(); ++i) {
    const char* const digits = text.data() + 2 * i;
    if (std::from_chars(digits, digits + 2, id[i], 16).ptr != digits + 2) {
      return proc_error(0, path);
    }
  }
  return id;
}

Result<std::uint64_t> pid_namespace_of(const std::string& process) {
  struct stat status{};
  const std::string path = process + "/ns/pid";
  if (::stat(path.c_str(), &status) != 0) return proc_error(errno, path);
  return status.st_ino;
}

// The 22nd field. The second one is the program's name, which may hold anything but ends at the
// last bracket.
Result<std::uint64_t> start_ticks_of(const std::string& process) {
  constexpr int kFieldsAfterName = 20;
  const std::string path = process + "/stat";
  KVBM_TRY(const std::string text, read_text(path));
  std::size_t at = text.rfind(')');
  for (int i = 0; i < kFieldsAfterName && at != std::string::npos; ++i) {
    at = text.find(' ', at + 1);
  }
  if (at == std::string::npos) return proc_error(0, path);
  std::uint64_t ticks = 0;
  const auto parsed = std::from_chars(text.data() + at + 1, text.data() + text.size(), ticks);
  if (parsed.ec != std::errc()) return proc_error(0, path);
  return ticks;
}

std::string hex(const std::array<std::uint8_t, 16>& bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Error elsewhere(const char* what, const std::string& theirs, const std::string& ours) {
  return Error{ErrorCode::NotAccessible, 0, 0, 0,
               std::string("the process has ") + what + " " + theirs + ", this one has " + ours +
                   "; only with the same one can its memory be read"};
}

Result<void> check_same_place(const ProcessIdentity& owner, const ProcessIdentity& self) {
  if (owner.boot_id != self.boot_id) {
    return elsewhere("boot id", hex(owner.boot_id), hex(self.boot_id));
  }
  if (owner.pid_namespace != self.pid_namespace) {
    return elsewhere("pid namespace", std::to_string(owner.pid_namespace),
                     std::to_string(self.pid_namespace));
  }
  if (owner.user != self.user) {
    return elsewhere("user id", std::to_string(owner.user), std::to_string(self.user));
  }
  return {};
}

std::size_t bytes_of(std::span<const iovec> runs) noexcept {
  std::size_t bytes = 0;
  for (const iovec& run : runs) bytes += run.iov_len;
  return bytes;
}

// Gives the rest of a list as windows that one call of the kernel takes.
class Windows {
 public:
  explicit Windows(std::span<const iovec> runs) noexcept : runs_(runs) { skip(0); }

  std::span<const iovec> next() noexcept {
    const std::size_t count = std::min(runs_.size(), window_.size());
    std::copy_n(runs_.begin(), count, window_.begin());
    if (count > 0) {
      window_[0].iov_base = static_cast<std::byte*>(window_[0].iov_base) + done_;
      window_[0].iov_len -= done_;
    }
    return std::span(window_).first(count);
  }
  // Behind what was moved, and behind runs that are empty.
  void skip(std::size_t bytes) noexcept {
    done_ += bytes;
    while (!runs_.empty() && done_ >= runs_.front().iov_len) {
      done_ -= runs_.front().iov_len;
      runs_ = runs_.subspan(1);
    }
  }

 private:
  static constexpr std::size_t kWindowRuns = 512;  // the kernel takes 1024: IOV_MAX

  std::span<const iovec> runs_;
  std::size_t done_ = 0;  // of the first one
  std::array<iovec, kWindowRuns> window_;
};

}  // namespace

Result<ProcessIdentity> ProcessIdentity::of_this_process() {
  const std::string self = "/proc/self";
  ProcessIdentity identity;
  KVBM_TRY(identity.boot_id, read_boot_id());
  KVBM_TRY(identity.pid_namespace, pid_namespace_of(self));
  KVBM_TRY(identity.start_ticks, start_ticks_of(self));
  identity.pid = static_cast<std::uint32_t>(::getpid());
  identity.user = ::geteuid();
  return identity;
}

Result<ProcessMemory> ProcessMemory::open(const ProcessIdentity& owner) {
  KVBM_TRY(const ProcessIdentity self, ProcessIdentity::of_this_process());
  KVBM_CHECK_OK(check_same_place(owner, self));
  const auto watch = static_cast<int>(::syscall(SYS_pidfd_open, owner.pid, 0));
  if (watch < 0) {
    const int error = errno;
    // EINVAL: no pid at all.
    if (error == ESRCH || error == EINVAL) return gone(owner.pid, "does not exist");
    return Error{ErrorCode::OperationFailed, error, 0, 0,
                 "the kernel cannot watch process " + std::to_string(owner.pid)};
  }
  ProcessMemory memory(owner, watch);
  // Looked at after it is watched: whose pid this is now keeps it for as long as it has not ended.
  const auto ticks = start_ticks_of("/proc/" + std::to_string(owner.pid));
  if (memory.has_ended()) return gone(owner.pid, "has ended");
  KVBM_CHECK_OK(ticks);
  if (*ticks != owner.start_ticks) {
    return gone(owner.pid, "is another one: it began at tick " + std::to_string(*ticks) +
                               ", the one that is meant at " + std::to_string(owner.start_ticks));
  }
  return memory;
}

ProcessMemory::~ProcessMemory() {
  if (watch_ >= 0) ::close(watch_);
}

bool ProcessMemory::has_ended() const noexcept {
  return ::syscall(SYS_pidfd_send_signal, watch_, 0, nullptr, 0) != 0 && errno == ESRCH;
}

Result<void> ProcessMemory::read(std::span<const iovec> local,
                                 std::span<const iovec> remote) const {
  const std::size_t bytes = bytes_of(local);
  if (bytes_of(remote) != bytes) {
    return Error{ErrorCode::InvalidConfig, 0, bytes, bytes_of(remote),
                 "as many bytes must be read as there is room for"};
  }
  Windows targets(local);
  Windows sources(remote);
  for (std::size_t done = 0; done < bytes;) {
    const auto to = targets.next();
    const auto from = sources.next();
    const ssize_t read = ::process_vm_readv(static_cast<pid_t>(owner_.pid), to.data(), to.size(),
                                            from.data(), from.size(), 0);
    if (read <= 0) {
      const int error = read < 0 ? errno : EFAULT;
      if (error == ESRCH || has_ended()) return gone(owner_.pid, "has ended");
      return Error{ErrorCode::OperationFailed, error, bytes, done,
                   "cannot read the memory of process " + std::to_string(owner_.pid)};
    }
    targets.skip(static_cast<std::size_t>(read));
    sources.skip(static_cast<std::size_t>(read));
    done += static_cast<std::size_t>(read);
  }
  return {};
}

Result<void> ProcessMemory::check_alive() const {
  if (has_ended()) return gone(owner_.pid, "has ended");
  return {};
}

}  // namespace kvbm
