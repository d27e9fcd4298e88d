// A device tier that is an engine's own KV cache.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"

namespace kvbm {
namespace {

using testing::HasSubstr;

constexpr std::size_t kLayers = 3;
constexpr std::size_t kBlocks = 4;
constexpr std::size_t kPage = 4;

// The memory of an engine, and its tensors there.
struct Engine {
  std::vector<std::byte> memory = std::vector<std::byte>(std::size_t{1} << 16);
  KvTensors cache;

  std::uint64_t address() { return reinterpret_cast<std::uintptr_t>(memory.data()); }
};

// One tensor for all layers whose dimensions lie in memory in this order.
std::unique_ptr<Engine> permuted(const std::string& order) {
  auto engine = std::make_unique<Engine>();
  const std::map<char, std::size_t> sizes = {
      {'L', kLayers}, {'B', kBlocks}, {'H', 2}, {'N', kPage}, {'C', 10}};
  KvTensor tensor{.axes = "LBHNC",
                  .shape = {kLayers, kBlocks, 2, kPage, 10},
                  .strides = std::vector<std::int64_t>(5),
                  .address = engine->address()};
  std::int64_t stride = 1;
  for (std::size_t i = order.size(); i-- > 0;) {
    tensor.strides[tensor.axes.find(order[i])] = stride;
    stride *= static_cast<std::int64_t>(sizes.at(order[i]));
  }
  engine->cache.tensors = {tensor};
  return engine;
}

// Layers of different sizes, the second one opaque and odd.
std::unique_ptr<Engine> ragged() {
  auto engine = std::make_unique<Engine>();
  engine->cache.tensors = {
      {.axes = "OBNC", .shape = {2, kBlocks, kPage, 10}, .address = engine->address()},
      {.axes = "BC",
       .shape = {kBlocks, 331},
       .dtype = DType::U8,
       .address = engine->address() + 4096,
       .layer = 1},
      {.axes = "BNC",
       .shape = {kBlocks, kPage, 64},
       .address = engine->address() + 8192,
       .layer = 2}};
  return engine;
}

KvBlockManagerConfig config_of(const Engine& engine) {
  KvBlockManagerConfig config;
  config.model = {.num_layers = kLayers, .page_size = kPage};
  config.device_layout = {.num_blocks = kBlocks, .tensors = engine.cache};
  config.host_layout = {.num_blocks = kBlocks, .allocator = std::make_shared<PinnedAllocator>()};
  config.disk_layout = {.num_blocks = 16,
                        .allocator = std::make_shared<DiskAllocator>(testing::TempDir())};
  return config;
}

TokenBlockSequence prompt(Token first) {
  std::vector<Token> tokens(kBlocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage).value();
}

// A prompt's blocks, as the engine computed them: its memory is `bytes`.
void compute(ReferenceBlockManager& manager, Engine& engine, const TokenBlockSequence& tokens,
             const std::vector<std::byte>& bytes) {
  auto owned = manager.device()->allocate_blocks_blocking(kBlocks).value();
  engine.memory = bytes;
  std::vector<CompleteBlock<DeviceStorage>> computed;
  for (std::size_t i = 0; i < kBlocks; ++i) {
    computed.push_back(std::move(owned[i]).complete(tokens.blocks()[i]).value());
  }
  manager.device()->register_blocks_blocking(std::move(computed)).value();
}

// Fills the cache, pushes the blocks down to the disk by filling it again, brings them back.
void expect_comes_back(std::unique_ptr<Engine> engine) {
  auto manager = ReferenceBlockManager::create(config_of(*engine)).value();
  const auto first = prompt(1000);
  std::vector<std::byte> bytes(engine->memory.size());
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(i * 7 + i / 251);
  compute(manager, *engine, first, bytes);
  ASSERT_TRUE(manager.drain(std::chrono::seconds(30)));
  compute(manager, *engine, prompt(5000), std::vector<std::byte>(bytes.size(), std::byte{9}));
  ASSERT_TRUE(manager.drain(std::chrono::seconds(30)));

  auto found = manager.lookup(first.sequence_hashes());
  ASSERT_EQ(found.size(), kBlocks);
  ASSERT_EQ(found.count(Tier::Device), 0u);
  const auto loaded = std::move(manager.onboard(std::move(found)).value()).get();
  ASSERT_EQ(loaded.valid_prefix(), kBlocks) << loaded.blocks[0].error().to_string();

  // A block may have come to another place than it had; its runs are the same there.
  const auto layout = Layout::from_tensors(engine->cache).value();
  for (BlockId was = 0; was < kBlocks; ++was) {
    for (const Fragment& fragment : layout->fragments()) {
      const Region now = layout->place(fragment, loaded.blocks[was]->block_id());
      const Region before = layout->place(fragment, was);
      ASSERT_EQ(0, std::memcmp(now.data(), bytes.data() + (before.data() - engine->memory.data()),
                               now.bytes));
    }
  }
}

TEST(EngineTensorsTest, BlocksComeBackToTheEnginesMemoryFromAnyOrder) {
  for (const char* order : {"LBHNC", "LBNHC", "LHBNC", "BLHNC", "BLNHC", "BHLNC"}) {
    SCOPED_TRACE(order);
    expect_comes_back(permuted(order));
  }
}

TEST(EngineTensorsTest, LayersOfDifferentSizesComeBack) { expect_comes_back(ragged()); }

TEST(EngineTensorsTest, HandlesTellTheTensorsShape) {
  const auto engine = ragged();
  auto manager = ReferenceBlockManager::create(config_of(*engine)).value();
  const auto block = std::move(manager.device()->allocate_blocks_blocking(1).value().front());
  EXPECT_EQ(block.shape().num_layers, kLayers);
  EXPECT_EQ(block.shape().page_size, kPage);
  EXPECT_EQ(block.shape().inner_dim, 0u);
  EXPECT_EQ(block.layer_view(1, 0).value().size(), 331u);
  EXPECT_EQ(block.layer_view(0, 1).value().bytes().data(),
            engine->memory.data() + (kBlocks + block.block_id()) * kPage * 10 * 2);
  EXPECT_EQ(block.layer_view(1, 1).error().code, ErrorCode::InvalidOuterIndex);
}

void expect_refused(const KvBlockManagerConfig& config, const std::string& message) {
  const auto manager = ReferenceBlockManager::create(config);
  ASSERT_FALSE(manager.has_value());
  EXPECT_EQ(manager.error().code, ErrorCode::InvalidConfig);
  EXPECT_THAT(manager.error().message, HasSubstr(message));
}

TEST(EngineTensorsTest, AConfigurationThatSaysOtherwiseIsRefused) {
  const auto engine = ragged();
  KvBlockManagerConfig config = config_of(*engine);
  config.device_layout->num_blocks = 5;
  expect_refused(config, "device_layout.num_blocks is 5, but the tensors have 4");
  config = config_of(*engine);
  config.model.num_layers = 2;
  expect_refused(config, "model.num_layers is 2, but the tensors have 3");
  config = config_of(*engine);
  config.model.page_size = 8;
  expect_refused(config, "model.page_size is 8, but the tensors have 4");
  config = config_of(*engine);
  config.device_layout->tensors->tensors[1].strides = {662, 2};
  expect_refused(config, "device tier: tensor 1 (BC): the stride of axis C is 2");
  config = config_of(*engine);
  config.host_layout->tensors = engine->cache;
  expect_refused(config, "host_layout.tensors must be empty");
}

}  // namespace
}  // namespace kvbm
