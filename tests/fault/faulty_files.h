// A folder of files that fail in the way their names say, served to the kernel through FUSE: real
// faults for code that asks the kernel itself.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

namespace kvbm::fault {

// Reads and writes of the files, which O_DIRECT may open and ftruncate() sizes:
//   good     work
//   eio      fail with EIO
//   spot     fail with EIO where they touch byte 50000
//   enospc   reads work, writes fail with ENOSPC
//   short    reads give 4096 bytes at most, so that the rest must be asked for
//   cut      reads give 4096 bytes at offsets of a multiple of 16 KiB, else nothing
//   flip     reads invert the first byte of every 16 KiB
//   slow     reads behind byte 0 wait until somebody has read `release` there, and then work
//   release  work
class FaultyFiles {
 public:
  // The folder is seen by this process and its children only, and goes with them. Null, with the
  // reason, where FUSE files cannot be mounted. Requires: a process without other threads.
  static std::unique_ptr<FaultyFiles> mount(std::string& reason);
  ~FaultyFiles();
  FaultyFiles(const FaultyFiles&) = delete;
  FaultyFiles& operator=(const FaultyFiles&) = delete;

  const std::string& folder() const noexcept { return folder_; }

 private:
  FaultyFiles(std::string folder, pid_t server) : folder_(std::move(folder)), server_(server) {}

  std::string folder_;
  pid_t server_;
};

}  // namespace kvbm::fault
