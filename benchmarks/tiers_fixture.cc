#include "benchmarks/tiers_fixture.h"

#include <chrono>
#include <cstring>
#include <utility>

namespace kvbm::bench {
namespace {

constexpr std::size_t kTokens = 16;  // of a block
constexpr std::size_t kOuterDim = 2;
constexpr auto kFillTimeout = std::chrono::minutes(1);

KvBlockManagerConfig config_of(const TieredOptions& options) {
  KvBlockManagerConfig config;
  config.runtime.transfer_threads = options.threads;
  config.model = {.num_layers = options.num_layers,
                  .outer_dim = kOuterDim,
                  .page_size = kTokens,
                  .inner_dim = options.block_bytes / options.num_layers / kOuterDim / kTokens,
                  .dtype = DType::INT8};
  config.device_layout = {.num_blocks = options.device_blocks,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>(),
                          .layout_type = LayoutType::LayerSeparateOuterContiguous,
                          .offload = {.mode = OffloadMode::Selective}};
  config.host_layout = {.num_blocks = options.host_blocks,
                        .allocator = std::make_shared<PinnedAllocator>()};
  if (options.disk_blocks > 0) {
    config.disk_layout = {.num_blocks = options.disk_blocks,
                          .allocator = std::make_shared<DiskAllocator>(options.dir)};
  }
  return config;
}

void fill(const Layout& layout) {
  const LayoutConfig& shape = layout.config();
  for (std::size_t block = 0; block < shape.num_blocks; ++block) {
    for (const Fragment& fragment : layout.fragments()) {
      const Region run = layout.place(fragment, static_cast<BlockId>(block));
      for (std::size_t i = 0; i < run.bytes; ++i) run.data()[i] = std::byte(i * 31 >> 3);
    }
  }
}

}  // namespace

Result<std::unique_ptr<Tiered>> Tiered::create(const TieredOptions& options) {
  KVBM_TRY(auto manager, detail::ManagerAccess::create(config_of(options), options.wrap));
  std::unique_ptr<Tiered> tiered(new Tiered(std::move(manager)));
  KVBM_CHECK_OK(tiered->prepare());
  return tiered;
}

Result<void> Tiered::prepare() {
  KVBM_CHECK_OK(manager_.wait_until_filled(kFillTimeout));
  const auto layout_of = [](const auto& pool) {
    return pool ? pool->layout() : std::shared_ptr<const Layout>();
  };
  const auto device = layout_of(core().device);
  const auto host = layout_of(core().host);
  const auto disk = layout_of(core().disk);
  fill(*device);
  fill(*host);
  const auto plan = [this](Edge edge, const auto& from, const auto& to) -> Result<void> {
    if (!from || !to) return {};
    KVBM_TRY(plans_[static_cast<std::size_t>(edge)], CopyPlan::create(from, to));
    return {};
  };
  KVBM_CHECK_OK(plan(Edge::DeviceToHost, device, host));
  KVBM_CHECK_OK(plan(Edge::HostToDevice, host, device));
  KVBM_CHECK_OK(plan(Edge::HostToDisk, host, disk));
  return plan(Edge::DiskToHost, disk, host);
}

void Tiered::onboard(std::span<const SequenceHash> hashes, const OnboardOptions& options) {
  auto running = manager_.onboard(manager_.lookup(hashes), options);
  if (!running) return error.note(running.error());
  onboarded_ = std::move(*running).get();
  note(onboarded_, hashes.size());
}

void Tiered::note(const OnboardResult<>& answer, std::size_t blocks) {
  for (const auto& block : answer.blocks) error.note(block);
  if (answer.blocks.size() == blocks) return;
  error.note(Error{ErrorCode::OperationFailed, 0, blocks, answer.blocks.size(),
                   "blocks are in no tier that should be there"});
}

void Tiered::hold_for_offload(std::span<const SequenceHash> hashes, NamespaceId name_space) {
  auto found = manager_.device()->match_sequence_hashes_blocking(hashes, name_space);
  if (!found) return error.note(found.error());
  to_offload_ = std::move(*found);
}

void Tiered::offload() {
  auto running = manager_.offload(std::move(to_offload_));
  if (!running) return error.note(running.error());
  offloaded_ = std::move(*running).get();
  for (const auto& block : offloaded_.blocks) error.note(block);
}

std::vector<TokenBlock> make_prompt(std::uint64_t number, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kTokens);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<Token>(number * 2654435761u + i);
  }
  return TokenBlockSequence::split_tokens(tokens, kTokens).value().blocks;
}

std::vector<SequenceHash> hashes_of(std::span<const TokenBlock> tokens) {
  std::vector<SequenceHash> hashes;
  hashes.reserve(tokens.size());
  for (const TokenBlock& block : tokens) hashes.push_back(block.sequence_hash());
  return hashes;
}

}  // namespace kvbm::bench
