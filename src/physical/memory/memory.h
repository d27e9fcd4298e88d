// One allocation of any kind: host memory, CUDA memory or a file.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kvbm/storage.h"
#include "platform/cuda/device.h"
#include "platform/os/file.h"
#include "platform/os/pages.h"

namespace kvbm::detail {

// Immutable once it is shared, hence thread-safe; the bytes are the callers' affair.
class Memory {
 public:
  Memory(StorageType type, std::unique_ptr<Pages> pages, std::size_t bytes)
      : type_(type), bytes_(bytes), pages_(std::move(pages)) {}
  explicit Memory(std::shared_ptr<File> file)
      : type_{StorageType::Kind::Disk, static_cast<std::uint64_t>(file->descriptor())},
        bytes_(file->size()),
        file_(std::move(file)) {}

  Memory(std::uint32_t device, std::unique_ptr<cuda::DeviceMemory> memory)
      : type_{StorageType::Kind::Device, device},
        bytes_(memory->bytes()),
        device_(std::move(memory)) {}

  // Memory that somebody else owns and frees. Requires: System, Pinned or Device.
  Memory(StorageType type, std::uint64_t address, std::size_t bytes)
      : type_(type), bytes_(bytes), external_(address) {}

  // Makes the device copy to and from this host memory at full speed, for as long as it lives: all
  // of it, or a piece, which must begin and end where memory does or at a multiple of
  // cuda::HostRegistration::kPieceBytes. Pieces go front to back; what is registered already, as
  // by an earlier owner, stays so. One thread at a time. Cost and errors: those of
  // cuda::HostRegistration; NotAccessible unless it is host memory.
  Result<void> register_with(std::shared_ptr<const cuda::Device> device,
                             std::span<std::byte> piece = {});
  // Whether some of it is. Who uses pieces only once they are registered may take it for all.
  bool is_registered() const noexcept { return registered_.load(std::memory_order_acquire); }

  StorageType type() const noexcept { return type_; }
  // Of the first byte; 0 for a file.
  std::uint64_t address() const noexcept {
    if (external_ != 0) return external_;
    return device_ ? device_->address() : reinterpret_cast<std::uintptr_t>(data());
  }
  std::size_t bytes() const noexcept { return bytes_; }
  // Null unless the CPU can address it.
  std::byte* data() const noexcept {
    if (pages_) return pages_->data();
    const bool is_cpu = external_ != 0 && type_.kind != StorageType::Kind::Device;
    return is_cpu ? reinterpret_cast<std::byte*>(external_) : nullptr;
  }
  // Null unless it is a file; then addresses are offsets into it.
  File* file() const noexcept { return file_.get(); }
  const std::string& description() const noexcept {
    static const std::string kExternal = "memory of the caller's";
    if (external_ != 0) return kExternal;
    if (device_) return device_->description();
    return file_ ? file_->description() : pages_->description();
  }

 private:
  StorageType type_;
  std::size_t bytes_;
  std::uint64_t external_ = 0;
  std::unique_ptr<Pages> pages_;
  std::vector<std::unique_ptr<cuda::HostRegistration>> registrations_;  // end before pages go
  std::size_t registered_bytes_ = 0;                                    // from the front
  std::atomic<bool> registered_{false};
  std::unique_ptr<cuda::DeviceMemory> device_;
  std::shared_ptr<File> file_;
};

}  // namespace kvbm::detail
