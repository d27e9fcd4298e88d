// A CUDA device and what is allocated in its primary context.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kvbm/result.h"
#include "platform/cuda/driver.h"

namespace kvbm::cuda {

// A device whose primary context is kept while this lives. Threads: any.
class Device {
 public:
  // Errors: those of driver(); Cuda with the driver's code, such as for an ordinal that is not
  // there.
  static Result<std::shared_ptr<const Device>> open(std::uint32_t ordinal);
  // The same with functions of load_driver(), which must be initialised and stay.
  static Result<std::shared_ptr<const Device>> open(std::uint32_t ordinal, const DriverApi& api);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DriverApi& api() const noexcept { return *api_; }
  std::uint32_t ordinal() const noexcept { return ordinal_; }
  const std::string& name() const noexcept { return name_; }
  // Whether kernels may use the host's address of registered host memory.
  bool shares_host_addresses() const noexcept { return shares_host_addresses_; }

 private:
  friend class Current;
  Device(const DriverApi& api, std::uint32_t ordinal, int handle, void* context)
      : api_(&api), ordinal_(ordinal), handle_(handle), context_(context) {}

  const DriverApi* api_;
  std::uint32_t ordinal_;
  int handle_;
  void* context_;
  std::string name_;
  bool shares_host_addresses_ = false;
};

// The device's context is current on this thread while this lives. Nests.
class Current {
 public:
  // Whether it worked is told by check(), so that destructors can go on without.
  explicit Current(const Device& device) noexcept
      : device_(device), status_(device.api().cuCtxPushCurrent(device.context_)) {}
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

  // Errors: Cuda with the driver's code.
  Result<void> check() const;

 private:
  const Device& device_;
  Status status_;
};

// One allocation of device memory; freed when destroyed.
class DeviceMemory {
 public:
  DeviceMemory(std::shared_ptr<const Device> device, DeviceAddress address, std::size_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  std::uint32_t device() const noexcept { return device_->ordinal(); }
  DeviceAddress address() const noexcept { return address_; }
  std::size_t bytes() const noexcept { return bytes_; }
  const std::string& description() const noexcept { return description_; }

 private:
  std::shared_ptr<const Device> device_;
  DeviceAddress address_;
  std::size_t bytes_;
  std::string description_;
};

// Zeroed. Errors: Cuda with the driver's code and the bytes that were asked for.
Result<std::unique_ptr<DeviceMemory>> allocate(std::shared_ptr<const Device> device,
                                               std::size_t bytes);

// Host memory that the device copies to and from at full speed, and that kernels can read. Ends
// when destroyed, which must come before the memory is unmapped.
class HostRegistration {
 public:
  // It is registered in pieces that end at multiples of this address, since the driver stops
  // everybody else while it pins one. No copy may cross such an address.
  static constexpr std::size_t kPieceBytes = std::size_t{16} << 20;

  // Cost: about 0.1 s per GiB. On an error nothing stays registered.
  // Errors: Cuda with the driver's code.
  static Result<std::unique_ptr<HostRegistration>> create(std::shared_ptr<const Device> device,
                                                          std::byte* memory, std::size_t bytes);
  ~HostRegistration();
  HostRegistration(const HostRegistration&) = delete;
  HostRegistration& operator=(const HostRegistration&) = delete;

 private:
  explicit HostRegistration(std::shared_ptr<const Device> device) : device_(std::move(device)) {}

  std::shared_ptr<const Device> device_;
  std::vector<std::byte*> pieces_;
};

// Bytes from an address of the host to the next that a copy must not cross.
inline std::size_t until_next_piece(std::uint64_t address) noexcept {
  return HostRegistration::kPieceBytes - address % HostRegistration::kPieceBytes;
}

}  // namespace kvbm::cuda
