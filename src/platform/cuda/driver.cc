#include "platform/cuda/driver.h"

#include <dlfcn.h>

namespace kvbm::cuda {
namespace {

// As far as the driver's C interface is used here. Names and meanings: CUDA driver API reference.
using CUresult = int;
using CUdevice = int;
using CUcontext = void*;
using CUdeviceptr = unsigned long long;

struct Driver {
  CUresult (*init)(unsigned flags) = nullptr;
  CUresult (*device_get)(CUdevice*, int ordinal) = nullptr;
  CUresult (*primary_retain)(CUcontext*, CUdevice) = nullptr;
  CUresult (*primary_release)(CUdevice) = nullptr;
  CUresult (*push)(CUcontext) = nullptr;
  CUresult (*pop)(CUcontext*) = nullptr;
  CUresult (*alloc)(CUdeviceptr*, std::size_t bytes) = nullptr;
  CUresult (*free)(CUdeviceptr) = nullptr;
  CUresult (*memset)(CUdeviceptr, unsigned char value, std::size_t bytes) = nullptr;
  CUresult (*error_name)(CUresult, const char**) = nullptr;
  std::string missing;  // why the driver cannot be used; empty if it can
};

template <class Function>
void find(void* library, const char* name, Function*& function, std::string& missing) {
  function = reinterpret_cast<Function*>(::dlsym(library, name));
  if (!function && missing.empty()) missing = std::string("libcuda.so.1 has no ") + name;
}

Driver load() {
  Driver driver;
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = ::dlerror();
    driver.missing = reason ? reason : "libcuda.so.1 cannot be loaded";
    return driver;
  }
  find(library, "cuInit", driver.init, driver.missing);
  find(library, "cuDeviceGet", driver.device_get, driver.missing);
  find(library, "cuDevicePrimaryCtxRetain", driver.primary_retain, driver.missing);
  find(library, "cuDevicePrimaryCtxRelease_v2", driver.primary_release, driver.missing);
  find(library, "cuCtxPushCurrent_v2", driver.push, driver.missing);
  find(library, "cuCtxPopCurrent_v2", driver.pop, driver.missing);
  find(library, "cuMemAlloc_v2", driver.alloc, driver.missing);
  find(library, "cuMemFree_v2", driver.free, driver.missing);
  find(library, "cuMemsetD8_v2", driver.memset, driver.missing);
  find(library, "cuGetErrorName", driver.error_name, driver.missing);
  return driver;
}

const Driver& driver() {
  static const Driver loaded = load();  // never unloaded: device memory may outlive everything
  return loaded;
}

Error failed(CUresult result, const char* call, std::size_t requested = 0) {
  const char* name = nullptr;
  driver().error_name(result, &name);
  return Error{ErrorCode::Cuda, result, requested, 0,
               std::string(call) + " answered " + (name ? name : "an unknown error")};
}

// The device's primary context, current on this thread while this lives.
class Current {
 public:
  static Result<std::unique_ptr<Current>> enter(std::uint32_t ordinal) {
    if (!driver().missing.empty()) {
      return Error{ErrorCode::Cuda, 0, 0, 0, "no CUDA driver: " + driver().missing};
    }
    if (const CUresult r = driver().init(0)) return failed(r, "cuInit");
    CUdevice device = 0;
    if (const CUresult r = driver().device_get(&device, static_cast<int>(ordinal))) {
      return failed(r, "cuDeviceGet");
    }
    CUcontext context = nullptr;
    if (const CUresult r = driver().primary_retain(&context, device)) {
      return failed(r, "cuDevicePrimaryCtxRetain");
    }
    if (const CUresult r = driver().push(context)) {
      driver().primary_release(device);
      return failed(r, "cuCtxPushCurrent");
    }
    return std::unique_ptr<Current>(new Current(device));
  }
  ~Current() {
    CUcontext context = nullptr;
    driver().pop(&context);
    if (!keep_) driver().primary_release(device_);
  }
  // The context stays retained: memory was allocated in it.
  void keep() noexcept { keep_ = true; }
  // Ends such a retention.
  void release_kept() noexcept { driver().primary_release(device_); }

 private:
  explicit Current(CUdevice device) : device_(device) {}
  CUdevice device_;
  bool keep_ = false;
};

}  // namespace

DeviceMemory::DeviceMemory(std::uint32_t device, std::uint64_t address, std::size_t bytes)
    : device_(device),
      address_(address),
      bytes_(bytes),
      description_("CUDA device " + std::to_string(device)) {}

DeviceMemory::~DeviceMemory() {
  auto current = Current::enter(device_);
  if (!current) return;  // the driver is gone, and the memory with it
  driver().free(address_);
  (*current)->release_kept();
}

Result<std::unique_ptr<DeviceMemory>> allocate(std::uint32_t device, std::size_t bytes) {
  KVBM_TRY(auto current, Current::enter(device));
  CUdeviceptr address = 0;
  if (const CUresult r = driver().alloc(&address, bytes)) return failed(r, "cuMemAlloc", bytes);
  if (const CUresult r = driver().memset(address, 0, bytes)) {
    driver().free(address);
    return failed(r, "cuMemsetD8", bytes);
  }
  current->keep();
  return std::make_unique<DeviceMemory>(device, address, bytes);
}

}  // namespace kvbm::cuda
