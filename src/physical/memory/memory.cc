#include "physical/memory/memory.h"

#include <algorithm>
#include <string>

namespace kvbm {

const char* to_string(StorageType::Kind kind) noexcept {
  switch (kind) {
    case StorageType::Kind::System: return "system";
    case StorageType::Kind::Device: return "device";
    case StorageType::Kind::Pinned: return "pinned";
    case StorageType::Kind::Disk: return "disk";
    case StorageType::Kind::Nixl: return "nixl";
    case StorageType::Kind::Null: return "null";
  }
  return "unknown";
}

namespace detail {

Error nixl_is_absent(const char* what) {
  return Error{ErrorCode::NixlError, 0, 0, 0,
               std::string(what) + " would need NIXL, which is not used for it"};
}

Result<void> Memory::register_with(std::shared_ptr<const cuda::Device> device,
                                   std::span<std::byte> piece) {
  if (!data()) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0, "only host memory can be registered with CUDA"};
  }
  if (piece.empty()) piece = {data(), bytes_};
  const auto end = static_cast<std::size_t>(piece.data() + piece.size() - data());
  if (end <= registered_bytes_) return {};
  std::byte* const begin = std::max(piece.data(), data() + registered_bytes_);
  KVBM_TRY(auto registration,
           cuda::HostRegistration::create(std::move(device), begin,
                                          static_cast<std::size_t>(data() + end - begin)));
  registrations_.push_back(std::move(registration));
  registered_bytes_ = end;
  registered_.store(true, std::memory_order_release);
  return {};
}

template <class Tag>
StorageType MemoryStorage<Tag>::storage_type() const noexcept {
  return memory_->type();
}
template <class Tag>
std::uint64_t MemoryStorage<Tag>::addr() const noexcept {
  return memory_->address();
}
template <class Tag>
std::size_t MemoryStorage<Tag>::size() const noexcept {
  return memory_->bytes();
}
template <class Tag>
const std::byte* MemoryStorage<Tag>::as_ptr() const noexcept {
  return memory_->data();
}
template <class Tag>
std::byte* MemoryStorage<Tag>::as_mut_ptr() noexcept {
  return memory_->data();
}
template <class Tag>
const std::string& MemoryStorage<Tag>::description() const noexcept {
  return memory_->description();
}

template class MemoryStorage<SystemTag>;
template class MemoryStorage<PinnedTag>;
template class MemoryStorage<DeviceTag>;
template class MemoryStorage<DiskTag>;

}  // namespace detail

namespace {

Result<void> check_size(std::size_t bytes) {
  if (bytes > 0) return {};
  return Error{ErrorCode::InvalidConfig, 0, 0, 0, "an allocation must have at least 1 byte"};
}

Result<std::shared_ptr<detail::Memory>> allocate_pages(std::size_t bytes, StorageType::Kind kind,
                                                       Pages::Kind pages_kind,
                                                       std::optional<unsigned> numa_node = {}) {
  KVBM_CHECK_OK(check_size(bytes));
  KVBM_TRY(auto pages, Pages::map(bytes, pages_kind, numa_node));
  return std::make_shared<detail::Memory>(StorageType{kind, 0}, std::move(pages), bytes);
}

}  // namespace

Result<SystemStorage> SystemAllocator::allocate(std::size_t bytes) {
  KVBM_TRY(auto memory, allocate_pages(bytes, StorageType::Kind::System, Pages::Kind::Plain));
  return SystemStorage(std::move(memory));
}

Result<PinnedStorage> PinnedAllocator::allocate(std::size_t bytes) {
  KVBM_TRY(auto memory,
           allocate_pages(bytes, StorageType::Kind::Pinned, Pages::Kind::Pinned, numa_node_));
  return PinnedStorage(std::move(memory));
}

Result<DeviceStorage> DeviceAllocator::allocate(std::size_t bytes) {
  KVBM_CHECK_OK(check_size(bytes));
  KVBM_TRY(auto device, cuda::Device::open(device_));
  KVBM_TRY(auto memory, cuda::allocate(std::move(device), bytes));
  return DeviceStorage(std::make_shared<detail::Memory>(device_, std::move(memory)));
}

Result<DeviceStorage> HostBackedDeviceAllocator::allocate(std::size_t bytes) {
  KVBM_TRY(auto memory, allocate_pages(bytes, StorageType::Kind::System, Pages::Kind::Plain));
  return DeviceStorage(std::move(memory));
}

Result<DiskStorage> DiskAllocator::allocate(std::size_t bytes) {
  KVBM_CHECK_OK(check_size(bytes));
  KVBM_TRY(auto file, create_temporary_file(directory_, bytes));
  return DiskStorage(std::make_shared<detail::Memory>(std::move(file)));
}

}  // namespace kvbm
