// The functions of the CUDA driver that are used here, found at run time: no header, library or
// device of CUDA is needed to build or to run. Names and meanings: CUDA driver API reference.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kvbm/result.h"

namespace kvbm::cuda {

using Status = int;                        // CUresult
using DeviceAddress = unsigned long long;  // CUdeviceptr; with unified addressing any address

inline constexpr Status kSuccess = 0;
inline constexpr Status kNotReady = 600;
inline constexpr Status kNotSupported = 801;

// CUmemLocation and CUmemcpyAttributes, the latter for copies of a batch.
struct MemoryLocation {
  int type = 0;
  int id = 0;
};
struct CopyAttributes {
  static constexpr int kInStreamOrder = 1;
  int source_access_order = kInStreamOrder;
  MemoryLocation source_hint = {};
  MemoryLocation target_hint = {};
  unsigned flags = 0;
};

// Members are named as in the driver, without the version that some names end in there. Never null
// but for the one that says so. Threads: all functions may be called by any thread.
struct DriverApi {
  Status (*cuInit)(unsigned flags) = nullptr;
  Status (*cuGetErrorName)(Status, const char** name) = nullptr;
  Status (*cuDeviceGet)(int* device, int ordinal) = nullptr;
  Status (*cuDeviceGetName)(char* name, int bytes, int device) = nullptr;
  Status (*cuDeviceGetAttribute)(int* value, int attribute, int device) = nullptr;
  Status (*cuDevicePrimaryCtxRetain)(void** context, int device) = nullptr;
  Status (*cuDevicePrimaryCtxRelease)(int device) = nullptr;
  Status (*cuCtxPushCurrent)(void* context) = nullptr;
  Status (*cuCtxPopCurrent)(void** context) = nullptr;
  Status (*cuMemAlloc)(DeviceAddress*, std::size_t bytes) = nullptr;
  Status (*cuMemFree)(DeviceAddress) = nullptr;
  Status (*cuMemsetD8)(DeviceAddress, unsigned char value, std::size_t bytes) = nullptr;
  Status (*cuMemHostRegister)(void* memory, std::size_t bytes, unsigned flags) = nullptr;
  Status (*cuMemHostUnregister)(void* memory) = nullptr;
  Status (*cuStreamCreate)(void** stream, unsigned flags) = nullptr;
  Status (*cuStreamDestroy)(void* stream) = nullptr;
  Status (*cuStreamWaitEvent)(void* stream, void* event, unsigned flags) = nullptr;
  Status (*cuEventCreate)(void** event, unsigned flags) = nullptr;
  Status (*cuEventDestroy)(void* event) = nullptr;
  Status (*cuEventRecord)(void* event, void* stream) = nullptr;
  Status (*cuEventQuery)(void* event) = nullptr;
  Status (*cuMemcpyAsync)(DeviceAddress target, DeviceAddress source, std::size_t bytes,
                          void* stream) = nullptr;
  Status (*cuModuleLoadData)(void** module, const void* image) = nullptr;
  Status (*cuModuleUnload)(void* module) = nullptr;
  Status (*cuModuleGetFunction)(void** function, void* module, const char* name) = nullptr;
  Status (*cuLaunchKernel)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                           unsigned block_x, unsigned block_y, unsigned block_z,
                           unsigned shared_bytes, void* stream, void** parameters,
                           void** extra) = nullptr;
  // Null before driver 12.8. This is the interface of 12.8, which later drivers keep beside their
  // own; `failed_index` is not looked at.
  Status (*cuMemcpyBatchAsync)(DeviceAddress* targets, DeviceAddress* sources, std::size_t* bytes,
                               std::size_t count, CopyAttributes* attributes,
                               std::size_t* attribute_starts, std::size_t attribute_count,
                               std::size_t* failed_index, void* stream) = nullptr;
};

// Loads `library` and finds the functions in it. The library stays loaded for ever.
// Errors: Cuda with native code 0 if it cannot be loaded or lacks a function; the message says
// which.
Result<DriverApi> load_driver(const char* library);

// The functions of libcuda.so.1, looked for at the first call and initialised. Errors: those of
// load_driver(), and Cuda with the driver's code where it finds no device. Threads: any.
Result<const DriverApi*> driver();

// What a failed call of the driver becomes. `requested`: bytes, where the call was for some.
Error failed(const DriverApi& api, Status status, const char* call, std::size_t requested = 0);

// Evaluates a call of the driver; returns its error from the enclosing function.
#define KVBM_CUDA(api, function, ...)                                        \
  if (const ::kvbm::cuda::Status kvbm_status_ = (api).function(__VA_ARGS__); \
      kvbm_status_ != ::kvbm::cuda::kSuccess) {                              \
    return ::kvbm::cuda::failed((api), kvbm_status_, #function);             \
  }

}  // namespace kvbm::cuda
