#include "apps/kvbm/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "apps/kvbm/pattern.h"
#include "apps/kvbm/request_loop.h"
#include "manager/manager_core.h"
#include "simulator/faulty_executor.h"

namespace kvbm::app {
namespace {

constexpr std::size_t kOuterDim = 2;  // K and V
constexpr auto kRequestTimeout = std::chrono::minutes(5);

using simulator::FaultInjector;
using DeviceBlock = ImmutableBlock<DeviceStorage>;

Error bad_option(std::string message) {
  return Error{ErrorCode::InvalidConfig, 0, 0, 0, std::move(message)};
}

Result<void> check_count(const char* option, std::size_t value, std::size_t limit) {
  if (value >= 1 && value <= limit) return {};
  return bad_option(fmt::format("{} must be 1 .. {}, but is {}", option, limit, value));
}

std::size_t inner_dim(const ReplayOptions& options) {
  return options.block_bytes / (options.layers * kOuterDim * kTraceBlockTokens);
}

std::string temporary_directory() {
  const char* named = std::getenv("TMPDIR");
  return named && *named ? named : "/tmp";
}

KvBlockManagerConfig config_of(const ReplayOptions& options) {
  KvBlockManagerConfig config;
  config.runtime = options.runtime;
  config.model = {.num_layers = options.layers,
                  .outer_dim = kOuterDim,
                  .page_size = kTraceBlockTokens,
                  .inner_dim = inner_dim(options),
                  .dtype = DType::INT8,
                  .name = "kvbm replay"};
  config.device_layout = {.num_blocks = options.device_blocks,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>(),
                          .layout_type = options.device_layout};
  config.host_layout = {.num_blocks = options.host_blocks,
                        .allocator = std::make_shared<PinnedAllocator>()};
  config.disk_layout = {.num_blocks = options.disk_blocks};
  if (options.disk_dir) {
    config.disk_layout->store = DiskStoreConfig{.directory = *options.disk_dir};
  } else {
    config.disk_layout->allocator = std::make_shared<DiskAllocator>(temporary_directory());
  }
  return config;
}

// The pools of a manager, in which every byte that a hit returns is compared.
class RealTiers final : public PromptTiers {
 public:
  RealTiers(ReferenceBlockManager manager, const ReplayOptions& options)
      : manager_(std::move(manager)), options_(options) {}

  Result<std::vector<Tier>> load(std::span<const SequenceHash> hashes) override;
  Result<std::size_t> compute(std::span<const TokenBlock> missing) override;
  Result<void> drain() override;
  void release() override {
    computed_.clear();
    hits_.clear();
  }
  Presence presence(SequenceHash hash) const override { return manager_.presence(hash); }

  void tell(ReplayReport& report) const;
  ReferenceBlockManager& manager() { return manager_; }

 private:
  Lookup lookup(std::span<const SequenceHash> hashes);
  bool is_right(const DeviceBlock& block) const;

  ReferenceBlockManager manager_;
  const ReplayOptions& options_;
  std::vector<DeviceBlock> hits_;
  std::vector<DeviceBlock> computed_;
  std::array<std::uint64_t, kTierCount> blocks_verified_{};
  std::uint64_t wrong_blocks_ = 0;
};

// What the device has room for; the rest of a prompt that is too long is not cached.
Lookup RealTiers::lookup(std::span<const SequenceHash> hashes) {
  Lookup found = manager_.lookup(hashes);
  const std::size_t room = manager_.device()->available_blocks();
  while (found.size() - found.count(Tier::Device) > room) found.truncate(found.size() - 1);
  return found;
}

Result<std::vector<Tier>> RealTiers::load(std::span<const SequenceHash> hashes) {
  Lookup found = lookup(hashes);
  std::vector<Tier> tiers;
  for (std::size_t i = 0; i < found.size(); ++i) tiers.push_back(found.tier(i));

  KVBM_TRY(auto completion, manager_.onboard(std::move(found), {.timeout = kRequestTimeout}));
  OnboardResult<> loaded = std::move(completion).get();
  tiers.resize(loaded.valid_prefix());
  for (std::size_t i = 0; i < tiers.size(); ++i) {
    DeviceBlock& block = *loaded.blocks[i];
    if (options_.verify != Verify::Off) {
      ++blocks_verified_[static_cast<std::size_t>(tiers[i])];
      if (!is_right(block)) ++wrong_blocks_;
    }
    hits_.push_back(std::move(block));
  }
  return tiers;
}

// A model's forward pass, as far as a cache can tell: blocks full of bytes that nobody else has.
Result<std::size_t> RealTiers::compute(std::span<const TokenBlock> missing) {
  BlockPool<DeviceStorage>& device = *manager_.device();
  const std::size_t count = std::min(missing.size(), device.available_blocks());
  KVBM_TRY(auto blocks, device.allocate_blocks_blocking(count));
  std::vector<CompleteBlock<DeviceStorage>> computed;
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t layer = 0; layer < options_.layers; ++layer) {
      for (std::size_t outer = 0; outer < kOuterDim; ++outer) {
        KVBM_TRY(const auto view, blocks[i].layer_view_mut(layer, outer));
        fill_pattern(view.bytes(), {missing[i].sequence_hash(), layer, outer});
      }
    }
    KVBM_TRY(auto complete, std::move(blocks[i]).complete(missing[i]));
    computed.push_back(std::move(complete));
  }
  KVBM_TRY(computed_, device.register_blocks_blocking(std::move(computed)));
  return count;
}

bool RealTiers::is_right(const DeviceBlock& block) const {
  const SequenceHash hash = block.sequence_hash();
  const std::size_t regions = options_.layers * kOuterDim;
  const std::size_t sampled = hash.value() % regions;
  for (std::size_t i = 0; i < regions; ++i) {
    if (options_.verify == Verify::Sample && i != sampled) continue;
    const RegionName name{hash, i / kOuterDim, i % kOuterDim};
    if (!has_pattern(block.layer_view(name.layer, name.outer).value().bytes(), name)) return false;
  }
  return true;
}

Result<void> RealTiers::drain() {
  if (manager_.drain(kRequestTimeout)) return {};
  return Error{ErrorCode::TimedOut, 0, 0, 0,
               "offloading made no progress for five minutes; is the disk alive?"};
}

void RealTiers::tell(ReplayReport& report) const {
  report.blocks_verified = blocks_verified_;
  report.wrong_blocks = wrong_blocks_;
  report.transfers = manager_.transfer_stats();
  report.transfer_paths = manager_.transfer_paths();
  for (const EdgeStats& edge : report.transfers.edges) report.failed_transfers += edge.failed;
  report.disk = manager_.disk_stats();
  report.pools = {manager_.device()->stats(), manager_.host()->stats(), manager_.disk()->stats()};
}

ReplaySample sample(const RequestLoop& loop, RealTiers& tiers, std::uint64_t timestamp_ms) {
  ReplaySample sample{loop.requests(), timestamp_ms, loop.prompt_tokens(), loop.hit_tokens(), {}};
  const TransferStats transfers = tiers.manager().transfer_stats();
  for (std::size_t i = 0; i < kEdgeCount; ++i) sample.edge_bytes[i] = transfers.edges[i].bytes;
  return sample;
}

Result<ReferenceBlockManager> create_faulty(const KvBlockManagerConfig& config,
                                            const std::shared_ptr<FaultInjector>& faults) {
  return detail::ManagerAccess::create(config, [&](auto inner) {
    return std::make_unique<simulator::FaultyExecutor>(std::move(inner), faults);
  });
}

}  // namespace

Result<void> validate(const ReplayOptions& options) {
  constexpr std::size_t kMaxBlocks = 0xFFFFFFFE;
  KVBM_CHECK_OK(check_count("--device-blocks", options.device_blocks, kMaxBlocks));
  KVBM_CHECK_OK(check_count("--host-blocks", options.host_blocks, kMaxBlocks));
  KVBM_CHECK_OK(check_count("--disk-blocks", options.disk_blocks, kMaxBlocks));
  KVBM_CHECK_OK(check_count("--layers", options.layers, MAX_NUM_LAYERS));
  const std::size_t unit = options.layers * kOuterDim * kTraceBlockTokens;
  const std::size_t limit = unit * MAX_INNER_DIM;
  if (options.block_bytes == 0 || options.block_bytes % unit != 0 || options.block_bytes > limit) {
    return bad_option(fmt::format(
        "--block-bytes must be a multiple of {} ({} layers x {} x {} tokens), {} .. {}, but is {}",
        unit, options.layers, kOuterDim, kTraceBlockTokens, unit, limit, options.block_bytes));
  }
  if (!(options.fault_rate >= 0 && options.fault_rate <= 1)) {
    return bad_option(fmt::format("--fault-rate must be 0 .. 1, but is {}", options.fault_rate));
  }
  return {};
}

bool ReplayReport::clean() const noexcept {
  if (faults) return wrong_blocks == 0;
  return wrong_blocks == 0 && transfers.checksum_mismatches == 0 && failed_transfers == 0;
}

Result<ReplayReport> replay(const Trace& trace, const ReplayOptions& options,
                            const ReplayHooks& hooks) {
  KVBM_CHECK_OK(validate(options));
  const KvBlockManagerConfig config = config_of(options);
  std::shared_ptr<FaultInjector> faults;
  if (options.fault_rate > 0) {
    faults = std::make_shared<FaultInjector>(
        FaultInjector::Options{.seed = options.seed, .rate = options.fault_rate});
  }
  KVBM_TRY(auto manager, hooks.create_manager ? hooks.create_manager(config)
                         : faults             ? create_faulty(config, faults)
                                              : ReferenceBlockManager::create(config));
  // Hits must depend on the trace and the sizes alone.
  KVBM_CHECK_OK(manager.wait_until_filled(std::chrono::nanoseconds::max()));
  RealTiers tiers(std::move(manager), options);
  RequestLoop loop;
  ReplayReport report;
  const auto begin = std::chrono::steady_clock::now();
  const std::size_t total = trace.requests.size();
  const auto samples_before = [total](std::size_t done) {
    return done * ReplayReport::kMaxSamples / total;
  };
  for (std::size_t i = 0; i < total; ++i) {
    KVBM_CHECK_OK(loop.run(tiers, trace.requests[i]));
    if (samples_before(i + 1) > samples_before(i)) {
      report.samples.push_back(sample(loop, tiers, trace.requests[i].timestamp_ms));
    }
    if (hooks.after_request) hooks.after_request(tiers.manager(), i + 1);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  report.seconds = seconds.count();
  report.requests = loop.requests();
  report.prompt_tokens = loop.prompt_tokens();
  report.hit_tokens = loop.hit_tokens();
  if (faults) report.faults = faults->counts();
  if (options.runtime.deterministic) report.run_digest = loop.run_digest(tiers);
  tiers.tell(report);
  return report;
}

}  // namespace kvbm::app
