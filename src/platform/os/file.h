// A file, read and written at offsets. All disk I/O goes through File, so that tests
// replace the file and never the code above it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kvbm/result.h"

namespace kvbm {

// Thread-safe: concurrent reads and writes of different ranges; resize() alone.
class File {
 public:
  virtual ~File() = default;
  // Moves exactly the given bytes. Memory, offset and length must be multiples of io_alignment().
  // Errors: OperationFailed with errno, or {requested, available} after a short transfer at the end
  // of the file; OutOfBounds beyond size().
  virtual Result<void> read(std::span<std::byte> bytes, std::uint64_t offset) = 0;
  virtual Result<void> write(std::span<const std::byte> bytes, std::uint64_t offset) = 0;
  // When it returns, everything written before would survive a loss of power. Errors:
  // OperationFailed with errno.
  virtual Result<void> sync() = 0;
  // Makes it so long, with zeros where it grows, and reserves its space where the file system can.
  // Errors: AllocationFailed{requested, available bytes} with errno; then its size is what it was.
  virtual Result<void> resize(std::uint64_t bytes) = 0;
  virtual std::uint64_t size() const noexcept = 0;
  // Whether it has lost its name: what is written is gone with the last who has it open.
  virtual bool is_removed() const noexcept = 0;
  virtual std::size_t io_alignment() const noexcept = 0;
  virtual int descriptor() const noexcept = 0;
  // For people: path, direct or buffered, preallocated or sparse.
  virtual const std::string& description() const noexcept = 0;
};

struct OpenOptions {
  enum class Access : std::uint8_t { ReadOnly, ReadWrite };
  Access access = Access::ReadWrite;
  bool create = false;  // an empty one, readable by its owner only, where there is none
  bool direct = true;   // past the page cache, where it can; else for small records anywhere
  // For this open file alone, as long as it lives; half a second is waited for somebody who ends.
  bool locked = false;
};

// Errors: OperationFailed with errno, naming the path: missing, not permitted, or locked by
// somebody else.
Result<std::shared_ptr<File>> open_file(const std::string& path, const OpenOptions& options);

// A file of `bytes` zeros in this directory that has no name, so that nothing is left behind
// however the process ends. Errors: OperationFailed (directory missing or not writable),
// AllocationFailed {requested, available bytes} (no room).
Result<std::shared_ptr<File>> create_temporary_file(const std::string& directory,
                                                    std::uint64_t bytes);

// Makes the names of new files in this directory durable. Errors: OperationFailed with errno.
Result<void> sync_directory(const std::string& directory);

}  // namespace kvbm
