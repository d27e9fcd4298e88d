#include "platform/cuda/driver.h"

#include <dlfcn.h>

#include <string>

namespace kvbm::cuda {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";
constexpr int kBatchSince = 12080;  // 12.8

constexpr Status kStubLibrary = 34;
constexpr Status kInsufficientDriver = 35;
constexpr Status kNoDevice = 100;

Error unusable(std::string reason) {
  return Error{ErrorCode::Cuda, 0, 0, 0, "no CUDA driver: " + std::move(reason)};
}

// Finds functions by name and remembers the first that is missing.
class Finder {
 public:
  explicit Finder(void* library) : library_(library) {}

  template <class Function>
  void need(const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(::dlsym(library_, name));
    if (!function && missing_.empty()) missing_ = name;
  }
  // Null where this driver has no function of that name as of that version.
  template <class Function>
  void ask(const char* name, int version, Function*& function) {
    using GetAddress = Status(const char*, void**, int, std::uint64_t, int*);
    auto* get = reinterpret_cast<GetAddress*>(::dlsym(library_, "cuGetProcAddress_v2"));
    void* found = nullptr;
    int how = 0;
    const bool good = get && get(name, &found, version, 0, &how) == kSuccess;
    function = good ? reinterpret_cast<Function*>(found) : nullptr;
  }
  const std::string& missing() const noexcept { return missing_; }

 private:
  void* library_;
  std::string missing_;
};

Result<DriverApi> load_and_init() {
  KVBM_TRY(DriverApi api, load_driver(kLibrary));
  const Status status = api.cuInit(0);
  if (status == kSuccess) return api;
  if (status == kStubLibrary || status == kInsufficientDriver || status == kNoDevice) {
    Error error = failed(api, status, "cuInit");
    error.message = "no GPU: " + error.message;
    return error;
  }
  return failed(api, status, "cuInit");
}

}  // namespace

Result<DriverApi> load_driver(const char* library) {
  void* const handle = ::dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* reason = ::dlerror();
    return unusable(reason ? reason : std::string(library) + " cannot be loaded");
  }
  DriverApi api;
  Finder find(handle);
  find.need("cuInit", api.cuInit);
  find.need("cuGetErrorName", api.cuGetErrorName);
  find.need("cuDeviceGet", api.cuDeviceGet);
  find.need("cuDeviceGetName", api.cuDeviceGetName);
  find.need("cuDeviceGetAttribute", api.cuDeviceGetAttribute);
  find.need("cuDevicePrimaryCtxRetain", api.cuDevicePrimaryCtxRetain);
  find.need("cuDevicePrimaryCtxRelease_v2", api.cuDevicePrimaryCtxRelease);
  find.need("cuCtxPushCurrent_v2", api.cuCtxPushCurrent);
  find.need("cuCtxPopCurrent_v2", api.cuCtxPopCurrent);
  find.need("cuMemAlloc_v2", api.cuMemAlloc);
  find.need("cuMemFree_v2", api.cuMemFree);
  find.need("cuMemsetD8_v2", api.cuMemsetD8);
  find.need("cuMemHostRegister_v2", api.cuMemHostRegister);
  find.need("cuMemHostUnregister", api.cuMemHostUnregister);
  find.need("cuStreamCreate", api.cuStreamCreate);
  find.need("cuStreamDestroy_v2", api.cuStreamDestroy);
  find.need("cuStreamWaitEvent", api.cuStreamWaitEvent);
  find.need("cuEventCreate", api.cuEventCreate);
  find.need("cuEventDestroy_v2", api.cuEventDestroy);
  find.need("cuEventRecord", api.cuEventRecord);
  find.need("cuEventQuery", api.cuEventQuery);
  find.need("cuMemcpyAsync", api.cuMemcpyAsync);
  find.need("cuModuleLoadData", api.cuModuleLoadData);
  find.need("cuModuleUnload", api.cuModuleUnload);
  find.need("cuModuleGetFunction", api.cuModuleGetFunction);
  find.need("cuLaunchKernel", api.cuLaunchKernel);
  find.ask("cuMemcpyBatchAsync", kBatchSince, api.cuMemcpyBatchAsync);
  if (!find.missing().empty()) return unusable(std::string(library) + " has no " + find.missing());
  return api;
}

Result<const DriverApi*> driver() {
  static const Result<DriverApi> loaded = load_and_init();
  if (!loaded) return Error(loaded.error());
  return &*loaded;
}

Error failed(const DriverApi& api, Status status, const char* call, std::size_t requested) {
  const char* name = nullptr;
  if (api.cuGetErrorName(status, &name) != kSuccess) name = nullptr;
  return Error{ErrorCode::Cuda, status, requested, 0,
               std::string(call) + " answered " + (name ? name : "an unknown error")};
}

}  // namespace kvbm::cuda
