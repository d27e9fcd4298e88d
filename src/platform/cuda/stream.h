// Streams and events of a device, and copies on streams.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kvbm/result.h"
#include "platform/cuda/copy_range.h"
#include "platform/cuda/device.h"

namespace kvbm::cuda {

// Work of the device in order; it runs beside the work of all other streams. Destroyed streams end
// their work. Threads: any.
class Stream {
 public:
  static Result<std::unique_ptr<Stream>> create(std::shared_ptr<const Device> device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void* handle() const noexcept { return handle_; }

 private:
  Stream(std::shared_ptr<const Device> device, void* handle)
      : device_(std::move(device)), handle_(handle) {}

  std::shared_ptr<const Device> device_;
  void* handle_;
};

// A moment in the work of a stream. Threads: any, one at a time.
class Event {
 public:
  static Result<std::unique_ptr<Event>> create(std::shared_ptr<const Device> device);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // Stands for the end of what `stream` was given until now. Requires: the context is current.
  Result<void> record(void* stream);
  // Whether that end was reached; true before the first record().
  // Errors: Cuda with the code of whatever went wrong on the device before.
  Result<bool> reached() const;
  // `stream` goes on only after it was reached; the caller does not wait.
  Result<void> hold_back(void* stream) const;

  void* handle() const noexcept { return handle_; }

 private:
  Event(std::shared_ptr<const Device> device, void* handle)
      : device_(std::move(device)), handle_(handle) {}

  std::shared_ptr<const Device> device_;
  void* handle_;
};

// Makes `stream` wait for an event of somebody else. Requires: the context is current.
Result<void> hold_back(const Device& device, void* stream, void* event);

// Copies of the copy engines. Not thread-safe: it keeps its lists from call to call.
class CopyBatch {
 public:
  // Gives the stream a copy of each range, in one call where the driver has it, and in any
  // order. Addresses are of the device or the host. After an error some copies may run.
  // Errors: Cuda with the driver's code. Requires: the context is current.
  // Cost: about 0.1 us per range where the driver takes them at once, else 1 us or more.
  Result<void> enqueue(const Device& device, void* stream, std::span<const CopyRange> ranges);

 private:
  std::vector<DeviceAddress> targets_;
  std::vector<DeviceAddress> sources_;
  std::vector<std::size_t> bytes_;
};

}  // namespace kvbm::cuda
