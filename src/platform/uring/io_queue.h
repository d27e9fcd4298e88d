// Reads and writes of files, many in flight at once, for one thread that starts and collects them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kvbm/result.h"
#include "platform/os/file.h"

namespace kvbm {

// Moves one run of bytes of the file to or from runs of memory, one after the other, exactly as
// File::read and File::write do with one. File and memory must stay until the request has been
// answered.
struct IoRequest {
  enum class Op : std::uint8_t { Read, Write };
  Op op = Op::Read;
  File* file = nullptr;
  // Only read from for Op::Write. At most 1024 runs, which is what the kernel takes.
  std::vector<std::span<std::byte>> memory;
  std::uint64_t offset = 0;  // in the file, in bytes
  std::uint64_t tag = 0;     // comes back with the answer

  std::size_t bytes() const noexcept;
};

// Errors: those of File, of all runs together; InvalidConfig{what is misaligned, the file's unit}
// where a run, its length or the offset is no multiple of File::io_alignment().
struct IoDone {
  std::uint64_t tag;
  Result<void> result;
};

// Belongs to the thread that created it, which must destroy it, too; wake() may be called by any
// thread. Requests are answered in any order, each once.
class IoQueue {
 public:
  enum class Wait : std::uint8_t {
    No,
    ForOne,  // until a request is answered, or wake() is or was called since the last such wait
  };

  // Waits until no request is in flight: their memory is in use until then. Requests that poll()
  // has not started yet are dropped.
  virtual ~IoQueue() = default;

  // Never blocks, and starts nothing by itself. Requires: in_flight() < depth().
  virtual void push(IoRequest request) = 0;
  // Starts what was pushed and appends the answers that are there. At most one system call where
  // nothing has to be waited for.
  virtual void poll(Wait wait, std::vector<IoDone>& done) = 0;
  // Thread-safe.
  virtual void wake() = 0;

  std::size_t in_flight() const noexcept { return in_flight_; }  // pushed and not answered
  std::size_t depth() const noexcept { return depth_; }
  // For people, such as "io_uring, 32 requests deep".
  const std::string& description() const noexcept { return description_; }

 protected:
  IoQueue(std::size_t depth, std::string description)
      : depth_(depth), description_(std::move(description)) {}

  std::size_t in_flight_ = 0;

 private:
  std::size_t depth_;
  std::string description_;
};

// Through io_uring; every file must have a descriptor. Errors: InvalidConfig unless depth is
// 1 .. 4096; OperationFailed with errno where the kernel has no io_uring with reads and writes
// (5.6), forbids it, or gives no memory for it.
Result<std::unique_ptr<IoQueue>> create_uring_queue(std::size_t depth);

// Calls File::read and File::write inside poll(), one request a call, run by run: for files without
// a descriptor and where there is no io_uring. Requires: depth > 0.
std::unique_ptr<IoQueue> create_blocking_queue(std::size_t depth);

// What File asks of every request: the range lies in the file, and all is aligned. Errors:
// OutOfBounds{end, size}, InvalidConfig{what is misaligned, unit}.
Result<void> check_request(const IoRequest& request);

}  // namespace kvbm
