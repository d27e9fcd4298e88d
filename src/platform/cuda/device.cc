#include "platform/cuda/device.h"

#include <algorithm>
#include <array>

namespace kvbm::cuda {
namespace {

constexpr int kCanUseHostPointerForRegisteredMemory = 91;  // a CUdevice_attribute
constexpr unsigned kPortable = 1;                          // registered for all contexts

}  // namespace

Result<std::shared_ptr<const Device>> Device::open(std::uint32_t ordinal) {
  KVBM_TRY(const DriverApi* api, driver());
  return open(ordinal, *api);
}

Result<std::shared_ptr<const Device>> Device::open(std::uint32_t ordinal, const DriverApi& api) {
  int handle = 0;
  if (const Status status = api.cuDeviceGet(&handle, static_cast<int>(ordinal))) {
    Error error = failed(api, status, "cuDeviceGet");
    error.message += " for device " + std::to_string(ordinal);
    return error;
  }
  std::array<char, 128> name = {};
  KVBM_CUDA(api, cuDeviceGetName, name.data(), static_cast<int>(name.size() - 1), handle);
  int shares = 0;
  KVBM_CUDA(api, cuDeviceGetAttribute, &shares, kCanUseHostPointerForRegisteredMemory, handle);
  void* context = nullptr;
  KVBM_CUDA(api, cuDevicePrimaryCtxRetain, &context, handle);
  std::shared_ptr<Device> device(new Device(api, ordinal, handle, context));
  device->name_ = name.data();
  device->shares_host_addresses_ = shares != 0;
  return std::shared_ptr<const Device>(std::move(device));
}

Device::~Device() { api_->cuDevicePrimaryCtxRelease(handle_); }

Current::~Current() {
  void* context = nullptr;
  if (status_ == kSuccess) device_.api().cuCtxPopCurrent(&context);
}

Result<void> Current::check() const {
  if (status_ == kSuccess) return {};
  return failed(device_.api(), status_, "cuCtxPushCurrent");
}

DeviceMemory::DeviceMemory(std::shared_ptr<const Device> device, DeviceAddress address,
                           std::size_t bytes)
    : device_(std::move(device)),
      address_(address),
      bytes_(bytes),
      description_("CUDA device " + std::to_string(device_->ordinal()) + " (" + device_->name() +
                   ")") {}

DeviceMemory::~DeviceMemory() {
  const Current current(*device_);
  device_->api().cuMemFree(address_);
}

Result<std::unique_ptr<DeviceMemory>> allocate(std::shared_ptr<const Device> device,
                                               std::size_t bytes) {
  const Current current(*device);
  KVBM_CHECK_OK(current.check());
  const DriverApi& api = device->api();
  DeviceAddress address = 0;
  if (const Status status = api.cuMemAlloc(&address, bytes)) {
    return failed(api, status, "cuMemAlloc", bytes);
  }
  auto memory = std::make_unique<DeviceMemory>(std::move(device), address, bytes);
  KVBM_CUDA(api, cuMemsetD8, address, 0, bytes);
  return memory;
}

Result<std::unique_ptr<HostRegistration>> HostRegistration::create(
    std::shared_ptr<const Device> device, std::byte* memory, std::size_t bytes) {
  const Current current(*device);
  KVBM_CHECK_OK(current.check());
  const DriverApi& api = device->api();
  std::unique_ptr<HostRegistration> registration(new HostRegistration(std::move(device)));
  std::size_t piece = 0;
  for (std::size_t at = 0; at < bytes; at += piece) {
    std::byte* const first = memory + at;
    piece = std::min(bytes - at, until_next_piece(reinterpret_cast<std::uintptr_t>(first)));
    if (const Status status = api.cuMemHostRegister(first, piece, kPortable)) {
      return failed(api, status, "cuMemHostRegister", bytes);
    }
    registration->pieces_.push_back(first);
  }
  return registration;
}

HostRegistration::~HostRegistration() {
  const Current current(*device_);
  for (std::byte* piece : pieces_) device_->api().cuMemHostUnregister(piece);
}

}  // namespace kvbm::cuda
