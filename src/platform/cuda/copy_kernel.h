// The copy kernel: moves many small pieces where the copy engines would be slow.
#pragma once

#include <memory>
#include <span>

#include "kvbm/result.h"
#include "platform/cuda/copy_range.h"
#include "platform/cuda/device.h"

namespace kvbm::cuda {

// The kernel, loaded into a device. Threads: any.
class CopyKernel {
 public:
  // So few groups of threads that hardly anybody else on the device notices, and enough to fill
  // PCIe: 8 * 512 threads with 64 bytes each under way.
  static constexpr unsigned kCtas = 8;
  static constexpr unsigned kThreadsPerCta = 512;
  // Where ranges are large, split them to this: one group of threads copies a range.
  static constexpr std::size_t kLargestRange = std::size_t{16} << 10;

  // Errors: Cuda with native code 0 if this build has no kernel; with the driver's code if it has
  // none for this device.
  static Result<std::unique_ptr<CopyKernel>> load(std::shared_ptr<const Device> device);
  ~CopyKernel();
  CopyKernel(const CopyKernel&) = delete;
  CopyKernel& operator=(const CopyKernel&) = delete;

  // Gives the stream the copy of `count` ranges. `ranges`, and the host memory that they
  // name, must be registered or the device's, and stay until the stream has passed this.
  // Errors: Cuda with the driver's code. Requires: the context is current.
  Result<void> launch(void* stream, DeviceAddress ranges, std::size_t count,
                      unsigned ctas = kCtas) const;

 private:
  CopyKernel(std::shared_ptr<const Device> device, void* module)
      : device_(std::move(device)), module_(module) {}

  std::shared_ptr<const Device> device_;
  void* module_;
  void* function_ = nullptr;
};

// The compiled kernel; empty where the build found no nvcc.
std::span<const std::byte> copy_kernel_image() noexcept;

}  // namespace kvbm::cuda
