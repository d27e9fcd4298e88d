// How a manager is built from its configuration, and taken down.
#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "manager/manager_core.h"
#include "manager/options.h"
#include "physical/transfer/thread_executor.h"

namespace kvbm::detail {
namespace {

// Every file system's direct I/O is content with it, and so are pages.
constexpr std::size_t kOffDeviceAlignment = 4096;
// Enough to keep a disk busy per I/O thread, little enough that a request of a few blocks still
// spreads over all threads.
constexpr std::size_t kTransferBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxBlocksPerTransfer = 32;

template <class S>
Result<std::vector<std::shared_ptr<Memory>>> memories_of(const KvManagerLayoutConfig<S>& layout,
                                                         const LayoutConfig& config) {
  std::vector<std::shared_ptr<Memory>> memories;
  for (const S& storage : layout.storage) memories.push_back(storage.memory());
  if (layout.allocator) {
    KVBM_TRY(const std::size_t bytes, config.storage_bytes(layout.layout_type));
    for (std::size_t i = 0; i < config.storage_count(layout.layout_type); ++i) {
      KVBM_TRY(S storage, layout.allocator->allocate(bytes));
      memories.push_back(storage.memory());
    }
  }
  return memories;
}

template <class S>
Result<std::shared_ptr<TierPool>> build_pool(Tier tier, const KvBlockManagerConfig& config,
                                             const KvManagerLayoutConfig<S>& layout,
                                             const MetadataTable* metadata,
                                             const std::shared_ptr<EventDispatcher>& events) {
  const LayoutConfig shape{.num_blocks = layout.num_blocks,
                           .num_layers = config.model.num_layers,
                           .outer_dim = config.model.outer_dim,
                           .page_size = config.model.page_size,
                           .inner_dim = config.model.inner_dim,
                           .dtype = config.model.dtype,
                           .alignment = tier == Tier::Device ? 1 : kOffDeviceAlignment};
  std::shared_ptr<BlockSet> set;
  if (layout.logical) {
    KVBM_TRY(set, make_logical_set(tier, shape));
  } else {
    auto memories = memories_of(layout, shape);
    if (memories) {
      KVBM_TRY(set, make_block_set(tier, layout.layout_type, shape, std::move(*memories)));
    } else {
      Error error = std::move(memories).error();
      error.message = std::string(to_string(tier)) + " tier: " + error.message;
      return error;
    }
  }
  return TierPool::create(std::move(set), {.duplicates = layout.duplicates,
                                           .eviction = layout.eviction,
                                           .metadata = metadata,
                                           .events = events,
                                           .metrics_registry = config.runtime.metrics_registry});
}

bool is_cuda(const TierPool& pool) {
  return pool.layout() && pool.layout()->memory(0).type().kind == StorageType::Kind::Device;
}

// The tiers between which this process can move bytes.
TierPools movable(const ManagerCore& core) {
  TierPools pools{core.device.get(), nullptr, nullptr};
  if (!core.device->layout()) return pools;
  if (core.host && core.host->layout()) pools.host = core.host.get();
  if (pools.host && core.disk && core.disk->layout()) pools.disk = core.disk.get();
  return pools;
}

Result<void> build_pools(ManagerCore& core, const KvBlockManagerConfig& config,
                         const MetadataTable* metadata) {
  KVBM_TRY(core.device,
           build_pool(Tier::Device, config, *config.device_layout, metadata, core.events));
  if (config.host_layout) {
    KVBM_TRY(core.host, build_pool(Tier::Host, config, *config.host_layout, metadata, core.events));
  }
  if (config.disk_layout) {
    KVBM_TRY(core.disk, build_pool(Tier::Disk, config, *config.disk_layout, metadata, core.events));
  }
  if (is_cuda(*core.device) && core.host) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0,
                 "there is no path between CUDA memory and the host tier yet; leave host_layout "
                 "out, or back the device tier with host memory"};
  }
  return {};
}

Result<std::unique_ptr<TransferExecutor>> build_executor(const KvManagerRuntimeConfig& runtime,
                                                         const WrapExecutor& wrap) {
  std::unique_ptr<TransferExecutor> executor;
  if (runtime.async_runtime) {
    executor = std::make_unique<SharedExecutor>(
        [shared = runtime.async_runtime](std::function<void()> task) {
          shared->post(std::move(task));
        });
  } else {
    KVBM_TRY(executor, ThreadExecutor::create(runtime.transfer_threads));
  }
  if (wrap) executor = wrap(std::move(executor));
  return executor;
}

}  // namespace

Result<ManagerCorePtr> build_manager(const KvBlockManagerConfig& config,
                                     const MetadataTable* metadata, const WrapExecutor& wrap) {
  KVBM_CHECK_OK(check(config));
  if (config.runtime.nixl.kind != NixlOptions::Kind::Disabled) {
    return nixl_is_absent("runtime.nixl");
  }
  ManagerCorePtr core(new ManagerCore);
  core->runtime = config.runtime;
  core->block_size = config.model.page_size;
  KVBM_TRY(core->events, make_dispatcher(config.event_manager));
  KVBM_CHECK_OK(build_pools(*core, config, metadata));

  const std::size_t block_bytes = core->device->set()->config.block_bytes();
  const EngineOptions options{
      .blocks_per_transfer =
          std::clamp(kTransferBytes / block_bytes, std::size_t{1}, kMaxBlocksPerTransfer),
      .offload_queue_blocks = config.runtime.offload_queue_blocks};
  KVBM_TRY(auto executor, build_executor(config.runtime, wrap));
  KVBM_TRY(core->driver, TierDriver::create(movable(*core), options, std::move(executor)));
  for (TierPool* pool : {core->device.get(), core->host.get()}) {
    if (!pool) continue;
    pool->set_listener([driver = core->driver.get()](Tier tier, std::vector<OffloadOffer> offers) {
      driver->registered(tier, std::move(offers));
    });
  }
  if (config.runtime.cancellation_token.stop_possible()) {
    core->closer.emplace(config.runtime.cancellation_token, [raw = core.get()] { raw->close(); });
  }
  return core;
}

void ManagerCore::close() {
  for (TierPool* pool : {device.get(), host.get(), disk.get()}) {
    if (pool) pool->close();
  }
  if (driver) driver->close();
  if (events) events->close(std::chrono::seconds(1));
}

ManagerCore::~ManagerCore() {
  closer.reset();
  close();
}

}  // namespace kvbm::detail
