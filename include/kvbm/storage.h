// Where the bytes of a pool live: storages and the allocators that make them.
//
// The type of a storage names the tier it serves (DeviceStorage: G1, PinnedStorage: G2,
// DiskStorage: G3); storage_type() names the memory behind it. So a device pool may be backed by
// host memory.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "kvbm/result.h"

namespace kvbm {

// The kind of memory behind a storage: Nixl is memory of another process, Null is none. `id` is the
// device ordinal for Device and the file descriptor for Disk, else 0.
struct StorageType {
  enum class Kind : std::uint8_t { System, Device, Pinned, Disk, Nixl, Null };
  Kind kind = Kind::System;
  std::uint64_t id = 0;
  friend bool operator==(const StorageType&, const StorageType&) = default;
};
const char* to_string(StorageType::Kind kind) noexcept;

// addr() is the first byte's address, or 0 for a file. as_ptr() is null unless the CPU can address
// the memory.
template <class S>
concept Storage = requires(const S& storage, S& writable) {
  { storage.storage_type() } -> std::same_as<StorageType>;
  { storage.addr() } -> std::same_as<std::uint64_t>;
  { storage.size() } -> std::same_as<std::size_t>;
  { storage.as_ptr() } -> std::same_as<const std::byte*>;
  { writable.as_mut_ptr() } -> std::same_as<std::byte*>;
};

namespace detail {

class Memory;  // one allocation of any kind

// The answer of everything that NIXL is not used for yet.
Error nixl_is_absent(const char* what);

// A reference to one allocation; the last one frees it. `Tag` keeps tiers apart at compile time.
template <class Tag>
class MemoryStorage {
 public:
  explicit MemoryStorage(std::shared_ptr<Memory> memory) : memory_(std::move(memory)) {}
  StorageType storage_type() const noexcept;
  std::uint64_t addr() const noexcept;
  std::size_t size() const noexcept;  // bytes
  const std::byte* as_ptr() const noexcept;
  std::byte* as_mut_ptr() noexcept;
  // For people: pages, locking, file name.
  const std::string& description() const noexcept;

  const std::shared_ptr<Memory>& memory() const noexcept { return memory_; }

 private:
  std::shared_ptr<Memory> memory_;
};

struct SystemTag;
struct PinnedTag;
struct DeviceTag;
struct DiskTag;

}  // namespace detail

using SystemStorage = detail::MemoryStorage<detail::SystemTag>;
using PinnedStorage = detail::MemoryStorage<detail::PinnedTag>;
using DeviceStorage = detail::MemoryStorage<detail::DeviceTag>;
using DiskStorage = detail::MemoryStorage<detail::DiskTag>;
static_assert(Storage<SystemStorage> && Storage<PinnedStorage> && Storage<DeviceStorage> &&
              Storage<DiskStorage>);

// Makes storages of one kind. allocate() returns zeroed memory of at least `bytes` bytes, aligned
// to 4096. Errors: InvalidConfig for 0 bytes; AllocationFailed{requested,
// available bytes where known} with errno.
template <Storage S>
class StorageAllocator {
 public:
  virtual ~StorageAllocator() = default;
  virtual Result<S> allocate(std::size_t bytes) = 0;
};

// Ordinary memory.
class SystemAllocator final : public StorageAllocator<SystemStorage> {
 public:
  Result<SystemStorage> allocate(std::size_t bytes) override;
};

// Host memory for transfers: huge pages where the kernel gives them, locked where the limit allows.
// Both are best effort; description() tells what came of it.
//
// The kernel finds and zeroes pages when they are first touched. The manager has that done for its
// host tier in the background, front to back; see KvBlockManager::wait_until_filled().
class PinnedAllocator final : public StorageAllocator<PinnedStorage> {
 public:
  PinnedAllocator() = default;
  // Prefers memory of one NUMA node. Errors of allocate(): InvalidConfig{node, nodes} if there is
  // no such node.
  explicit PinnedAllocator(unsigned numa_node) : numa_node_(numa_node) {}
  Result<PinnedStorage> allocate(std::size_t bytes) override;

 private:
  std::optional<unsigned> numa_node_;
};

// Memory of one CUDA device, through the driver (libcuda.so.1), which is looked for when it is
// first needed. The CPU cannot address it: as_ptr() is null and views answer NotAccessible.
class DeviceAllocator final : public StorageAllocator<DeviceStorage> {
 public:
  explicit DeviceAllocator(std::uint32_t device = 0) : device_(device) {}
  // Errors: Cuda with the driver's CUresult, or with 0 and the reason where there is no driver.
  Result<DeviceStorage> allocate(std::size_t bytes) override;

 private:
  std::uint32_t device_;
};

// Memory of another allocator, registered with a NIXL agent so that other workers can reach it.
template <Storage S>
class NixlAllocator final : public StorageAllocator<S> {
 public:
  explicit NixlAllocator(std::shared_ptr<StorageAllocator<S>> inner) : inner_(std::move(inner)) {}
  // Errors: NixlError: memory is registered by the manager that owns it, not where it is allocated;
  // nothing is allocated.
  Result<S> allocate(std::size_t) override { return detail::nixl_is_absent("NixlAllocator"); }

 private:
  std::shared_ptr<StorageAllocator<S>> inner_;
};

// Backs the device pool with host memory, for CPU engines and for tests. storage_type() is System.
class HostBackedDeviceAllocator final : public StorageAllocator<DeviceStorage> {
 public:
  Result<DeviceStorage> allocate(std::size_t bytes) override;
};

// A preallocated file without a name for a disk tier that does not outlive its manager, opened with
// O_DIRECT where the file system supports it. Nothing is left of it, however the process ends. A
// tier that survives is a store: see DiskStoreConfig.
class DiskAllocator final : public StorageAllocator<DiskStorage> {
 public:
  explicit DiskAllocator(std::string directory) : directory_(std::move(directory)) {}
  // Errors: besides those of StorageAllocator, OperationFailed if the directory does not exist or
  // cannot be written; AllocationFailed{requested, available} if the disk has too little room.
  Result<DiskStorage> allocate(std::size_t bytes) override;

 private:
  std::string directory_;
};

}  // namespace kvbm
