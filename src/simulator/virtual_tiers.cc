#include "simulator/virtual_tiers.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace kvbm::simulator {

using detail::BlockSet;
using detail::Command;
using detail::Event;
using detail::FinishRequest;
using detail::RequestId;
using detail::StartTransfer;
using detail::TierPool;

namespace {

constexpr std::size_t kExtent = 4096;

// Moves blocks when the clock says so, on the caller's thread.
class Mover final : public TransferExecutor {
 public:
  void submit(TransferRequest, Done) override { std::abort(); }
  using TransferExecutor::run;
};

}  // namespace

LayoutConfig shape_of(const VirtualConfig& config, Tier tier, std::size_t blocks) {
  return {.num_blocks = blocks,
          .num_layers = config.layers,
          .outer_dim = kOuterDim,
          .page_size = kPageSize,
          .inner_dim = config.region_bytes / kPageSize,
          .dtype = DType::U8,
          .alignment = tier == Tier::Disk && config.files ? kExtent : std::size_t{1}};
}

VirtualTiers::VirtualTiers(const VirtualConfig& config) : config_(config), now_(config.start) {}

VirtualTiers::~VirtualTiers() {
  for (auto& [time, running] : running_) {
    if (running.command.edge != Edge::HostToDisk || !disk_->disk()) continue;
    // The record of a block is gone before its first byte is overwritten.
    for (std::size_t i = 0; i < running.command.blocks.size(); i += 2) {
      if (disk_->disk()->before_write(running.command.blocks[i])) damage(running, i, false);
    }
  }
}

Result<std::unique_ptr<VirtualTiers>> VirtualTiers::create(const VirtualConfig& config) {
  std::unique_ptr<VirtualTiers> tiers(new VirtualTiers(config));
  KVBM_CHECK_OK(tiers->build());
  return tiers;
}

Result<std::shared_ptr<TierPool>> VirtualTiers::build_pool(Tier tier, std::size_t blocks,
                                                           EvictionPolicy policy) {
  const LayoutConfig shape = shape_of(config_, tier, blocks);
  const LayoutType type =
      tier == Tier::Device ? LayoutType::LayerSeparateBlockContiguous : LayoutType::FullyContiguous;
  KVBM_TRY(const std::size_t bytes, shape.storage_bytes(type));
  Layout::Memories memories;
  for (std::size_t i = 0; i < shape.storage_count(type); ++i) {
    if (tier == Tier::Disk) {
      memories.push_back(std::make_shared<detail::Memory>(std::make_shared<FakeFile>(bytes)));
    } else {
      KVBM_TRY(auto storage, SystemAllocator().allocate(bytes));
      memories.push_back(storage.memory());
    }
  }
  KVBM_TRY(auto layout, Layout::create(type, shape, std::move(memories)));
  return TierPool::create(detail::make_block_set(tier, std::move(layout), shape),
                          {.eviction = policy,
                           .start_empty = tier == Tier::Device && config_.external_device,
                           .events = config_.events,
                           .now = [this] { return now_; }});
}

Result<std::shared_ptr<TierPool>> VirtualTiers::build_store() {
  const auto content = device_->layout()->content();
  store::StoreShape shape{.model = "simulator",
                          .layout = content->description(),
                          .layout_digest = content->digest(),
                          .region_bytes = {},
                          .page_size = kPageSize,
                          .hash_profile = "simulator",
                          .num_slots = static_cast<std::uint32_t>(config_.disk_blocks)};
  for (const ContentRegion& region : content->regions()) {
    shape.region_bytes.push_back(static_cast<std::uint32_t>(region.bytes));
  }
  const store::StoreFiles files{config_.files->manifest, config_.files->index, nullptr,
                                config_.files->blocks};
  KVBM_TRY(auto disk, detail::DiskTier::open({.directory = "simulator"}, shape, files, {},
                                             [this] { return now_; }));
  const LayoutConfig layout = shape_of(config_, Tier::Disk, config_.disk_blocks);
  KVBM_TRY(auto blocks, Layout::contiguous(content, layout, disk->memory()));
  KVBM_TRY(auto pool,
           TierPool::create(
               detail::make_block_set(Tier::Disk, std::move(blocks), layout),
               {.eviction = config_.disk_policy, .start_empty = true, .events = config_.events}));
  KVBM_CHECK_OK(pool->survive(std::move(disk)));
  return pool;
}

Result<void> VirtualTiers::build() {
  KVBM_TRY(device_, build_pool(Tier::Device, config_.device_blocks, config_.device_policy));
  pools_.device = device_.get();
  const auto plan = [this](Edge edge, const TierPool& from, const TierPool& to) -> Result<void> {
    KVBM_TRY(whole_[static_cast<std::size_t>(edge)], CopyPlan::create(from.layout(), to.layout()));
    return {};
  };
  if (config_.host_blocks > 0) {
    KVBM_TRY(host_, build_pool(Tier::Host, config_.host_blocks, config_.host_policy));
    pools_.host = host_.get();
    KVBM_CHECK_OK(plan(Edge::DeviceToHost, *device_, *host_));
    KVBM_CHECK_OK(plan(Edge::HostToDevice, *host_, *device_));
    if (config_.peer) {
      KVBM_TRY(whole_[static_cast<std::size_t>(Edge::PeerToHost)],
               CopyPlan::create(config_.peer->layout(), host_->layout()));
    }
    for (std::size_t layer = 0; layer < config_.layers; ++layer) {
      KVBM_TRY(auto part, CopyPlan::create(host_->layout(), device_->layout(), {layer, 1}));
      by_layer_.push_back(std::move(part));
    }
  }
  if (config_.host_blocks > 0 && config_.disk_blocks > 0) {
    KVBM_TRY(disk_, config_.files
                        ? build_store()
                        : build_pool(Tier::Disk, config_.disk_blocks, config_.disk_policy));
    pools_.disk = disk_.get();
    KVBM_CHECK_OK(plan(Edge::HostToDisk, *host_, *disk_));
    KVBM_CHECK_OK(plan(Edge::DiskToHost, *disk_, *host_));
  }
  engine_ = std::make_unique<detail::TierEngine>(pools_, config_.engine);
  for (TierPool* pool : {pools_.device, pools_.host}) {
    if (!pool) continue;
    pool->set_listener([this](Tier tier, std::vector<detail::OffloadOffer> offers) {
      offered(tier, std::move(offers));
    });
  }
  return {};
}

TierPool* VirtualTiers::pool(Tier tier) const noexcept {
  switch (tier) {
    case Tier::Device: return device_.get();
    case Tier::Host: return host_.get();
    case Tier::Disk: return disk_.get();
    case Tier::Remote: break;
  }
  return nullptr;
}

// --- the engine's events and commands --------------------------------------------------------

RequestId VirtualTiers::start(detail::RequestStarted request, Finished finished,
                              LayersArrived layers_arrived) {
  request.id = next_request_++;
  const RequestId id = request.id;
  waiting_.emplace(id, Waiting{std::move(finished), std::move(layers_arrived), request.deadline});
  step(std::move(request));
  return id;
}

void VirtualTiers::step(Event event) {
  std::vector<Event> events;
  events.push_back(std::move(event));
  for (TierPool* pool : {pools_.device, pools_.host, pools_.disk}) {
    if (pool && pool->store().wants_time()) pool->store().advance(now_);
  }
  carry_out(engine_->step(now_, std::move(events)));
}

void VirtualTiers::carry_out(std::vector<Command> commands) {
  for (Command& command : commands) {
    if (auto* transfer = std::get_if<StartTransfer>(&command)) {
      begin(std::move(*transfer));
    } else if (const auto* layers = std::get_if<detail::LayersArrived>(&command)) {
      const auto waiting = waiting_.find(layers->id);
      if (waiting != waiting_.end() && waiting->second.layers_arrived) {
        waiting->second.layers_arrived(layers->layers);
      }
    } else {
      auto& finish = std::get<FinishRequest>(command);
      const auto waiting = waiting_.extract(finish.id);
      if (!waiting || waiting.mapped().deadline < now_) {
        std::fprintf(stderr, "kvbm: a request ended twice or after its deadline\n");
        std::abort();
      }
      waiting.mapped().finished(std::move(finish.blocks));
    }
  }
}

// A copy begins at once, and its bytes go behind those that are on the same edge.
void VirtualTiers::begin(StartTransfer command) {
  Running running{std::move(command), {}};
  if (make_fault_) running.fault = make_fault_(running.command);
  if (running.command.remote) {
    // The peer tells where they are and what they sum to; when they are read, it may have others.
    const auto& lease = static_cast<const VirtualLease&>(*running.command.remote);
    for (BlockCopy& copy : running.command.blocks) {
      const VirtualLease::Block& block = lease.blocks[copy.source];
      copy = {block.id, copy.target, block.payload_sum};
    }
  }
  if (running.fault.never) return hanging_.push_back(std::move(running));
  const auto edge = static_cast<std::size_t>(running.command.edge);
  const EdgeSpeed& speed = config_.speeds[edge];
  std::chrono::nanoseconds takes{0};
  if (speed.bytes_per_second > 0) {
    const double block = config_.bytes_per_block > 0
                             ? config_.bytes_per_block
                             : static_cast<double>(device_->layout()->content()->bytes());
    const double bytes = block * static_cast<double>(running.command.blocks.size()) /
                         (running.command.layer ? static_cast<double>(config_.layers) : 1.0);
    takes = std::chrono::nanoseconds(std::llround(bytes / speed.bytes_per_second * 1e9));
  }
  edge_free_[edge] = std::max(edge_free_[edge], now_) + takes;
  running_.emplace(edge_free_[edge] + speed.latency + running.fault.delay, std::move(running));
}

std::optional<TimePoint> VirtualTiers::next_time() const {
  std::optional<TimePoint> next = engine_->next_deadline();
  if (const auto expiry = plans_->next_expiry(); expiry && (!next || *expiry < *next)) {
    next = expiry;
  }
  if (!running_.empty() && (!next || running_.begin()->first < *next)) {
    next = running_.begin()->first;
  }
  return next;
}

// Or time would stand still.
void VirtualTiers::require_later(const std::optional<TimePoint>& time, const char* what) const {
  if (!time || *time > now_) return;
  std::fprintf(stderr, "kvbm: %s\n", what);
  std::abort();
}

bool VirtualTiers::advance(TimePoint until) {
  const auto next = next_time();
  if (!next || *next > until) {
    now_ = std::max(now_, until);
    return false;
  }
  now_ = std::max(now_, *next);
  plans_->expire(now_);
  if (config_.peer) config_.peer->expire(now_);
  require_later(plans_->next_expiry(), "a lease that is over has not ended");
  const auto deadline = engine_->next_deadline();
  if (deadline && *deadline <= now_) {
    step(detail::ClockTicked{});
    require_later(engine_->next_deadline(), "what was due has not happened");
  } else if (!running_.empty() && running_.begin()->first <= now_) {
    auto ended = running_.extract(running_.begin());
    end(std::move(ended.mapped()));
  }
  return true;
}

void VirtualTiers::drain() {
  for (auto next = next_time(); !engine_->idle() && next; next = next_time()) advance(*next);
}

std::size_t VirtualTiers::end_hanging() {
  std::vector<Running> hanging = std::exchange(hanging_, {});
  for (Running& running : hanging) end(std::move(running));
  return hanging.size();
}

std::set<Edge> VirtualTiers::moving() const {
  std::set<Edge> edges;
  for (const auto& [time, running] : running_) edges.insert(running.command.edge);
  for (const Running& running : hanging_) edges.insert(running.command.edge);
  return edges;
}

void VirtualTiers::check_invariants() const {
  engine_->check_invariants();
  plans_->check_invariants();
  for (TierPool* pool : {pools_.device, pools_.host, pools_.disk}) {
    if (pool) pool->store().check_invariants();
  }
}

// --- copies ----------------------------------------------------------------------------------

void VirtualTiers::end(Running running) {
  const StartTransfer& command = running.command;
  TransferRequest request{.plan = command.layer ? by_layer_[*command.layer]
                                                : whole_[static_cast<std::size_t>(command.edge)],
                          .blocks = {},
                          .step = command.step};
  const bool with_disk = command.edge == Edge::DiskToHost || command.edge == Edge::HostToDisk;
  if (with_disk) request.journal = disk_->disk();
  TransferResult result;
  result.blocks.reserve(command.blocks.size());
  for (std::size_t i = 0; i < command.blocks.size(); ++i) {
    if (command.cancelled->load(std::memory_order_relaxed)) {
      result.blocks.push_back(Error{ErrorCode::Cancelled, 0, 0, 0, {}});
    } else {
      result.blocks.push_back(move(running, i, request));
    }
  }
  step(detail::TransferEnded{command.id, std::move(result)});
}

Result<TransferToken> VirtualTiers::move(const Running& running, std::size_t block,
                                         const TransferRequest& request) {
  const BlockFault fault =
      running.fault.blocks.empty() ? BlockFault{} : running.fault.blocks[block];
  const BlockCopy& copy = running.command.blocks[block];
  if (!fault.kind) return Mover::run(request, copy);
  if (*fault.kind == FaultKind::WrongBytes) {
    // What is kept goes bad as it is written, or is read wrong once: a block that was verified for
    // a copy layer by layer stays as it is until that has ended.
    const bool at_source =
        running.command.edge != Edge::DeviceToHost && running.command.edge != Edge::HostToDisk;
    if (at_source) damage(running, block, true);
    auto moved = Mover::run(request, copy);
    if (at_source || moved) damage(running, block, at_source);  // a second time undoes the first
    return moved;
  }
  const Error error{ErrorCode::OperationFailed, EIO, 0, 0, "simulated"};
  if (request.step == TransferStep::Verify) return error;
  KVBM_CHECK_OK(journal_begin(request, copy));
  if (*fault.kind == FaultKind::Short) damage(running, block, false);
  KVBM_TRY(const std::uint64_t sum, journal_end(request, copy, error));
  static_cast<void>(sum);
  return error;
}

// Changes some byte of a block, or half of it where a copy stopped in the middle.
void VirtualTiers::damage(const Running& running, std::size_t block, bool source) {
  const Edge edge = running.command.edge;
  const BlockFault fault =
      running.fault.blocks.empty() ? BlockFault{} : running.fault.blocks[block];
  const BlockCopy& copy = running.command.blocks[block];
  const CopyPlan& plan = *whole_[static_cast<std::size_t>(edge)];
  const Layout& layout = source ? plan.source() : plan.target();
  const BlockId id = source ? copy.source : copy.target;
  const std::size_t regions = layout.content()->regions().size();
  const bool half = fault.kind != FaultKind::WrongBytes;
  // What is read wrong must not make good what was written wrong.
  const std::byte turned = source ? std::byte{0x50} : std::byte{0x05};
  const std::size_t first = half ? 0 : fault.random % regions;
  for (std::size_t i = first; i < (half ? (regions + 1) / 2 : first + 1); ++i) {
    const Region region = layout.region(id, i / kOuterDim, i % kOuterDim).value();
    const std::size_t at = half ? 0 : fault.random / regions % region.bytes;
    std::byte* bytes = region.data();
    if (File* const file = region.memory->file()) {
      bytes = static_cast<FakeFile*>(file)->contents().data() + region.offset;
    }
    for (std::size_t b = at; b < (half ? region.bytes : at + 1); ++b) bytes[b] ^= turned;
  }
}

}  // namespace kvbm::simulator
