#include "platform/cuda/copy_kernel.h"

#include <algorithm>

// Compiled by nvcc before this file is (cmake/CudaKernel.cmake), and put in here as it is.
#ifdef KVBM_COPY_KERNEL_IMAGE
asm(".pushsection .rodata\n"
    ".balign 16\n"
    "kvbm_copy_kernel_image:\n"
    ".incbin \"" KVBM_COPY_KERNEL_IMAGE
    "\"\n"
    "kvbm_copy_kernel_image_end:\n"
    ".popsection\n");
extern "C" __attribute__((visibility("hidden"))) const std::byte kvbm_copy_kernel_image[];
extern "C" __attribute__((visibility("hidden"))) const std::byte kvbm_copy_kernel_image_end[];
#endif

namespace kvbm::cuda {

std::span<const std::byte> copy_kernel_image() noexcept {
#ifdef KVBM_COPY_KERNEL_IMAGE
  return {kvbm_copy_kernel_image, kvbm_copy_kernel_image_end};
#else
  return {};
#endif
}

Result<std::unique_ptr<CopyKernel>> CopyKernel::load(std::shared_ptr<const Device> device) {
  if (copy_kernel_image().empty()) {
    return Error{ErrorCode::Cuda, 0, 0, 0, "this build has no copy kernel: there was no nvcc"};
  }
  const Current current(*device);
  KVBM_CHECK_OK(current.check());
  const DriverApi& api = device->api();
  void* module = nullptr;
  KVBM_CUDA(api, cuModuleLoadData, &module, copy_kernel_image().data());
  std::unique_ptr<CopyKernel> kernel(new CopyKernel(std::move(device), module));
  KVBM_CUDA(api, cuModuleGetFunction, &kernel->function_, module, "kvbm_copy_ranges");
  return kernel;
}

CopyKernel::~CopyKernel() {
  const Current current(*device_);
  device_->api().cuModuleUnload(module_);
}

Result<void> CopyKernel::launch(void* stream, DeviceAddress ranges, std::size_t count,
                                unsigned ctas) const {
  if (count == 0) return {};
  auto narrow_count = static_cast<unsigned>(count);
  constexpr unsigned kGroups = kThreadsPerCta / kLanes;
  const unsigned grid = std::min(ctas, (narrow_count + kGroups - 1) / kGroups);
  void* parameters[] = {&ranges, &narrow_count};
  KVBM_CUDA(device_->api(), cuLaunchKernel, function_, grid, 1, 1, kThreadsPerCta, 1, 1, 0, stream,
            parameters, nullptr);
  return {};
}

}  // namespace kvbm::cuda
