// A file of fixed size, read and written at offsets. All disk I/O goes through File, so that tests
// replace the file and never the code above it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kvbm/result.h"

namespace kvbm {

// Thread-safe: concurrent reads and writes of different ranges.
class File {
 public:
  virtual ~File() = default;
  // Moves exactly the given bytes. Memory, offset and length must be multiples of io_alignment().
  // Errors: OperationFailed with errno, or {requested, available} after a short transfer at the end
  // of the file; OutOfBounds beyond size().
  virtual Result<void> read(std::span<std::byte> bytes, std::uint64_t offset) = 0;
  virtual Result<void> write(std::span<const std::byte> bytes, std::uint64_t offset) = 0;
  virtual std::uint64_t size() const noexcept = 0;
  virtual std::size_t io_alignment() const noexcept = 0;
  virtual int descriptor() const noexcept = 0;
  // For people: path, direct or buffered, preallocated or sparse.
  virtual const std::string& description() const noexcept = 0;
};

// Creates `directory`/`name`, or a nameless file when `name` is empty, of `bytes` bytes, all zero
// or left over from before, and reserves its space. A named file is locked for this process.
// Errors: OperationFailed (directory missing or not writable, file in use), AllocationFailed
// {requested, available bytes} (no room). On error no new file is left behind.
Result<std::shared_ptr<File>> create_file(const std::string& directory, const std::string& name,
                                          std::uint64_t bytes);

}  // namespace kvbm
