// How an engine embeds kvbm: compute a prompt's KV blocks once, push them out of device memory with
// other prompts, and get them back from host memory or disk when the prompt comes again.
#include <kvbm/kvbm.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>

namespace {

constexpr std::size_t kBlockTokens = 16;
constexpr std::size_t kPromptBlocks = 8;

// Every call answers a Result: a value, or an Error that says what was wrong. value() ends the
// program where there is none, which is right for an example and not for an engine.
kvbm::ReferenceBlockManager make_manager() {
  const char* folder = std::getenv("TMPDIR");
  kvbm::KvBlockManagerConfig config;
  config.model = {.num_layers = 4, .outer_dim = 2, .page_size = kBlockTokens, .inner_dim = 128};
  // Memory that stands in for a GPU's, each layer apart as engines keep it.
  config.device_layout = {.num_blocks = 16,
                          .allocator = std::make_shared<kvbm::HostBackedDeviceAllocator>(),
                          .layout_type = kvbm::LayoutType::LayerSeparateBlockContiguous};
  config.host_layout = {.num_blocks = 32, .allocator = std::make_shared<kvbm::PinnedAllocator>()};
  config.disk_layout = {
      .num_blocks = 128,
      .allocator = std::make_shared<kvbm::DiskAllocator>(folder ? folder : "/tmp")};
  return kvbm::ReferenceBlockManager::create(config).value();
}

kvbm::TokenBlockSequence prompt(kvbm::Token first) {
  std::vector<kvbm::Token> tokens(kPromptBlocks * kBlockTokens);
  std::iota(tokens.begin(), tokens.end(), first);
  return kvbm::TokenBlockSequence::create(tokens, kBlockTokens).value();
}

// Brings what is cached to the device, "computes" the rest, and registers that for later prompts.
// Returns how many blocks did not have to be computed.
std::size_t prefill(kvbm::ReferenceBlockManager& manager, const kvbm::TokenBlockSequence& tokens) {
  kvbm::Lookup found = manager.lookup(tokens.sequence_hashes());
  std::printf("  found: %zu in device memory, %zu in host memory, %zu on disk\n",
              found.count(kvbm::Tier::Device), found.count(kvbm::Tier::Host),
              found.count(kvbm::Tier::Disk));
  // While these handles live, the blocks stay where they are.
  const kvbm::OnboardResult<> loaded = manager.onboard(std::move(found)).value().get();
  const std::size_t hits = loaded.valid_prefix();

  const auto missing = tokens.blocks().subspan(hits);
  auto blocks = manager.device()->allocate_blocks_blocking(missing.size()).value();
  std::vector<kvbm::CompleteBlock<kvbm::DeviceStorage>> full;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (std::size_t layer = 0; layer < blocks[i].num_layers(); ++layer) {
      for (std::size_t outer = 0; outer < blocks[i].num_outer_dims(); ++outer) {
        auto view = blocks[i].layer_view_mut(layer, outer).value();  // K or V of one layer
        std::ranges::fill(view.bytes(), static_cast<std::byte>(layer));
      }
    }
    full.push_back(std::move(blocks[i]).complete(missing[i]).value());
  }
  manager.device()->register_blocks_blocking(std::move(full)).value();
  return hits;
}

}  // namespace

int main() {
  kvbm::ReferenceBlockManager manager = make_manager();
  std::size_t hits = 0;
  // The first prompt, seven others, and the first again: device and host memory hold two and four
  // prompts, so by then it is on disk only.
  for (const kvbm::Token first : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 0u}) {
    std::printf("prompt %u\n", first);
    hits = prefill(manager, prompt(first * 10'000));
    // Registered blocks are offloaded in the background; waiting makes this example repeatable.
    manager.drain(std::chrono::seconds(10));
  }
  std::printf("%zu of %zu blocks of the repeated prompt came from the cache\n", hits,
              kPromptBlocks);
  return hits == kPromptBlocks ? 0 : 1;
}
