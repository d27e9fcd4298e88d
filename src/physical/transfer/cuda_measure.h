// How fast a device copies, each way and with fragments of each size.
#pragma once

#include "physical/transfer/cuda_worker.h"

namespace kvbm {

// Times copies between one run on the host and fragments that lie apart on the device. Not
// thread-safe.
class CudaMeter {
 public:
  // `shared` outlives it. Errors: those of the allocations of so many bytes on the host and twice
  // as many on the device.
  static Result<std::unique_ptr<CudaMeter>> create(const CudaShared& shared, std::size_t bytes);
  // Memory that the device may still touch is never freed.
  ~CudaMeter();

  // One copy of all bytes, until the device has answered. Errors: Cuda; then measure no more.
  // Requires: the context is current; `bytes` is a multiple of `fragment_bytes`.
  Result<std::chrono::nanoseconds> copy(CudaDirection direction, CudaWay way,
                                        std::size_t fragment_bytes);

 private:
  CudaMeter(const CudaShared& shared, std::size_t bytes) : shared_(shared), bytes_(bytes) {}

  const CudaShared& shared_;
  std::size_t bytes_;
  std::unique_ptr<CudaFlight> flight_;
  std::shared_ptr<detail::Memory> host_;
  std::unique_ptr<cuda::DeviceMemory> device_;
};

// Copies 8 MiB a few times per direction, way and size; about 0.1 s in all. What cannot be measured
// is 0. Nothing else should copy meanwhile.
CudaCopyTable measure_cuda_copies(const CudaShared& shared);

}  // namespace kvbm
