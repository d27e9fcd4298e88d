// A manager whose device tier lies in CUDA memory.
#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "cuda/cuda_fixture.h"
#include "kvbm/kvbm.h"

namespace kvbm {
namespace {

constexpr std::size_t kPage = 4;
constexpr LayoutConfig kShape = {.num_blocks = 4,
                                 .num_layers = 3,
                                 .outer_dim = 2,
                                 .page_size = kPage,
                                 .inner_dim = 10,
                                 .dtype = DType::FP16};
constexpr auto kType = LayoutType::LayerSeparateOuterContiguous;

// Room for two prompts of four blocks.
constexpr std::size_t kHostBlocks = 8;
constexpr std::size_t kHostBytes = (kHostBlocks + 1) * 4096;

TokenBlockSequence prompt(Token first, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage).value();
}

class CudaManagerTest : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    config_.model = {.num_layers = kShape.num_layers,
                     .outer_dim = kShape.outer_dim,
                     .page_size = kPage,
                     .inner_dim = kShape.inner_dim,
                     .dtype = kShape.dtype};
    KvManagerLayoutConfig<DeviceStorage> device_layout{.num_blocks = kShape.num_blocks,
                                                       .layout_type = kType};
    Layout::Memories memories;
    for (std::size_t i = 0; i < kShape.num_layers; ++i) {
      device_layout.storage.push_back(
          DeviceAllocator().allocate(kShape.storage_bytes(kType).value()).value());
      memories.push_back(device_layout.storage.back().memory());
    }
    config_.device_layout = std::move(device_layout);
    config_.host_layout = {.num_blocks = 6, .allocator = std::make_shared<PinnedAllocator>()};
    config_.disk_layout = {.num_blocks = 16,
                           .allocator = std::make_shared<DiskAllocator>(testing::TempDir())};
    layout_ = Layout::create(kType, kShape, memories).value();
  }
  void TearDown() override {
    config_ = {};
    layout_ = nullptr;
    CudaTest::TearDown();
  }

  static std::vector<std::byte> run_of(SequenceHash hash, std::size_t run, std::size_t bytes) {
    std::vector<std::byte> content(bytes);
    for (std::size_t i = 0; i < bytes; ++i) content[i] = std::byte(hash.value() + run * 29 + i);
    return content;
  }
  // What an engine does: it computes the blocks' bytes on the device, and registers them.
  void compute(ReferenceBlockManager& manager, std::span<const TokenBlock> blocks) {
    auto owned = manager.device()->allocate_blocks_blocking(blocks.size()).value();
    std::vector<CompleteBlock<DeviceStorage>> computed;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const auto runs = layout_->fragments();
      for (std::size_t run = 0; run < runs.size(); ++run) {
        const Region place = layout_->place(runs[run], owned[b].block_id());
        set_device_bytes(device(), place.memory->address() + place.offset,
                         run_of(blocks[b].sequence_hash(), run, place.bytes));
      }
      computed.push_back(std::move(owned[b]).complete(blocks[b]).value());
    }
    manager.device()->register_blocks_blocking(std::move(computed)).value();
  }
  bool is_right(const ImmutableBlock<DeviceStorage>& block) {
    const auto runs = layout_->fragments();
    for (std::size_t run = 0; run < runs.size(); ++run) {
      const Region place = layout_->place(runs[run], block.block_id());
      if (device_bytes(device(), place.memory->address() + place.offset, place.bytes) !=
          run_of(block.sequence_hash(), run, place.bytes)) {
        return false;
      }
    }
    return true;
  }

  KvBlockManagerConfig config_;
  std::shared_ptr<const Layout> layout_;
};

TEST_F(CudaManagerTest, BytesSurviveTheWayThroughAllTiers) {
  auto manager = ReferenceBlockManager::create(config_).value();
  for (Token p = 0; p < 4; ++p) {
    compute(manager, prompt(p * 1000, 4).blocks());
    ASSERT_TRUE(manager.drain(std::chrono::seconds(30)));
  }
  const auto hashes = prompt(0, 4).sequence_hashes();
  Lookup found = manager.lookup(hashes);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_GT(found.count(Tier::Disk), 0u);
  OnboardResult<> loaded = std::move(manager.onboard(std::move(found)).value()).get();
  ASSERT_EQ(loaded.valid_prefix(), 4u);
  for (const auto& block : loaded.blocks) EXPECT_TRUE(is_right(*block));
}

TEST_F(CudaManagerTest, TheHostTierIsRegisteredWhileTheManagerLives) {
  if (!on_fake()) GTEST_SKIP() << "needs the fake driver";
  config_.disk_layout.reset();
  auto storage = PinnedAllocator().allocate(kHostBytes).value();
  config_.host_layout = {.num_blocks = kHostBlocks, .storage = {storage}};
  const std::size_t before = fake().live().registrations;
  {
    const auto manager = ReferenceBlockManager::create(config_).value();
    EXPECT_TRUE(storage.memory()->is_registered());
  }
  config_.host_layout.reset();
  storage = PinnedAllocator().allocate(1).value();
  EXPECT_EQ(fake().live().registrations, before);
}

// Piece by piece, as its pages come, so that a large tier does not wait for all of it.
TEST_F(CudaManagerTest, ALargeHostTierIsRegisteredAsItIsFilled) {
  if (!on_fake()) GTEST_SKIP() << "needs the fake driver";
  constexpr std::size_t kBytes = 4 * cuda::HostRegistration::kPieceBytes;
  config_.disk_layout.reset();
  config_.host_layout = {.num_blocks = kBytes / kHostBytes * kHostBlocks,
                         .allocator = std::make_shared<PinnedAllocator>()};
  const std::size_t before = fake().live().registrations;
  {
    const auto manager = ReferenceBlockManager::create(config_).value();
    ASSERT_TRUE(manager.wait_until_filled(std::chrono::seconds(60)).has_value());
    const auto stats = manager.host()->stats();
    EXPECT_EQ(stats.available_blocks, stats.total_blocks);
    EXPECT_GE(fake().live().registrations, before + 4);
  }
  EXPECT_EQ(fake().live().registrations, before);
}

TEST_F(CudaManagerTest, MemoryThatAnEarlierManagerRegisteredIsUsedAgain) {
  config_.disk_layout.reset();
  const auto storage = PinnedAllocator().allocate(kHostBytes).value();
  config_.host_layout = {.num_blocks = kHostBlocks, .storage = {storage}};
  for (int manager = 0; manager < 2; ++manager) {
    const auto made = ReferenceBlockManager::create(config_);
    ASSERT_TRUE(made.has_value()) << made.error().to_string();
  }
}

TEST_F(CudaManagerTest, AFailedRegistrationOfTheFirstPagesOnlyMakesCopiesSlower) {
  if (!on_fake()) GTEST_SKIP() << "needs the fake driver";
  config_.disk_layout.reset();
  fake().fail("cuMemHostRegister_v2", 0, 2);
  const auto manager = ReferenceBlockManager::create(config_).value();
  EXPECT_THAT(manager.transfer_paths().back(), testing::HasSubstr("host memory not registered"));
  EXPECT_EQ(manager.host()->stats().available_blocks, 6u);
}

TEST_F(CudaManagerTest, DamageInTheHostTierNeverReachesTheDevice) {
  config_.disk_layout.reset();
  auto storage = PinnedAllocator().allocate(kHostBytes).value();
  config_.host_layout = {.num_blocks = kHostBlocks, .storage = {storage}};
  auto manager = ReferenceBlockManager::create(config_).value();
  compute(manager, prompt(0, 4).blocks());
  ASSERT_TRUE(manager.drain(std::chrono::seconds(30)));
  compute(manager, prompt(1000, 4).blocks());  // takes the device's places
  ASSERT_TRUE(manager.drain(std::chrono::seconds(30)));
  Lookup found = manager.lookup(prompt(0, 4).sequence_hashes());
  ASSERT_GT(found.count(Tier::Host), 0u);
  std::fill_n(storage.as_mut_ptr(), kHostBytes, std::byte{0xDD});
  const OnboardResult<> loaded = std::move(manager.onboard(std::move(found)).value()).get();
  EXPECT_EQ(loaded.valid_prefix(), 0u);
}

}  // namespace
}  // namespace kvbm
