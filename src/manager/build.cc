// How a manager is built from its configuration, and taken down.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#include "manager/advice.h"
#include "manager/manager_core.h"
#include "manager/options.h"
#include "physical/transfer/cuda_executor.h"
#include "physical/transfer/file_executor.h"
#include "physical/transfer/routed_executor.h"
#include "physical/transfer/thread_executor.h"
#include "remote/pull_executor.h"
#include "tiers/disk_tier.h"

namespace kvbm::detail {
namespace {

// Every file system's direct I/O is content with it, and so are pages.
constexpr std::size_t kOffDeviceAlignment = 4096;
// Enough to keep a disk busy per I/O thread, little enough that a request of a few blocks still
// spreads over all threads.
constexpr std::size_t kTransferBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxBlocksPerTransfer = 32;
// A device copies 50 times as fast as a disk reads, and each transfer costs it some 10 us.
constexpr std::size_t kCudaTransferBytes = std::size_t{8} << 20;

// Of host memory, where there is no host tier: blocks on their way between device and disk.
constexpr std::size_t kTransitBytes = std::size_t{64} << 20;
constexpr std::size_t kLeastTransitBlocks = 32;
constexpr std::size_t kMostTransitBlocks = 4096;

template <class S>
Result<std::vector<std::shared_ptr<Memory>>> memories_of(const KvManagerLayoutConfig<S>& layout,
                                                         std::size_t count, std::size_t bytes) {
  std::vector<std::shared_ptr<Memory>> memories;
  for (const S& storage : layout.storage) memories.push_back(storage.memory());
  if (layout.allocator) {
    for (std::size_t i = 0; i < count; ++i) {
      KVBM_TRY(S storage, layout.allocator->allocate(bytes));
      memories.push_back(storage.memory());
    }
  }
  return memories;
}

// An engine's own tensors, which must be what the rest of the configuration says.
Result<std::shared_ptr<const Layout>> engine_layout(const KvTensors& tensors,
                                                    const LayoutConfig& shape) {
  KVBM_TRY(auto layout, Layout::from_tensors(tensors));
  const LayoutConfig& found = layout->config();
  const struct {
    const char* name;
    std::size_t configured;
    std::size_t found;
  } fields[] = {{"device_layout.num_blocks", shape.num_blocks, found.num_blocks},
                {"model.num_layers", shape.num_layers, found.num_layers},
                {"model.page_size", shape.page_size,
                 found.page_size == 0 ? shape.page_size : found.page_size}};
  for (const auto& field : fields) {
    if (field.configured == field.found) continue;
    return Error{ErrorCode::InvalidConfig, 0, field.configured, field.found,
                 std::string(field.name) + " is " + std::to_string(field.configured) +
                     ", but the tensors have " + std::to_string(field.found)};
  }
  return layout;
}

// Where the blocks of a tier lie. `content` is what blocks hold: null in the device tier, which
// decides it.
template <class S>
Result<std::shared_ptr<const Layout>> build_layout(
    const KvManagerLayoutConfig<S>& layout, const LayoutConfig& shape,
    const std::shared_ptr<const BlockContent>& content) {
  if (layout.tensors) return engine_layout(*layout.tensors, shape);
  if (!content) {
    KVBM_CHECK_OK(shape.validate());
    KVBM_TRY(const std::size_t bytes, shape.storage_bytes(layout.layout_type));
    KVBM_TRY(auto memories, memories_of(layout, shape.storage_count(layout.layout_type), bytes));
    return Layout::create(layout.layout_type, shape, std::move(memories));
  }
  KVBM_TRY(const std::size_t bytes,
           Layout::contiguous_bytes(*content, shape.num_blocks, shape.alignment));
  KVBM_TRY(auto memories, memories_of(layout, 1, bytes));
  if (memories.size() != 1) {
    return Error{ErrorCode::InvalidConfig, 0, memories.size(), 1,
                 "wrong number of storages for this layout"};
  }
  return Layout::contiguous(content, shape, std::move(memories.front()));
}

template <class S>
Result<std::shared_ptr<BlockSet>> build_blocks(Tier tier, const KvManagerLayoutConfig<S>& layout,
                                               const LayoutConfig& shape,
                                               const std::shared_ptr<const BlockContent>& content) {
  if (layout.logical) return make_logical_set(tier, shape);
  auto built = build_layout(layout, shape, content);
  if (!built) {
    Error error = std::move(built).error();
    error.message = std::string(to_string(tier)) + " tier: " + error.message;
    return error;
  }
  LayoutConfig told = shape;
  if (layout.tensors) {
    told = (*built)->config();
    told.page_size = shape.page_size;
  }
  return make_block_set(tier, std::move(*built), told);
}

// What a block of this manager is, for a store to be sure of.
store::StoreShape store_shape(const KvBlockManagerConfig& config, const BlockContent& content) {
  store::StoreShape shape{.model = config.model.name,
                          .layout = content.description(),
                          .layout_digest = content.digest(),
                          .region_bytes = {},
                          .page_size = static_cast<std::uint32_t>(config.model.page_size),
                          .hash_profile = config.model.hash_profile,
                          .key_fingerprint = config.runtime.digest_key.fingerprint(),
                          .num_slots = static_cast<std::uint32_t>(config.disk_layout->num_blocks),
                          .keeps_tokens = config.disk_layout->store->keep_tokens};
  for (const ContentRegion& region : content.regions()) {
    shape.region_bytes.push_back(static_cast<std::uint32_t>(region.bytes));
  }
  return shape;
}

DiskTier::Log log_of(const KvBlockManagerConfig& config) {
  if (config.runtime.log) return config.runtime.log;
  return [](const std::string& line) { std::fprintf(stderr, "kvbm: %s\n", line.c_str()); };
}

bool keeps_tokens(const KvBlockManagerConfig& config) {
  return config.disk_layout && config.disk_layout->store && config.disk_layout->store->keep_tokens;
}

// The store of the disk tier, if it is to survive; the layout then lies in the store's file.
Result<std::shared_ptr<DiskTier>> open_store(const KvBlockManagerConfig& config,
                                             const ManagerCore& core) {
  const auto& store = config.disk_layout->store;
  if (!store || !core.device->layout()) return std::shared_ptr<DiskTier>();
  return DiskTier::open(*store, store_shape(config, *core.device->layout()->content()),
                        log_of(config));
}

// `start_empty`: its blocks come later, from the store's file, or never.
template <class S>
Result<std::shared_ptr<TierPool>> build_pool(Tier tier, const KvBlockManagerConfig& config,
                                             const KvManagerLayoutConfig<S>& layout,
                                             const MetadataTable* metadata, const ManagerCore& core,
                                             bool start_empty = false) {
  LayoutConfig shape{.num_blocks = layout.num_blocks,
                     .num_layers = config.model.num_layers,
                     .outer_dim = config.model.outer_dim,
                     .page_size = config.model.page_size,
                     .inner_dim = config.model.inner_dim,
                     .dtype = config.model.dtype};
  std::shared_ptr<const BlockContent> content;
  if (core.device) {  // it is built first, and decides what a block is
    shape = core.device->set()->config;
    if (core.device->layout()) content = core.device->layout()->content();
  }
  shape.num_blocks = layout.num_blocks;  // not the device tier's
  shape.alignment = tier == Tier::Device ? 1 : kOffDeviceAlignment;
  KVBM_TRY(auto set, build_blocks(tier, layout, shape, content));
  if (tier != Tier::Disk && set->layout && keeps_tokens(config)) {  // on disk the store has them
    set->tokens.emplace(layout.num_blocks * config.model.page_size);
  }
  const bool grows = tier == Tier::Host && set->layout;  // with its memory: see HostFiller
  return TierPool::create(std::move(set), {.duplicates = layout.duplicates,
                                           .eviction = layout.eviction,
                                           .start_empty = start_empty,
                                           .ready_blocks = grows ? 0 : ~std::size_t{0},
                                           .metadata = metadata,
                                           .events = core.events,
                                           .metrics_registry = config.runtime.metrics_registry});
}

bool is_cuda(const TierPool& pool) {
  return pool.layout() && pool.layout()->memory(0).type().kind == StorageType::Kind::Device;
}

Result<std::shared_ptr<const cuda::Device>> cuda_device(const TierPool& pool) {
  return cuda::Device::open(static_cast<std::uint32_t>(pool.layout()->memory(0).type().id));
}

// Registers the host tier's pages with the device as they come; nothing where there is no device.
// Pages that cannot be registered are copied too, only slower, so that a refusal of the first ones
// is no reason to give up. Later ones must be like the first.
Result<HostFiller::Prepare> registration(const ManagerCore& core) {
  if (!is_cuda(*core.device)) return HostFiller::Prepare();
  KVBM_TRY(auto device, cuda_device(*core.device));
  const auto memory = core.host->layout()->memories().front();
  return HostFiller::Prepare(
      [device, memory, refused = false](std::span<std::byte> piece) mutable -> Result<void> {
        if (refused) return {};
        auto registered = memory->register_with(device, piece);
        refused = !registered && !memory->is_registered();
        return refused ? Result<void>() : std::move(registered);
      });
}

// The tiers between which this process can move bytes.
TierPools movable(const ManagerCore& core) {
  TierPools pools{core.device.get(), nullptr, nullptr};
  if (!core.device->layout()) return pools;
  if (core.host && core.host->layout()) pools.host = core.host.get();
  if (pools.host && core.disk && core.disk->layout()) pools.disk = core.disk.get();
  return pools;
}

// The host tier; without one, the blocks that are on their way between device and disk.
std::optional<KvManagerLayoutConfig<PinnedStorage>> host_layout(const KvBlockManagerConfig& config,
                                                                const ManagerCore& core) {
  if (!core.host_is_transit) return config.host_layout;
  const std::size_t blocks = kTransitBytes / core.device->set()->block_bytes();
  return KvManagerLayoutConfig<PinnedStorage>{
      .num_blocks = std::clamp(blocks, kLeastTransitBlocks, kMostTransitBlocks),
      .allocator = std::make_shared<PinnedAllocator>()};
}

Result<void> build_pools(ManagerCore& core, const KvBlockManagerConfig& config,
                         const MetadataTable* metadata) {
  KVBM_TRY(core.device,
           build_pool(Tier::Device, config, *config.device_layout, metadata, core, core.external));
  if (const auto host = host_layout(config, core)) {
    KVBM_TRY(core.host, build_pool(Tier::Host, config, *host, metadata, core));
  }
  if (core.host && core.host->layout()) {
    KVBM_TRY(auto prepare, registration(core));
    const std::size_t unit = prepare ? cuda::HostRegistration::kPieceBytes : 1;
    KVBM_TRY(core.host_filler, HostFiller::start(*core.host, unit, std::move(prepare)));
  }
  if (!config.disk_layout) return {};
  KVBM_TRY(auto store, open_store(config, core));
  if (!store) {
    KVBM_TRY(core.disk, build_pool(Tier::Disk, config, *config.disk_layout, metadata, core));
    return {};
  }
  auto layout = *config.disk_layout;
  layout.storage = {DiskStorage(store->memory())};
  KVBM_TRY(core.disk, build_pool(Tier::Disk, config, layout, metadata, core, true));
  if (keeps_tokens(config)) store->keep_tokens_of(core.host->set());
  DiskTier& disk = *store;
  KVBM_CHECK_OK(core.disk->survive(std::move(store)));
  if (config.runtime.metrics_registry) disk.publish_to(*config.runtime.metrics_registry);
  return {};
}

// How transfers are made: by whom, and a line for people per kind of transfer.
struct Transfers {
  std::unique_ptr<TransferExecutor> executor;
  std::vector<std::string> paths;
};

// The file of the disk tier, if it is one that the kernel can be asked to read; null otherwise.
File* kernel_file(const ManagerCore& core) {
  if (!core.disk || !core.disk->layout()) return nullptr;
  File* const file = core.disk->layout()->memory(0).file();
  return file && file->descriptor() >= 0 ? file : nullptr;
}

// Threads of the caller's do everything, since it asked for no others. Otherwise files get an
// executor of their own where io_uring serves them.
Result<Transfers> build_host_transfers(const KvManagerRuntimeConfig& runtime, File* file) {
  Transfers transfers;
  if (runtime.async_runtime) {
    transfers.executor = std::make_unique<SharedExecutor>(
        [shared = runtime.async_runtime](std::function<void()> task) {
          shared->post(std::move(task));
        });
    transfers.paths = {"memory and files: the shared executor"};
    return transfers;
  }
  KVBM_TRY(transfers.executor, ThreadExecutor::create(runtime.transfer_threads));
  const std::string threads = std::to_string(runtime.transfer_threads) + " transfer threads";
  transfers.paths = {"memory: " + threads};
  if (!file) return transfers;
  auto files = FileExecutor::create(
      [file] { return create_probed_uring_queue(FileExecutor::kDepth, *file); });
  if (files) {
    transfers.paths.push_back("files: " + (*files)->description());
    transfers.executor =
        std::make_unique<RoutedExecutor>(std::move(transfers.executor), std::move(*files));
  } else {
    transfers.paths.push_back("files: " + threads + " (" + files.error().to_string() + ")");
  }
  return transfers;
}

// The host's executor copies what lies in no CUDA memory.
Result<Transfers> build_transfers(const ManagerCore& core) {
  KVBM_TRY(Transfers transfers, build_host_transfers(core.runtime, kernel_file(core)));
  if (!is_cuda(*core.device) || !core.host || !core.host->layout()) return transfers;
  KVBM_TRY(auto device, cuda_device(*core.device));
  KVBM_TRY(auto executor, CudaExecutor::create(device, {.threads = core.runtime.transfer_threads},
                                               std::move(transfers.executor)));
  const bool registered = core.host->layout()->memory(0).is_registered();
  transfers.paths.push_back("CUDA: " + device->name() + ", " + executor->table().description() +
                            (registered ? "" : ", host memory not registered"));
  transfers.executor = std::move(executor);
  return transfers;
}

// Of a disk tier that nobody uses yet; nothing where it cannot be told, or nobody would compare it.
std::optional<double> disk_speed(const ManagerCore& core) {
  File* const file = kernel_file(core);
  if (!file || core.runtime.prefill_tokens_per_second == 0) return std::nullopt;
  auto queue = create_probed_uring_queue(FileExecutor::kDepth, *file);
  if (!queue) return std::nullopt;
  return measure_reads(*file, **queue,
                       core.disk->store().stats().registered * core.disk->layout()->block_stride());
}

// All but its epoch.
RankInfo rank_info(const KvBlockManagerConfig& config) {
  return {.worker_id = config.runtime.worker_id,
          .key_fingerprint = config.runtime.digest_key.fingerprint(),
          .block_size = static_cast<std::uint32_t>(config.model.page_size),
          .model = config.model.name,
          .hash_profile = config.model.hash_profile};
}

// An error of something that an option, and its value, asks for.
Error named(const std::string& option, Error error) {
  error.message = option + ": " + error.message;
  return error;
}

// Connects to the workers whose blocks may be loaded here, and has them loaded.
Result<void> meet_peers(ManagerCore& core, const KvBlockManagerConfig& config,
                        Transfers& transfers) {
  TierPool* const tiers[] = {core.host.get()};
  KVBM_TRY(core.own_worker, OwnWorker::create(rank_info(config), tiers));
  const SharingConfig& sharing = config.runtime.sharing;
  if (sharing.peers.empty()) return {};
  auto peers = remote::Peers::create(
      *core.own_worker, {.addresses = sharing.peers,
                         .secret = sharing.secret,
                         .on_change = [log = log_of(config)](const PeerHealth& health) {
                           log("peer " + health.address + " is " + to_string(health.state) +
                               (health.reason.empty() ? "" : ": " + health.reason));
                         }});
  if (!peers) return named("runtime.sharing.peers", std::move(peers).error());
  core.peers = std::move(*peers);
  KVBM_TRY(auto pulls, remote::PullExecutor::create(*core.peers, core.host->layout(), {}));
  transfers.executor =
      std::make_unique<RoutedExecutor>(std::move(transfers.executor), nullptr, std::move(pulls));
  transfers.paths.push_back("peers: from " + std::to_string(sharing.peers.size()) +
                            " workers, out of their memory or over TCP");
  return {};
}

Result<void> serve_peers(ManagerCore& core, const KvBlockManagerConfig& config) {
  core.sharing = std::make_unique<TierSharing>(*core.driver, *core.own_worker);
  const SharingConfig& sharing = config.runtime.sharing;
  auto server = remote::PeerServer::start(*core.sharing,
                                          {.listen = sharing.listen, .secret = sharing.secret});
  if (!server) return named("runtime.sharing.listen " + sharing.listen, std::move(server).error());
  core.peer_server = std::move(*server);
  core.own_worker->set_address(core.peer_server->address());
  return {};
}

Result<void> serve_leaders(ManagerCore& core, const KvBlockManagerConfig& config) {
  core.plan_service = std::make_unique<TierPlanService>(*core.driver, rank_info(config));
  auto server =
      leader::RankServer::start(*core.plan_service, {.socket = config.runtime.leader_socket});
  if (!server) {
    return named("runtime.leader_socket " + config.runtime.leader_socket,
                 std::move(server).error());
  }
  core.rank_server = std::move(*server);
  return {};
}

}  // namespace

EngineOptions engine_options(const KvBlockManagerConfig& config, std::size_t block_bytes,
                             bool has_cuda_device) {
  const std::size_t transfer_bytes = has_cuda_device ? kCudaTransferBytes : kTransferBytes;
  return {.blocks_per_transfer =
              std::clamp(transfer_bytes / block_bytes, std::size_t{1}, kMaxBlocksPerTransfer),
          .offload_queue_blocks = config.runtime.offload_queue_blocks,
          .device_offload = config.device_layout->offload,
          .host_offload = config.host_layout ? config.host_layout->offload : OffloadPolicy{},
          .disk_bytes_per_day = config.disk_layout && config.disk_layout->store
                                    ? write_budget(*config.disk_layout->store)
                                    : 0,
          .host_is_transit = config.disk_layout && !config.host_layout,
          .deterministic = config.runtime.deterministic};
}

Result<ManagerCorePtr> build_manager(const KvBlockManagerConfig& config,
                                     const MetadataTable* metadata, const WrapExecutor& wrap) {
  KVBM_CHECK_OK(check(config));
  ManagerCorePtr core(new ManagerCore);
  if (config.runtime.nixl.kind != NixlOptions::Kind::Disabled) {
    KVBM_TRY(core->nixl, NixlRuntime::create(config.runtime.nixl, config.runtime.worker_id,
                                             [](nixl::Agent&, auto) {}));
  }
  core->runtime = config.runtime;
  core->block_size = config.model.page_size;
  core->external = config.device_layout->external;
  core->host_is_transit = config.disk_layout && !config.host_layout;
  core->device_rule = config.device_layout->offload.admission.rule;
  if (config.host_layout) core->host_rule = config.host_layout->offload.admission.rule;
  KVBM_TRY(core->events, make_dispatcher(config.event_manager));
  KVBM_CHECK_OK(build_pools(*core, config, metadata));

  const auto disk_bytes_per_second = disk_speed(*core);
  const std::size_t block_bytes = core->device->set()->block_bytes();
  const EngineOptions options = engine_options(config, block_bytes, is_cuda(*core->device));
  KVBM_TRY(auto transfers, build_transfers(*core));
  core->transfer_paths = std::move(transfers.paths);
  if (core->disk && core->disk->layout()) {
    core->transfer_paths.push_back("disk: " + core->disk->layout()->memory(0).description());
  }
  if (core->nixl) core->transfer_paths.push_back(core->nixl->description());
  if (config.runtime.sharing.is_set()) {
    KVBM_CHECK_OK(meet_peers(*core, config, transfers));
  }
  if (wrap) transfers.executor = wrap(std::move(transfers.executor));
  KVBM_TRY(core->driver,
           TierDriver::create(movable(*core), options, std::move(transfers.executor)));
  for (TierPool* pool : {core->device.get(), core->host.get()}) {
    if (!pool) continue;
    pool->set_listener([driver = core->driver.get()](Tier tier, std::vector<OffloadOffer> offers) {
      driver->offered(tier, std::move(offers));
    });
  }
  if (!config.runtime.leader_socket.empty()) KVBM_CHECK_OK(serve_leaders(*core, config));
  if (!config.runtime.sharing.listen.empty()) KVBM_CHECK_OK(serve_peers(*core, config));
  if (config.runtime.cancellation_token.stop_possible()) {
    core->closer.emplace(config.runtime.cancellation_token, [raw = core.get()] { raw->close(); });
  }
  for (const std::string& line : advice(config, block_bytes, disk_bytes_per_second)) {
    log_of(config)(line);
  }
  return core;
}

void ManagerCore::close() {
  if (rank_server) rank_server->stop();
  if (peer_server) peer_server->stop();
  if (peers) peers->stop();
  if (host_filler) host_filler->stop();
  for (TierPool* pool : {device.get(), host.get(), disk.get()}) {
    if (pool) pool->close();
  }
  if (driver) driver->close();
  if (disk && disk->disk()) disk->disk()->close();
  if (events) events->close(std::chrono::seconds(1));
}

ManagerCore::~ManagerCore() {
  closer.reset();
  close();
}

}  // namespace kvbm::detail
