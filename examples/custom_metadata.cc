// Metadata of one's own on each block, which also decides what is worth offloading: here blocks of
// shared system prompts go first, those of one-off requests never.
#include <kvbm/kvbm.h>

#include <chrono>
#include <cstdio>
#include <numeric>
#include <optional>

namespace {

constexpr std::size_t kBlockTokens = 16;

// The pool makes one per block and calls these under its mutex: they must be short and not throw.
struct RequestMetadata {
  enum class Kind { OneOff, Chat, SystemPrompt };
  Kind kind = Kind::OneOff;

  void on_acquired(std::uint64_t) noexcept {}
  void on_returned(std::uint64_t) noexcept {}
  void reset_metadata() noexcept { *this = {}; }
  // A higher number is offloaded first; none means never.
  std::optional<std::uint64_t> offload_priority() const noexcept {
    if (kind == Kind::OneOff) return std::nullopt;
    return static_cast<std::uint64_t>(kind);
  }
};
static_assert(kvbm::BlockMetadata<RequestMetadata>);

using Manager = kvbm::KvBlockManager<RequestMetadata>;
using CompleteBlock =
    kvbm::CompleteBlock<kvbm::DeviceStorage, kvbm::locality::Local, RequestMetadata>;
using Kind = RequestMetadata::Kind;

kvbm::TokenBlockSequence prompt(kvbm::Token first, std::size_t blocks) {
  std::vector<kvbm::Token> tokens(blocks * kBlockTokens);
  std::iota(tokens.begin(), tokens.end(), first);
  return kvbm::TokenBlockSequence::create(tokens, kBlockTokens).value();
}

void compute(Manager& manager, const kvbm::TokenBlockSequence& tokens, Kind kind) {
  auto blocks = manager.device()->allocate_blocks_blocking(tokens.blocks().size()).value();
  std::vector<CompleteBlock> full;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    // Set before registering, which offers the block to the host tier.
    blocks[i].metadata().kind = kind;
    full.push_back(std::move(blocks[i]).complete(tokens.blocks()[i]).value());
  }
  manager.device()->register_blocks_blocking(std::move(full)).value();
  manager.drain(std::chrono::seconds(10));
}

std::size_t in_host_memory(Manager& manager, const kvbm::TokenBlockSequence& tokens) {
  return manager.host()->match_sequence_hashes_blocking(tokens.sequence_hashes()).value().size();
}

}  // namespace

int main() {
  kvbm::KvBlockManagerConfig config;
  config.model = {.num_layers = 2, .outer_dim = 2, .page_size = kBlockTokens, .inner_dim = 64};
  config.device_layout = {.num_blocks = 32,
                          .allocator = std::make_shared<kvbm::HostBackedDeviceAllocator>()};
  config.host_layout = {.num_blocks = 32, .allocator = std::make_shared<kvbm::PinnedAllocator>()};
  auto manager = Manager::create(config).value();

  const auto system = prompt(0, 4);
  const auto chat = prompt(10'000, 6);
  const auto one_off = prompt(20'000, 8);
  compute(manager, one_off, Kind::OneOff);
  compute(manager, chat, Kind::Chat);
  compute(manager, system, Kind::SystemPrompt);

  std::printf("offloaded: %zu of 4 system prompt blocks, %zu of 6 chat blocks, %zu of 8 others\n",
              in_host_memory(manager, system), in_host_memory(manager, chat),
              in_host_memory(manager, one_off));

  // Whoever finds a block finds its metadata.
  const auto found =
      manager.device()->match_sequence_hashes_blocking(system.sequence_hashes()).value();
  const RequestMetadata& metadata = found.front().metadata();
  std::printf("the first one is a system prompt: %s\n",
              metadata.kind == Kind::SystemPrompt ? "yes" : "no");

  const bool as_told = in_host_memory(manager, system) == 4 && in_host_memory(manager, chat) == 6 &&
                       in_host_memory(manager, one_off) == 0;
  return as_told && metadata.kind == Kind::SystemPrompt ? 0 : 1;
}
