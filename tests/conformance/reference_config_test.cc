// The configuration and storage types of the API reference, item by item and in its order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <concepts>
#include <cstring>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "reference_fixture.h"

namespace kvbm {
namespace {

using std::chrono::seconds;

// Threads of the caller's: one per task, which is enough for a test.
class ThreadPerTask final : public Executor {
 public:
  void post(std::function<void()> task) override {
    const std::lock_guard lock(mutex_);
    threads_.emplace_back(std::move(task));
  }
  std::size_t posted() const {
    const std::lock_guard lock(mutex_);
    return threads_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::jthread> threads_;
};

// --- configuration ---------------------------------------------------------------------------

TEST(ReferenceConfigTest, KvBlockManagerConfigHasTheReferencesFields) {
  KvBlockManagerConfig config;
  config.runtime = KvManagerRuntimeConfig{};
  config.model = KvManagerModelConfig{};
  EXPECT_FALSE(config.device_layout || config.host_layout || config.disk_layout);
  EXPECT_EQ(config.event_manager, nullptr);
  config = small_config();
  config.event_manager = std::make_shared<NullEventManager>();
  EXPECT_TRUE(config.problems().empty());
  EXPECT_TRUE(ReferenceBlockManager::create(config).has_value());
  config.host_layout.reset();
  EXPECT_TRUE(config.problems().empty()) << "blocks pass through host memory without a host tier";
  EXPECT_TRUE(ReferenceBlockManager::create(config).has_value());
}

TEST(ReferenceConfigTest, RuntimeConfigNamesWorkerTokenRuntimeAndRegistry) {
  std::stop_source stop;
  const auto executor = std::make_shared<ThreadPerTask>();
  const auto registry = std::make_shared<MemoryRegistry>();
  KvBlockManagerConfig config = small_config();
  config.runtime.worker_id = 3;
  config.runtime.cancellation_token = stop.get_token();
  config.runtime.async_runtime = executor;
  config.runtime.metrics_registry = registry;
  EXPECT_EQ(config.runtime.nixl.kind, NixlOptions::Kind::Disabled);
  auto manager = ReferenceBlockManager::create(config).value();
  EXPECT_EQ(manager.worker_id(), 3u);
  EXPECT_FALSE(registry->samples().empty());
  manager.device()->register_blocks_blocking(named(*manager.device(), prompt(0, 2))).value();
  ASSERT_TRUE(manager.drain(seconds(30)));
  EXPECT_GT(executor->posted(), 0u) << "offloads run on the caller's threads";
  stop.request_stop();
  expect_error(manager.device()->allocate_blocks_blocking(1), ErrorCode::ProgressEngineShutdown);
}

TEST(ReferenceConfigTest, NixlOptionsAnswerNixlErrorWhereThereIsNoNixl) {
  KvBlockManagerConfig config = small_config();
  const std::string nowhere = "/no/such/libnixl_capi.so";
  config.runtime.nixl = {.kind = NixlOptions::Kind::Enabled, .library = nowhere};
  expect_error(ReferenceBlockManager::create(config), ErrorCode::NixlError);
  config.runtime.nixl = {
      .kind = NixlOptions::Kind::Agent, .agent = NixlAgent{"mine"}, .library = nowhere};
  expect_error(ReferenceBlockManager::create(config), ErrorCode::NixlError);
}

TEST(ReferenceConfigTest, ModelConfigSaysWhatABlockIs) {
  KvBlockManagerConfig config = small_config();
  config.model.num_layers = 2;
  config.model.outer_dim = 1;
  config.model.page_size = 8;
  config.model.inner_dim = 6;
  config.model.dtype = DType::FP32;
  auto manager = ReferenceBlockManager::create(config).value();
  const auto blocks = manager.device()->allocate_blocks_blocking(1).value();
  EXPECT_EQ(blocks[0].num_layers(), 2u);
  EXPECT_EQ(blocks[0].num_outer_dims(), 1u);
  EXPECT_EQ(blocks[0].page_size(), 8u);
  EXPECT_EQ(blocks[0].inner_dim(), 6u);
  EXPECT_EQ(blocks[0].layer_view(0, 0).value().size(), 8u * 6u * 4u);
}

TEST(ReferenceConfigTest, LayoutConfigTakesAnAllocator) {
  KvManagerLayoutConfig<DeviceStorage> layout{.num_blocks = 5};
  EXPECT_EQ(layout.layout_type, LayoutType::FullyContiguous);
  layout.layout_type = LayoutType::LayerSeparateOuterContiguous;
  layout.allocator = std::make_shared<HostBackedDeviceAllocator>();
  KvBlockManagerConfig config{.model = small_model(), .device_layout = layout};
  auto manager = ReferenceBlockManager::create(config).value();
  EXPECT_EQ(manager.device()->total_blocks(), 5u);
}

// An allocator of the caller's own, for example one that maps the engine's memory.
class CountingAllocator final : public StorageAllocator<DeviceStorage> {
 public:
  Result<DeviceStorage> allocate(std::size_t bytes) override {
    ++calls;
    return HostBackedDeviceAllocator().allocate(bytes);
  }
  std::size_t calls = 0;
};

TEST(ReferenceConfigTest, LayoutConfigTakesTheCallersAllocator) {
  const auto allocator = std::make_shared<CountingAllocator>();
  KvBlockManagerConfig config{.model = small_model(),
                              .device_layout = KvManagerLayoutConfig<DeviceStorage>{
                                  .num_blocks = 2,
                                  .allocator = allocator,
                                  .layout_type = LayoutType::LayerSeparateBlockContiguous}};
  EXPECT_TRUE(ReferenceBlockManager::create(config).has_value());
  EXPECT_EQ(allocator->calls, kLayers) << "one storage per layer";
}

TEST(ReferenceConfigTest, LayoutConfigTakesTheCallersStorage) {
  const LayoutConfig shape = small_layout(2);
  const std::size_t bytes = shape.storage_bytes(LayoutType::FullyContiguous).value();
  auto storage = HostBackedDeviceAllocator().allocate(bytes).value();
  KvBlockManagerConfig config{
      .model = small_model(),
      .device_layout = KvManagerLayoutConfig<DeviceStorage>{.num_blocks = 2, .storage = {storage}}};
  auto manager = ReferenceBlockManager::create(config).value();
  auto block = one_block(*manager.device());
  const LayerViewMut<DeviceStorage> view = block.layer_view_mut(0, 0).value();
  view.bytes()[0] = std::byte{0x77};
  EXPECT_EQ(storage.as_ptr()[view.offset()], std::byte{0x77}) << "the same memory";
}

TEST(ReferenceConfigTest, LogicalLayoutsHaveIdentitiesAndNoBytes) {
  KvBlockManagerConfig config{
      .model = small_model(),
      .device_layout = KvManagerLayoutConfig<DeviceStorage>{
          .num_blocks = 2, .logical = BlockParallelismStrategy::LeaderWorkerSharded}};
  auto manager = ReferenceBlockManager::create(config).value();
  const auto block = one_registered(*manager.device(), 0);
  EXPECT_EQ(block.num_layers(), kLayers);
  expect_error(block.layer_view(0, 0), ErrorCode::ViewsNotAvailableOnLogicalBlocks);
}

TEST(ReferenceConfigTest, LayoutConfigNeedsExactlyOneSourceOfMemory) {
  KvBlockManagerConfig config = small_config();
  config.device_layout->logical = BlockParallelismStrategy::LeaderWorkerSharded;
  expect_error(ReferenceBlockManager::create(config), ErrorCode::InvalidConfig);
}

// --- storage ---------------------------------------------------------------------------------

// A type of the caller's own satisfies the concept; one without as_mut_ptr() does not.
struct ArrayStorage {
  std::byte bytes[16];
  StorageType storage_type() const { return {}; }
  std::uint64_t addr() const { return reinterpret_cast<std::uintptr_t>(bytes); }
  std::size_t size() const { return sizeof bytes; }
  const std::byte* as_ptr() const { return bytes; }
  std::byte* as_mut_ptr() { return bytes; }
};
struct ReadOnlyStorage {
  StorageType storage_type() const;
  std::uint64_t addr() const;
  std::size_t size() const;
  const std::byte* as_ptr() const;
};
static_assert(Storage<ArrayStorage>);
static_assert(!Storage<ReadOnlyStorage>);
static_assert(Storage<SystemStorage> && Storage<DeviceStorage> && Storage<PinnedStorage> &&
              Storage<DiskStorage>);

template <Storage S>
void expect_writable_memory(S storage, StorageType type, std::size_t bytes) {
  EXPECT_EQ(storage.storage_type(), type);
  EXPECT_GE(storage.size(), bytes);
  EXPECT_EQ(storage.addr() % 4096, 0u);
  const S& constant = storage;
  ASSERT_NE(constant.as_ptr(), nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(constant.as_ptr()), storage.addr());
  EXPECT_EQ(constant.as_ptr()[bytes - 1], std::byte{0}) << "new memory is zeroed";
  std::memset(storage.as_mut_ptr(), 0x3c, bytes);
  EXPECT_EQ(constant.as_ptr()[bytes - 1], std::byte{0x3c});
}

TEST(ReferenceStorageTest, SystemAndPinnedAllocatorsGiveMemory) {
  SystemAllocator system;
  expect_writable_memory(system.allocate(5000).value(), {StorageType::Kind::System, 0}, 5000);
  PinnedAllocator pinned;
  expect_writable_memory(pinned.allocate(5000).value(), {StorageType::Kind::Pinned, 0}, 5000);
  HostBackedDeviceAllocator host_backed;
  expect_writable_memory(host_backed.allocate(5000).value(), {StorageType::Kind::System, 0}, 5000);
}

TEST(ReferenceStorageTest, DiskAllocatorGivesAFile) {
  DiskAllocator allocator(testing::TempDir());
  const DiskStorage storage = allocator.allocate(8192).value();
  EXPECT_EQ(storage.storage_type().kind, StorageType::Kind::Disk);
  EXPECT_GT(storage.storage_type().id, 2u) << "the file descriptor";
  EXPECT_EQ(storage.size(), 8192u);
  EXPECT_EQ(storage.addr(), 0u);
  EXPECT_EQ(storage.as_ptr(), nullptr) << "the CPU cannot address a file";
}

TEST(ReferenceStorageTest, DeviceAllocatorGivesCudaMemoryOrSaysWhyNot) {
  DeviceAllocator allocator(0);
  const StorageResult<DeviceStorage> storage = allocator.allocate(8192);
  if (storage) {
    EXPECT_EQ(storage->storage_type(), (StorageType{StorageType::Kind::Device, 0}));
    EXPECT_EQ(storage->as_ptr(), nullptr) << "the CPU cannot address it";
    EXPECT_NE(storage->addr(), 0u);
  } else {
    EXPECT_EQ(storage.error().code, ErrorCode::Cuda);
  }
}

TEST(ReferenceStorageTest, NixlAllocatorAnswersNixlError) {
  NixlAllocator<PinnedStorage> allocator(std::make_shared<PinnedAllocator>());
  expect_error(allocator.allocate(4096), ErrorCode::NixlError);
}

TEST(ReferenceStorageTest, StorageTypesHaveNamesAndIds) {
  EXPECT_STREQ(to_string(StorageType::Kind::System), "system");
  EXPECT_STREQ(to_string(StorageType::Kind::Device), "device");
  EXPECT_STREQ(to_string(StorageType::Kind::Pinned), "pinned");
  EXPECT_STREQ(to_string(StorageType::Kind::Disk), "disk");
  EXPECT_STREQ(to_string(StorageType::Kind::Nixl), "nixl");
  EXPECT_STREQ(to_string(StorageType::Kind::Null), "null");
  EXPECT_NE((StorageType{StorageType::Kind::Device, 0}),
            (StorageType{StorageType::Kind::Device, 1}));
}

}  // namespace
}  // namespace kvbm
