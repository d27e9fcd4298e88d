// An engine that has its KV cache already: kvbm uses the tensors where they lie, and never frees
// them. This one keeps K and V of all layers in one buffer, as vLLM's CPU backend does.
#include <kvbm/kvbm.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <numeric>

namespace {

constexpr std::size_t kLayers = 4;
constexpr std::size_t kBlocks = 8;
constexpr std::size_t kHeads = 2;
constexpr std::size_t kTokens = 16;
constexpr std::size_t kElements = 64;  // K and V of one head and token
constexpr std::size_t kLayerFloats = kBlocks * kHeads * kTokens * kElements;

// One tensor per layer: [blocks, heads, tokens, elements].
kvbm::KvTensors describe(std::vector<float>& cache) {
  kvbm::KvTensors tensors;
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    tensors.tensors.push_back(
        {.axes = "BHNC",
         .shape = {kBlocks, kHeads, kTokens, kElements},
         .dtype = kvbm::DType::FP32,
         .address = reinterpret_cast<std::uintptr_t>(&cache[layer * kLayerFloats]),
         .layer = layer});
  }
  tensors.packing = "avx2";  // the engine arranges K for this instruction set
  return tensors;
}

}  // namespace

int main() {
  std::vector<float> cache(kLayers * kLayerFloats);  // the engine's; outlives the manager
  kvbm::KvBlockManagerConfig config;
  config.model = {.num_layers = kLayers, .page_size = kTokens};
  config.device_layout = {.num_blocks = kBlocks, .tensors = describe(cache)};
  config.host_layout = {.num_blocks = 64, .allocator = std::make_shared<kvbm::PinnedAllocator>()};
  auto manager = kvbm::ReferenceBlockManager::create(config).value();

  std::vector<kvbm::Token> prompt(kBlocks * kTokens);
  std::iota(prompt.begin(), prompt.end(), 0u);
  const auto tokens = kvbm::TokenBlockSequence::create(prompt, kTokens).value();

  // The engine computes into its own memory, at the blocks that it was given.
  auto blocks = manager.device()->allocate_blocks_blocking(kBlocks).value();
  std::iota(cache.begin(), cache.end(), 1.0F);
  std::vector<kvbm::CompleteBlock<kvbm::DeviceStorage>> full;
  for (std::size_t i = 0; i < kBlocks; ++i) {
    full.push_back(std::move(blocks[i]).complete(tokens.blocks()[i]).value());
  }
  manager.device()->register_blocks_blocking(std::move(full)).value();
  manager.drain(std::chrono::seconds(10));  // offloaded to host memory

  // Another prompt takes all blocks of the cache.
  const std::vector<float> computed = cache;
  manager.device()->allocate_blocks_blocking(kBlocks).value();
  std::ranges::fill(cache, 0.0F);

  // The first one comes again: its KV is copied back into the engine's tensors.
  auto loaded = manager.onboard(manager.lookup(tokens.sequence_hashes())).value();
  const kvbm::OnboardResult<> result = std::move(loaded).get();
  std::size_t right = 0;
  for (std::size_t i = 0; i < result.valid_prefix(); ++i) {
    constexpr std::size_t kBlockFloats = kHeads * kTokens * kElements;
    bool same = true;
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      // The blocks of an empty pool were given out in order; they may be elsewhere now.
      const float* was = &computed[layer * kLayerFloats + i * kBlockFloats];
      const float* now = &cache[layer * kLayerFloats + result.blocks[i]->block_id() * kBlockFloats];
      same = same && std::equal(was, was + kBlockFloats, now);
    }
    right += same ? 1 : 0;
  }
  std::printf("%zu of %zu blocks are back in the engine's cache\n", right, kBlocks);
  return right == kBlocks ? 0 : 1;
}
