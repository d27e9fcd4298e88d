// A folder of files that fail when and how a test says, served to the kernel through FUSE: real
// faults for code that asks the kernel itself.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

namespace kvbm::fault {

// What becomes of the calls of one file; by default nothing bad.
struct Fault {
  std::int32_t read_error = 0;      // errno
  std::int32_t write_error = 0;     // errno; changes of size fail, too
  std::int32_t sync_error = 0;      // errno
  std::int64_t spot = -1;           // not negative: only reads and writes that touch this byte fail
  std::uint32_t longest_read = 0;   // reads give so many bytes at most; 0: all
  std::uint32_t readable_unit = 0;  // not 0: reads that do not begin at a multiple give nothing
  std::uint32_t flipped_unit = 0;   // not 0: reads invert the first byte of every so many
  bool waits = false;               // reads behind byte 0 wait until another fault is set
};

// Files can be made in the folder, opened with O_DIRECT, sized, locked and removed.
class FaultyFiles {
 public:
  // The folder is seen by this process and its children only, and goes with them. Null, with the
  // reason, where FUSE files cannot be mounted. Requires: a process without other threads.
  static std::unique_ptr<FaultyFiles> mount(std::string& reason);
  ~FaultyFiles();
  FaultyFiles(const FaultyFiles&) = delete;
  FaultyFiles& operator=(const FaultyFiles&) = delete;

  const std::string& folder() const noexcept { return folder_; }
  // From now on, for a file that exists or will.
  void set(const std::string& name, const Fault& fault) const;
  // Nobody serves the files any more: all calls fail.
  void die();

 private:
  FaultyFiles(std::string folder, pid_t server) : folder_(std::move(folder)), server_(server) {}

  std::string folder_;
  pid_t server_;
};

}  // namespace kvbm::fault
