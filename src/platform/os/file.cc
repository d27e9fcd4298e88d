#include "platform/os/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <thread>

namespace kvbm {
namespace {

// What O_DIRECT asks of addresses, offsets and lengths on every file system in use; also a page.
constexpr std::size_t kDirectAlignment = 4096;
// A process that was killed keeps its locks until the kernel has taken down what it did through
// io_uring, which was seen to take up to 65 ms.
constexpr std::chrono::milliseconds kLockPatience{500};

Error system_error(ErrorCode code, int error, std::string message, std::uint64_t requested = 0,
                   std::uint64_t available = 0) {
  return Error{code, error, requested, available, std::move(message)};
}

class PosixFile final : public File {
 public:
  PosixFile(int descriptor, std::string path, bool direct)
      : descriptor_(descriptor), path_(std::move(path)), direct_(direct) {}
  ~PosixFile() override { ::close(descriptor_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Result<void> read(std::span<std::byte> bytes, std::uint64_t offset) override {
    KVBM_CHECK_OK(check_range(bytes.size(), offset, "read"));
    std::size_t moved = 0;
    while (moved < bytes.size()) {
      const ssize_t n = ::pread(descriptor_, bytes.data() + moved, bytes.size() - moved,
                                static_cast<off_t>(offset + moved));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return stopped(n, moved, bytes.size(), offset, "read");
      moved += static_cast<std::size_t>(n);
    }
    return {};
  }

  Result<void> write(std::span<const std::byte> bytes, std::uint64_t offset) override {
    KVBM_CHECK_OK(check_range(bytes.size(), offset, "write"));
    std::size_t moved = 0;
    while (moved < bytes.size()) {
      const ssize_t n = ::pwrite(descriptor_, bytes.data() + moved, bytes.size() - moved,
                                 static_cast<off_t>(offset + moved));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return stopped(n, moved, bytes.size(), offset, "write");
      moved += static_cast<std::size_t>(n);
    }
    return {};
  }

  Result<void> sync() override {
    while (::fdatasync(descriptor_) != 0) {
      if (errno == EINTR) continue;
      return system_error(ErrorCode::OperationFailed, errno, "sync of " + path_);
    }
    return {};
  }

  std::uint64_t size() const noexcept override { return size_; }
  bool is_removed() const noexcept override {
    struct stat now{};
    return ::fstat(descriptor_, &now) == 0 && now.st_nlink == 0;
  }
  std::size_t io_alignment() const noexcept override { return direct_ ? kDirectAlignment : 1; }
  int descriptor() const noexcept override { return descriptor_; }
  const std::string& description() const noexcept override { return description_; }

  Result<void> lock() {
    const auto give_up = std::chrono::steady_clock::now() + kLockPatience;
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      const int failed = errno;
      if (failed != EWOULDBLOCK || std::chrono::steady_clock::now() >= give_up) {
        return system_error(ErrorCode::OperationFailed, failed,
                            path_ + " is in use; give each owner a directory of its own");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return {};
  }

  // The size that it has.
  Result<void> measure() {
    struct stat now{};
    if (::fstat(descriptor_, &now) != 0) {
      return system_error(ErrorCode::OperationFailed, errno, "cannot look at " + path_);
    }
    size_ = static_cast<std::uint64_t>(now.st_size);
    probe_direct();
    describe("");
    return {};
  }

  Result<void> resize(std::uint64_t bytes) override {
    struct statvfs space{};
    std::uint64_t room = 0;
    struct stat now{};
    const bool counted = ::fstatvfs(descriptor_, &space) == 0 && space.f_blocks > 0 &&
                         ::fstat(descriptor_, &now) == 0;
    if (counted) {
      room = std::uint64_t{space.f_bavail} * space.f_frsize +
             static_cast<std::uint64_t>(now.st_blocks) * 512;
    }
    int failed = bytes > static_cast<std::uint64_t>(INT64_MAX) ? EFBIG : 0;
    // Asked first: ext4 gives a file all that is left before it finds that this is too little.
    if (failed == 0 && counted && bytes > room) failed = ENOSPC;
    bool sparse = false;
    const auto length = static_cast<off_t>(bytes);
    if (failed == 0 && ::ftruncate(descriptor_, length) != 0) failed = errno;
    if (failed == 0 && bytes > 0 && ::fallocate(descriptor_, 0, 0, length) != 0) failed = errno;
    if (failed == EOPNOTSUPP) {  // some network and overlay file systems; space is taken on write
      sparse = true;
      failed = 0;
    }
    if (failed != 0) {
      if (counted && ::ftruncate(descriptor_, now.st_size) != 0) failed = errno;
      return system_error(ErrorCode::AllocationFailed, failed,
                          "cannot reserve the disk tier's bytes in " + path_, bytes, room);
    }
    size_ = bytes;
    probe_direct();
    describe(sparse ? ", sparse" : ", preallocated");
    return {};
  }

 private:
  void describe(const char* space) {
    description_ = path_ + (direct_ ? ", O_DIRECT" : ", buffered") + space;
  }

  // Some file systems accept O_DIRECT at open and refuse the first I/O.
  void probe_direct() {
    if (!direct_ || size_ < kDirectAlignment) return;
    void* page = std::aligned_alloc(kDirectAlignment, kDirectAlignment);
    if (!page) return;
    if (::pread(descriptor_, page, kDirectAlignment, 0) < 0 && errno == EINVAL) {
      const int flags = ::fcntl(descriptor_, F_GETFL);
      direct_ = flags < 0 || ::fcntl(descriptor_, F_SETFL, flags & ~O_DIRECT) != 0;
    }
    std::free(page);
  }

  Result<void> check_range(std::size_t bytes, std::uint64_t offset, const char* verb) const {
    std::uint64_t end = 0;
    if (__builtin_add_overflow(offset, std::uint64_t{bytes}, &end) || end > size_) {
      return Error{ErrorCode::OutOfBounds, 0, end, size_, std::string(verb) + " of " + path_};
    }
    return {};
  }

  Error stopped(ssize_t n, std::size_t moved, std::size_t wanted, std::uint64_t offset,
                const char* verb) const {
    return system_error(ErrorCode::OperationFailed, n < 0 ? errno : 0,
                        std::string(verb) + " of " + path_ + " at byte " + std::to_string(offset),
                        wanted, moved);
  }

  int descriptor_;
  std::string path_;
  bool direct_;
  std::uint64_t size_ = 0;
  std::string description_;
};

struct Opened {
  int descriptor = -1;
  bool direct = true;
};

// Opens with O_DIRECT, or without where the file system knows no O_DIRECT.
Opened open_direct(const char* path, int flags) {
  Opened opened{::open(path, flags | O_DIRECT | O_CLOEXEC, 0600), true};
  if (opened.descriptor < 0 && errno == EINVAL) {
    opened = {::open(path, flags | O_CLOEXEC, 0600), false};
  }
  return opened;
}

// A file without a name, so that nothing is left behind however the process ends.
Result<Opened> open_nameless(const std::string& directory) {
  Opened opened = open_direct(directory.c_str(), O_TMPFILE | O_RDWR);
  if (opened.descriptor >= 0) return opened;
  if (errno != EOPNOTSUPP && errno != EISDIR) {
    return system_error(ErrorCode::OperationFailed, errno, "cannot create a file in " + directory);
  }
  std::string path = directory + "/kvbm-XXXXXX";
  const int made = ::mkostemp(path.data(), O_CLOEXEC);
  if (made < 0) {
    return system_error(ErrorCode::OperationFailed, errno, "cannot create a file in " + directory);
  }
  opened = open_direct(path.c_str(), O_RDWR);
  const int error = errno;
  ::unlink(path.c_str());
  ::close(made);
  if (opened.descriptor < 0) {
    return system_error(ErrorCode::OperationFailed, error, "cannot create a file in " + directory);
  }
  return opened;
}

}  // namespace

Result<std::shared_ptr<File>> create_temporary_file(const std::string& directory,
                                                    std::uint64_t bytes) {
  KVBM_TRY(const Opened opened, open_nameless(directory));
  auto file = std::make_shared<PosixFile>(opened.descriptor, "a temporary file in " + directory,
                                          opened.direct);
  KVBM_CHECK_OK(file->resize(bytes));
  return std::shared_ptr<File>(std::move(file));
}

Result<std::shared_ptr<File>> open_file(const std::string& path, const OpenOptions& options) {
  int flags = options.access == OpenOptions::Access::ReadOnly ? O_RDONLY : O_RDWR;
  if (options.create) flags |= O_CREAT;
  const Opened opened = options.direct
                            ? open_direct(path.c_str(), flags)
                            : Opened{::open(path.c_str(), flags | O_CLOEXEC, 0600), false};
  if (opened.descriptor < 0) {
    return system_error(ErrorCode::OperationFailed, errno, "cannot open " + path);
  }
  // Small records anywhere. Without this the page cache reads ahead in large folios, and ext4 walks
  // over all buffers of a folio for every 64 bytes that are written to it: 4 us instead of 1.
  if (!options.direct) ::posix_fadvise(opened.descriptor, 0, 0, POSIX_FADV_RANDOM);
  auto file = std::make_shared<PosixFile>(opened.descriptor, path, opened.direct);
  if (options.locked) KVBM_CHECK_OK(file->lock());
  KVBM_CHECK_OK(file->measure());
  return std::shared_ptr<File>(std::move(file));
}

Result<void> sync_directory(const std::string& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (synced) return {};
  return system_error(ErrorCode::OperationFailed, error, "cannot sync " + directory);
}

}  // namespace kvbm
