// One list of copies under way between the host and a CUDA device.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "kvbm/result.h"
#include "physical/memory/memory.h"
#include "physical/transfer/cuda_table.h"
#include "platform/cuda/copy_kernel.h"
#include "platform/cuda/stream.h"

namespace kvbm {

// Host memory that a device copies to and from at full speed, where registering it works.
Result<std::shared_ptr<detail::Memory>> allocate_for_cuda(
    std::shared_ptr<const cuda::Device> device, std::size_t bytes);

// Appends a copy to a list, cut where it would cross from one registered piece of host memory to
// the next.
void add_copy(CudaDirection direction, cuda::CopyRange range, std::vector<cuda::CopyRange>& ranges);

// For memory that a device may still touch when its owner goes: it is never freed. Threads: any.
void keep_for_ever(std::shared_ptr<const void> memory);

// What a flight needs for one list of copies, used again for the next. Not thread-safe.
class CudaFlight {
 public:
  struct Order {
    CudaDirection direction;
    CudaWay way;        // Engine is gone where the asked for cannot be
    void* copies;       // the stream for copies
    void* kernels;      // the stream for kernels; may be the same
    void* after_event;  // the device's memory is touched after this only; null: at once
  };

  // `kernel` may be null; it outlives the flight. Errors: Cuda.
  static Result<std::unique_ptr<CudaFlight>> create(std::shared_ptr<const cuda::Device> device,
                                                    const cuda::CopyKernel* kernel);

  // Gives the device the copies; returns at once. What lies together on the host side should be
  // neighbours in the list. Errors: Cuda; then nothing of it can be trusted, and end() must be
  // called all the same, as some copies may run.
  // Requires: the context is current; no list is under way; the memory stays until end(); the list
  // was made by add_copy().
  Result<void> begin(const Order& order, std::span<const cuda::CopyRange> ranges);

  // Waits until nothing of the list moves any more. Asks the device again and again, at first
  // without rest, then after pauses that grow to 100 us.
  // Errors: Cuda with the driver's code, where something failed; nothing moves any more, unless
  // under_way(): then `patience` was too short, and end() must be called again before begin().
  Result<void> end(std::chrono::nanoseconds patience);
  bool under_way() const noexcept { return under_way_; }

 private:
  CudaFlight(std::shared_ptr<const cuda::Device> device, const cuda::CopyKernel* kernel)
      : device_(std::move(device)), kernel_(kernel) {}

  Result<void> enqueue(const Order& order, std::span<const cuda::CopyRange> ranges);
  // Which way can be gone, after getting what it needs.
  CudaWay prepare(CudaWay wanted, std::span<const cuda::CopyRange> ranges);
  // Lets host runs and device ranges meet on the device: fills runs_ and the table.
  void plan_staging(CudaDirection direction, std::span<const cuda::CopyRange> ranges);
  void add_to_table(cuda::CopyRange range);
  Result<void> launch(void* stream);

  std::shared_ptr<const cuda::Device> device_;
  const cuda::CopyKernel* kernel_;
  std::unique_ptr<cuda::Event> ended_;
  std::unique_ptr<cuda::Event> between_;  // what the second stream waits for
  Order order_ = {};
  bool recorded_ = true;  // ended_ stands for the end of the list
  bool under_way_ = false;
  cuda::CopyBatch batch_;
  std::vector<cuda::CopyRange> runs_;
  std::shared_ptr<detail::Memory> table_;  // of the kernel's ranges
  std::size_t table_count_ = 0;
  std::unique_ptr<cuda::DeviceMemory> staging_;
};

}  // namespace kvbm
