#include "kvbm/manager.h"

#include <algorithm>
#include <string>
#include <utility>

#include "manager/manager_core.h"
#include "physical/transfer/thread_executor.h"
#include "tiers/lookup.h"

namespace kvbm {
namespace detail {
namespace {

constexpr std::size_t kMaxTransferThreads = 64;
// Every file system's direct I/O is content with it, and so are pages.
constexpr std::size_t kOffDeviceAlignment = 4096;
// Enough to keep a disk busy per I/O thread, little enough that a request of a few blocks still
// spreads over all threads.
constexpr std::size_t kTransferBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxBlocksPerTransfer = 32;

Error invalid(std::string message, std::size_t value = 0, std::size_t limit = 0) {
  return Error{ErrorCode::InvalidConfig, 0, value, limit, std::move(message)};
}

Result<void> validate(const KvBlockManagerConfig& config) {
  if (!config.device_layout) return invalid("device_layout is required");
  if (config.disk_layout && !config.host_layout) {
    return invalid("disk_layout needs a host_layout: blocks reach the disk through host memory");
  }
  const std::size_t threads = config.runtime.transfer_threads;
  if (threads < 1 || threads > kMaxTransferThreads) {
    return invalid("transfer_threads must be 1 .. 64", threads, kMaxTransferThreads);
  }
  if (config.runtime.offload_queue_blocks == 0) {
    return invalid("offload_queue_blocks must be at least 1");
  }
  return {};
}

template <class S>
Result<Layout::Memories> allocate_tier(const KvManagerLayoutConfig<S>& layout,
                                       const LayoutConfig& config) {
  KVBM_CHECK_OK(config.validate());
  KVBM_TRY(const std::size_t bytes, config.storage_bytes(layout.layout_type));
  Layout::Memories memories;
  for (std::size_t i = 0; i < config.storage_count(layout.layout_type); ++i) {
    KVBM_TRY(S storage, layout.allocator->allocate(bytes));
    memories.push_back(storage.memory());
  }
  return memories;
}

template <class S>
Result<std::unique_ptr<TierPool>> build_pool(Tier tier, const KvManagerModelConfig& model,
                                             const KvManagerLayoutConfig<S>& layout) {
  const std::string name = to_string(tier);
  if (!layout.allocator) return invalid(name + "_layout.allocator is required");
  if (tier != Tier::Device && layout.layout_type != LayoutType::FullyContiguous) {
    return invalid(name +
                   "_layout.layout_type must be FullyContiguous: a block is one extent there");
  }
  const LayoutConfig config{.num_blocks = layout.num_blocks,
                            .num_layers = model.num_layers,
                            .outer_dim = model.outer_dim,
                            .page_size = model.page_size,
                            .inner_dim = model.inner_dim,
                            .dtype = model.dtype,
                            .alignment = tier == Tier::Device ? 1 : kOffDeviceAlignment};
  auto memories = allocate_tier(layout, config);
  if (!memories) {
    Error error = std::move(memories).error();
    error.message = name + " tier: " + error.message;
    return error;
  }
  KVBM_TRY(auto made, Layout::create(layout.layout_type, config, std::move(*memories)));
  return TierPool::create(tier, std::move(made));
}

Result<std::unique_ptr<ManagerCore>> build_core(const KvBlockManagerConfig& config,
                                                const WrapExecutor& wrap) {
  KVBM_CHECK_OK(validate(config));
  auto core = std::make_unique<ManagerCore>();
  core->runtime = config.runtime;
  core->block_size = config.model.page_size;
  KVBM_TRY(core->device_pool, build_pool(Tier::Device, config.model, *config.device_layout));
  core->device.emplace(core->device_pool.get());
  if (config.host_layout) {
    KVBM_TRY(core->host_pool, build_pool(Tier::Host, config.model, *config.host_layout));
    core->host.emplace(core->host_pool.get());
  }
  if (config.disk_layout) {
    KVBM_TRY(core->disk_pool, build_pool(Tier::Disk, config.model, *config.disk_layout));
    core->disk.emplace(core->disk_pool.get());
  }

  const TierPools pools{core->device_pool.get(), core->host_pool.get(), core->disk_pool.get()};
  const std::size_t block_bytes = pools.device->layout()->config().block_bytes();
  const EngineOptions options{
      .blocks_per_transfer =
          std::clamp(kTransferBytes / block_bytes, std::size_t{1}, kMaxBlocksPerTransfer),
      .offload_queue_blocks = config.runtime.offload_queue_blocks};
  KVBM_TRY(std::unique_ptr<TransferExecutor> executor,
           ThreadExecutor::create(config.runtime.transfer_threads));
  if (wrap) executor = wrap(std::move(executor));
  KVBM_TRY(core->driver, TierDriver::create(pools, options, std::move(executor)));

  for (TierPool* pool : {pools.device, pools.host, pools.disk}) {
    if (!pool) continue;
    pool->set_listener([driver = core->driver.get()](Tier tier, std::vector<SequenceHash> hashes) {
      driver->registered(tier, std::move(hashes));
    });
  }
  return core;
}

}  // namespace

Result<KvBlockManager> ManagerAccess::create(const KvBlockManagerConfig& config,
                                             const WrapExecutor& wrap) {
  KVBM_TRY(auto core, build_core(config, wrap));
  return KvBlockManager(std::move(core));
}

namespace {

// A timeout that no clock can hold means for ever, or as good as.
TimePoint deadline_after(std::chrono::nanoseconds timeout) {
  constexpr std::chrono::hours kForEver{24 * 365};
  return std::chrono::steady_clock::now() + std::min<std::chrono::nanoseconds>(timeout, kForEver);
}

// A lookup taken apart: blocks that the device has, and items that must be moved for the others.
struct OnboardWork {
  std::vector<ImmutableHold> held;  // one per block; empty where an item stands for it
  std::vector<OnboardItem> items;
};

Result<OnboardWork> take_apart(LookupCore& lookup, BlockStore& device) {
  const std::size_t missing = lookup.size() - lookup.count(Tier::Device);
  KVBM_TRY(auto targets, allocate(device, missing));
  OnboardWork work;
  work.held.reserve(lookup.size());
  auto target = targets.begin();
  for (LookupSegment& segment : lookup.segments) {
    std::vector<ImmutableHold> blocks = split(segment.run);
    blocks.resize(segment.count);
    for (ImmutableHold& block : blocks) {
      if (segment.tier == Tier::Device) {
        work.held.push_back(std::move(block));
      } else {
        work.held.emplace_back();
        work.items.push_back({std::move(block), segment.tier, std::move(*target++)});
      }
    }
  }
  return work;
}

OnboardResult put_together(std::vector<ImmutableHold> held,
                           std::vector<Result<ImmutableHold>> loaded) {
  OnboardResult result;
  result.blocks.reserve(held.size());
  auto next = loaded.begin();
  for (ImmutableHold& hold : held) {
    if (hold) {
      result.blocks.push_back(ImmutableBlock<DeviceStorage>(std::move(hold)));
    } else if (*next) {
      result.blocks.push_back(ImmutableBlock<DeviceStorage>(std::move(**next++)));
    } else {
      result.blocks.push_back(std::move(*next++).error());
    }
  }
  return result;
}

}  // namespace
}  // namespace detail

Result<KvBlockManager> KvBlockManager::create(const KvBlockManagerConfig& config) {
  return detail::ManagerAccess::create(config, {});
}

KvBlockManager::KvBlockManager(std::unique_ptr<detail::ManagerCore> core)
    : core_(std::move(core)) {}
KvBlockManager::KvBlockManager(KvBlockManager&&) noexcept = default;
KvBlockManager& KvBlockManager::operator=(KvBlockManager&&) noexcept = default;
KvBlockManager::~KvBlockManager() = default;

std::size_t KvBlockManager::block_size() const noexcept { return core_->block_size; }
WorkerID KvBlockManager::worker_id() const noexcept { return core_->runtime.worker_id; }

BlockPool<DeviceStorage>* KvBlockManager::device() noexcept { return &*core_->device; }
BlockPool<PinnedStorage>* KvBlockManager::host() noexcept {
  return core_->host ? &*core_->host : nullptr;
}
BlockPool<DiskStorage>* KvBlockManager::disk() noexcept {
  return core_->disk ? &*core_->disk : nullptr;
}

Lookup KvBlockManager::lookup(std::span<const SequenceHash> hashes) {
  return Lookup(
      std::make_unique<detail::LookupCore>(detail::lookup_tiers(core_->driver->pools(), hashes)));
}

Result<Completion<OnboardResult>> KvBlockManager::onboard(Lookup lookup, OnboardOptions options) {
  if (core_->driver->closed()) return Error{ErrorCode::ProgressEngineShutdown, 0, 0, 0, {}};
  if (!lookup.core_) return Completion<OnboardResult>(OnboardResult{});
  KVBM_TRY(auto work, detail::take_apart(*lookup.core_, core_->device_pool->store()));
  if (work.items.empty()) {
    return Completion<OnboardResult>(detail::put_together(std::move(work.held), {}));
  }

  auto state = std::make_shared<detail::CompletionState<OnboardResult>>();
  auto held = std::make_shared<std::vector<detail::ImmutableHold>>(std::move(work.held));
  const detail::RequestId id = core_->driver->onboard(
      std::move(work.items), detail::deadline_after(options.timeout), [state, held](auto loaded) {
        state->finish(detail::put_together(std::move(*held), std::move(loaded)));
      });

  state->cancel = [driver = std::weak_ptr(core_->driver), id] {
    if (const auto alive = driver.lock()) alive->cancel(id);
  };
  if (options.stop.stop_possible()) {
    state->attachment = std::make_shared<std::stop_callback<std::function<void()>>>(
        std::move(options.stop), state->cancel);
  }
  return Completion<OnboardResult>(std::move(state));
}

bool KvBlockManager::drain(std::chrono::nanoseconds timeout) {
  return core_->driver->drain(detail::deadline_after(timeout));
}

TransferStats KvBlockManager::transfer_stats() const { return core_->driver->stats(); }

void KvBlockManager::close() { core_->driver->close(); }

}  // namespace kvbm
