#include "platform/cuda/stream.h"

namespace kvbm::cuda {
namespace {

constexpr unsigned kNonBlocking = 1;    // streams: do not wait for the default stream
constexpr unsigned kDisableTiming = 2;  // events

Result<void> copy_one_by_one(const Device& device, void* stream,
                             std::span<const CopyRange> ranges) {
  for (const CopyRange& range : ranges) {
    KVBM_CUDA(device.api(), cuMemcpyAsync, range.target, range.source, range.bytes, stream);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Stream>> Stream::create(std::shared_ptr<const Device> device) {
  const Current current(*device);
  KVBM_CHECK_OK(current.check());
  void* handle = nullptr;
  KVBM_CUDA(device->api(), cuStreamCreate, &handle, kNonBlocking);
  return std::unique_ptr<Stream>(new Stream(std::move(device), handle));
}

Stream::~Stream() {
  const Current current(*device_);
  device_->api().cuStreamDestroy(handle_);
}

Result<std::unique_ptr<Event>> Event::create(std::shared_ptr<const Device> device) {
  const Current current(*device);
  KVBM_CHECK_OK(current.check());
  void* handle = nullptr;
  KVBM_CUDA(device->api(), cuEventCreate, &handle, kDisableTiming);
  return std::unique_ptr<Event>(new Event(std::move(device), handle));
}

Event::~Event() {
  const Current current(*device_);
  device_->api().cuEventDestroy(handle_);
}

Result<void> Event::record(void* stream) {
  KVBM_CUDA(device_->api(), cuEventRecord, handle_, stream);
  return {};
}

Result<bool> Event::reached() const {
  const Status status = device_->api().cuEventQuery(handle_);
  if (status == kSuccess) return true;
  if (status == kNotReady) return false;
  return failed(device_->api(), status, "cuEventQuery");
}

Result<void> Event::hold_back(void* stream) const {
  return cuda::hold_back(*device_, stream, handle_);
}

Result<void> hold_back(const Device& device, void* stream, void* event) {
  KVBM_CUDA(device.api(), cuStreamWaitEvent, stream, event, 0);
  return {};
}

Result<void> CopyBatch::enqueue(const Device& device, void* stream,
                                std::span<const CopyRange> ranges) {
  if (ranges.empty()) return {};
  if (ranges.size() == 1 || !device.api().cuMemcpyBatchAsync) {
    return copy_one_by_one(device, stream, ranges);
  }
  targets_.clear();
  sources_.clear();
  bytes_.clear();
  for (const CopyRange& range : ranges) {
    targets_.push_back(range.target);
    sources_.push_back(range.source);
    bytes_.push_back(range.bytes);
  }
  CopyAttributes in_stream_order;
  std::size_t first = 0;
  std::size_t failed_index = 0;
  const Status status = device.api().cuMemcpyBatchAsync(
      targets_.data(), sources_.data(), bytes_.data(), ranges.size(), &in_stream_order, &first, 1,
      &failed_index, stream);
  if (status == kSuccess) return {};
  // Of some devices, and of the default stream. Nothing was enqueued.
  if (status == kNotSupported) return copy_one_by_one(device, stream, ranges);
  return failed(device.api(), status, "cuMemcpyBatchAsync");
}

}  // namespace kvbm::cuda
