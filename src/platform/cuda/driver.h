// The CUDA driver, found at run time: no header, library or device of CUDA is needed to build or
// run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kvbm/result.h"

namespace kvbm::cuda {

// One allocation of device memory; freed when destroyed.
class DeviceMemory {
 public:
  DeviceMemory(std::uint32_t device, std::uint64_t address, std::size_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  std::uint64_t address() const noexcept { return address_; }
  std::size_t bytes() const noexcept { return bytes_; }
  const std::string& description() const noexcept { return description_; }

 private:
  std::uint32_t device_;
  std::uint64_t address_;
  std::size_t bytes_;
  std::string description_;
};

// In the device's primary context, zeroed. Threads: any.
// Errors: Cuda {native = CUresult, or 0 if libcuda.so.1 cannot be loaded or lacks a function; the
// message says which}.
Result<std::unique_ptr<DeviceMemory>> allocate(std::uint32_t device, std::size_t bytes);

}  // namespace kvbm::cuda
