#include "kvbm/manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <numeric>
#include <type_traits>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"

namespace kvbm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

static_assert(!std::is_copy_constructible_v<ImmutableBlock<DeviceStorage>>);
static_assert(!std::is_constructible_v<CompleteBlock<DeviceStorage>, CompleteBlock<PinnedStorage>>,
              "a host block is no device block");

constexpr std::size_t kPage = 4;
constexpr std::size_t kLayers = 3;

KvBlockManagerConfig small_config(std::size_t device = 8, std::size_t host = 8,
                                  std::size_t disk = 16) {
  KvBlockManagerConfig config;
  config.model = {.num_layers = kLayers,
                  .outer_dim = 2,
                  .page_size = kPage,
                  .inner_dim = 10,
                  .dtype = DType::FP16};
  config.device_layout = {.num_blocks = device,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>(),
                          .layout_type = LayoutType::LayerSeparateBlockContiguous};
  config.host_layout = {.num_blocks = host, .allocator = std::make_shared<PinnedAllocator>()};
  config.disk_layout = {.num_blocks = disk,
                        .allocator = std::make_shared<DiskAllocator>(testing::TempDir())};
  return config;
}

TokenBlockSequence prompt(Token first, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage).value();
}

std::byte expected_byte(SequenceHash hash, std::size_t layer, std::size_t outer, std::size_t i) {
  return std::byte(hash.value() + layer * 50 + outer * 25 + i);
}

void compute(ReferenceBlockManager& manager, std::span<const TokenBlock> blocks) {
  auto owned = manager.device()->allocate_blocks_blocking(blocks.size()).value();
  std::vector<CompleteBlock<DeviceStorage>> computed;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      for (std::size_t outer = 0; outer < 2; ++outer) {
        const auto bytes = owned[b].layer_view_mut(layer, outer).value().bytes();
        for (std::size_t i = 0; i < bytes.size(); ++i) {
          bytes[i] = expected_byte(blocks[b].sequence_hash(), layer, outer, i);
        }
      }
    }
    computed.push_back(std::move(owned[b]).complete(blocks[b]).value());
  }
  manager.device()->register_blocks_blocking(std::move(computed)).value();
}

bool is_right(const ImmutableBlock<DeviceStorage>& block) {
  bool right = true;
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    for (std::size_t outer = 0; outer < 2; ++outer) {
      const auto bytes = block.layer_view(layer, outer).value().bytes();
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        right &= bytes[i] == expected_byte(block.sequence_hash(), layer, outer, i);
      }
    }
  }
  return right;
}

// Holds transfers back until it is opened.
class GateExecutor final : public TransferExecutor {
 public:
  struct Gate {
    std::mutex mutex;
    bool open = true;
    std::deque<std::pair<TransferRequest, Done>> waiting;
    TransferExecutor* inner = nullptr;

    void close() {
      const std::lock_guard lock(mutex);
      open = false;
    }
    void release() {
      std::deque<std::pair<TransferRequest, Done>> released;
      {
        const std::lock_guard lock(mutex);
        open = true;
        released.swap(waiting);
      }
      for (auto& [request, done] : released) inner->submit(std::move(request), std::move(done));
    }
    std::size_t count() {
      const std::lock_guard lock(mutex);
      return waiting.size();
    }
  };

  GateExecutor(std::unique_ptr<TransferExecutor> inner, std::shared_ptr<Gate> gate)
      : inner_(std::move(inner)), gate_(std::move(gate)) {
    gate_->inner = inner_.get();
  }
  void submit(TransferRequest request, Done done) override {
    {
      const std::lock_guard lock(gate_->mutex);
      if (!gate_->open) {
        gate_->waiting.emplace_back(std::move(request), std::move(done));
        return;
      }
    }
    inner_->submit(std::move(request), std::move(done));
  }

 private:
  std::unique_ptr<TransferExecutor> inner_;
  std::shared_ptr<Gate> gate_;
};

struct GatedManager {
  std::shared_ptr<GateExecutor::Gate> gate = std::make_shared<GateExecutor::Gate>();
  ReferenceBlockManager manager = detail::ManagerAccess::create(small_config(), [this](auto inner) {
                                    return std::make_unique<GateExecutor>(std::move(inner), gate);
                                  }).value();
};

TEST(ManagerTest, ConfigurationErrorsNameTheField) {
  const auto message = [](KvBlockManagerConfig config) {
    const auto result = ReferenceBlockManager::create(config);
    return result ? std::string("accepted") : result.error().to_string();
  };
  KvBlockManagerConfig config = small_config();
  config.device_layout.reset();
  EXPECT_THAT(message(config), testing::HasSubstr("device_layout is missing"));
  config = small_config();
  config.host_layout->external = true;
  EXPECT_THAT(message(config), testing::HasSubstr("host_layout.external must be false"));
  config = small_config();
  config.disk_layout->offload.mode = OffloadMode::OnEviction;
  EXPECT_THAT(message(config), testing::HasSubstr("disk_layout.offload must not be set"));
  config = small_config();
  config.host_layout->offload.admission.min_priority = 101;
  EXPECT_THAT(message(config), testing::HasSubstr("min_priority is 101; it must be 0 .. 100"));
  config = small_config();
  config.host_layout->num_blocks = 0;
  EXPECT_THAT(message(config), testing::HasSubstr("host_layout.num_blocks is 0; it must be 1 .. "));
  config = small_config();
  config.model.page_size = 2000;
  EXPECT_THAT(message(config), testing::HasSubstr("model.page_size is 2000; it must be 1 .. 1024"));
  config = small_config();
  config.runtime.transfer_threads = 0;
  EXPECT_THAT(message(config),
              testing::HasSubstr("runtime.transfer_threads is 0; it must be 1 .. 64"));
  config = small_config();
  config.runtime.offload_queue_blocks = 0;
  EXPECT_THAT(message(config), testing::HasSubstr("runtime.offload_queue_blocks is 0"));
  config = small_config();
  config.disk_layout->allocator.reset();
  EXPECT_THAT(message(config),
              testing::HasSubstr("disk_layout sets 0 of storage, allocator, "
                                 "tensors, store and logical; it must set exactly one"));
  config = small_config();
  config.host_layout->layout_type = LayoutType::LayerSeparateBlockContiguous;
  EXPECT_THAT(message(config), testing::HasSubstr("host_layout.layout_type"));
}

TEST(ManagerTest, TiersThatAreNotConfiguredAreNull) {
  KvBlockManagerConfig config = small_config();
  config.disk_layout.reset();
  config.host_layout.reset();
  config.runtime.worker_id = 7;
  auto manager = ReferenceBlockManager::create(config).value();
  EXPECT_NE(manager.device(), nullptr);
  EXPECT_EQ(manager.host(), nullptr);
  EXPECT_EQ(manager.disk(), nullptr);
  EXPECT_EQ(manager.block_size(), kPage);
  EXPECT_EQ(manager.worker_id(), 7u);
  compute(manager, prompt(0, 2).blocks());
  EXPECT_EQ(manager.lookup(prompt(0, 2).sequence_hashes()).size(), 2u);
}

// For every arrangement of the device tier: blocks go down both tiers and come back byte for byte.
TEST(ManagerTest, BytesSurviveTheWayThroughAllTiers) {
  for (const LayoutType type :
       {LayoutType::FullyContiguous, LayoutType::LayerSeparateOuterContiguous,
        LayoutType::LayerSeparateBlockContiguous}) {
    KvBlockManagerConfig config = small_config(4, 6, 16);
    config.device_layout->layout_type = type;
    auto manager = ReferenceBlockManager::create(config).value();
    for (Token p = 0; p < 4; ++p) {
      compute(manager, prompt(p * 1000, 4).blocks());
      ASSERT_TRUE(manager.drain(seconds(30)));
    }
    const auto hashes = prompt(0, 4).sequence_hashes();
    Lookup found = manager.lookup(hashes);
    ASSERT_EQ(found.size(), 4u);
    EXPECT_GT(found.count(Tier::Disk), 0u);
    auto completion = manager.onboard(std::move(found)).value();
    OnboardResult<> loaded = std::move(completion).get();
    ASSERT_EQ(loaded.valid_prefix(), 4u);
    for (const auto& block : loaded.blocks) EXPECT_TRUE(is_right(*block));
  }
}

TEST(ManagerTest, LookupTakesEachBlockFromTheFastestTier) {
  auto manager = ReferenceBlockManager::create(small_config(4, 8, 16)).value();
  const auto tokens = prompt(0, 4);
  compute(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  {  // two of the four leave the device
    const auto other = manager.device()->allocate_blocks_blocking(2).value();
  }
  const auto hashes = tokens.sequence_hashes();
  Lookup found = manager.lookup(hashes);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found.tier(0), Tier::Device);
  EXPECT_EQ(found.tier(1), Tier::Device);
  EXPECT_EQ(found.tier(2), Tier::Host);
  EXPECT_EQ(found.tier(3), Tier::Host);
  found.truncate(3);
  EXPECT_EQ(found.size(), 3u);
  EXPECT_EQ(found.count(Tier::Host), 1u);
  found.truncate(0);
  EXPECT_EQ(found.size(), 0u);
}

// The device has blocks 0 and 3, the host 1 and 2: no tier has the prefix, together they do.
TEST(ManagerTest, LookupFillsTheGapsOfOneTierFromAnother) {
  auto manager = ReferenceBlockManager::create(small_config(8, 8, 16)).value();
  const auto tokens = prompt(0, 4);
  compute(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  auto& core = detail::ManagerAccess::core(manager);
  for (const std::size_t gone : {1u, 2u}) {
    const auto held =
        manager.device()->match_sequence_hashes_blocking(tokens.sequence_hashes()).value();
    for (const auto& block : held) {
      if (block.sequence_hash() == tokens.blocks()[gone].sequence_hash()) {
        core.device->store().detach(block.block_id());
      }
    }
  }
  // Detaching block 1 hid block 2 from the second match; hide it by its own match.
  const SequenceHash two = tokens.blocks()[2].sequence_hash();
  for (const auto& block : manager.device()->match_sequence_hashes_blocking({&two, 1}).value()) {
    core.device->store().detach(block.block_id());
  }

  Lookup found = manager.lookup(tokens.sequence_hashes());
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found.tier(0), Tier::Device);
  EXPECT_EQ(found.tier(1), Tier::Host);
  EXPECT_EQ(found.tier(2), Tier::Host);
  EXPECT_EQ(found.tier(3), Tier::Device);
  const OnboardResult<> loaded = std::move(manager.onboard(std::move(found)).value()).get();
  ASSERT_EQ(loaded.valid_prefix(), 4u);
  for (const auto& block : loaded.blocks) EXPECT_TRUE(is_right(*block));
}

// Killed mutant: counting the pool's own calls only misses all that the engine does in host and
// disk.
TEST(ManagerTest, MetricsCountWhatTheEngineDoesToo) {
  auto registry = std::make_shared<MemoryRegistry>();
  KvBlockManagerConfig config = small_config(4, 4, 16);
  config.runtime.metrics_registry = registry;
  auto manager = ReferenceBlockManager::create(config).value();
  for (Token p = 0; p < 3; ++p) {
    compute(manager, prompt(p * 1000, 4).blocks());
    ASSERT_TRUE(manager.drain(seconds(30)));
  }
  const PoolStats host = manager.host()->stats();
  const auto value = [&](const std::string& name) {
    for (const auto& sample : registry->samples()) {
      if (sample.name == name && sample.tier == "host") return sample.value;
    }
    return -1.0;
  };
  EXPECT_GT(host.evictions, 0u);
  EXPECT_EQ(value("kvbm_allocations_total"), static_cast<double>(host.allocations));
  EXPECT_EQ(value("kvbm_registrations_total"), static_cast<double>(host.registrations));
  EXPECT_EQ(value("kvbm_evictions_total"), static_cast<double>(host.evictions));
  EXPECT_EQ(value("kvbm_available_blocks"), 4.0);
}

TEST(ManagerTest, OnboardingWhatTheDeviceHasIsDoneAtOnce) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  const auto tokens = prompt(0, 3);
  compute(manager, tokens.blocks());
  auto completion = manager.onboard(manager.lookup(tokens.sequence_hashes())).value();
  EXPECT_TRUE(completion.done());
  EXPECT_EQ(std::move(completion).get().valid_prefix(), 3u);
}

TEST(ManagerTest, OnboardingIntoAFullDeviceIsRefusedWithTheNumbers) {
  auto manager = ReferenceBlockManager::create(small_config(4, 8, 16)).value();
  const auto tokens = prompt(0, 4);
  compute(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  const auto all = manager.device()->allocate_blocks_blocking(4).value();
  const auto refused = manager.onboard(manager.lookup(tokens.sequence_hashes()));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::NotEnoughBlocksAvailable);
  EXPECT_EQ(refused.error().requested, 4u);
  EXPECT_EQ(refused.error().available, 0u);
}

TEST(ManagerTest, ARequestThatTakesTooLongEndsByItself) {
  GatedManager gated;
  ReferenceBlockManager& manager = gated.manager;
  const auto tokens = prompt(0, 2);
  compute(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  {
    const auto all = manager.device()->allocate_blocks_blocking(8).value();
  }

  gated.gate->close();
  auto completion =
      manager.onboard(manager.lookup(tokens.sequence_hashes()), {.timeout = milliseconds(5)})
          .value();
  const OnboardResult<> result = std::move(completion).get();
  ASSERT_EQ(result.blocks.size(), 2u);
  EXPECT_EQ(result.blocks[0].error().code, ErrorCode::TimedOut);
  EXPECT_EQ(manager.device()->available_blocks(), 6u) << "the copies have not ended";
  EXPECT_EQ(manager.transfer_stats().requests_timed_out, 1u);

  gated.gate->release();
  ASSERT_TRUE(manager.drain(seconds(30)));
  EXPECT_EQ(manager.device()->available_blocks(), 8u);
  EXPECT_TRUE(manager.device()->match_run(tokens.sequence_hashes()).value().empty());
}

TEST(ManagerTest, CancelAndStopTokenEndARequest) {
  GatedManager gated;
  ReferenceBlockManager& manager = gated.manager;
  const auto tokens = prompt(0, 2);
  compute(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  {
    const auto all = manager.device()->allocate_blocks_blocking(8).value();
  }
  gated.gate->close();

  auto cancelled = manager.onboard(manager.lookup(tokens.sequence_hashes())).value();
  EXPECT_FALSE(cancelled.done());
  EXPECT_FALSE(cancelled.wait_for(milliseconds(1)));
  cancelled.cancel();
  EXPECT_TRUE(cancelled.done());
  EXPECT_EQ(std::move(cancelled).get().blocks[0].error().code, ErrorCode::Cancelled);

  std::stop_source stop;
  auto stopped =
      manager.onboard(manager.lookup(tokens.sequence_hashes()), {.stop = stop.get_token()}).value();
  stop.request_stop();
  EXPECT_EQ(std::move(stopped).get().blocks[1].error().code, ErrorCode::Cancelled);
  gated.gate->release();
}

TEST(ManagerTest, ACompletionMayBeDroppedWhileItsBlocksMove) {
  GatedManager gated;
  ReferenceBlockManager& manager = gated.manager;
  const auto tokens = prompt(0, 2);
  compute(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  {
    const auto all = manager.device()->allocate_blocks_blocking(8).value();
  }
  gated.gate->close();
  {
    auto dropped = manager.onboard(manager.lookup(tokens.sequence_hashes())).value();
  }
  EXPECT_EQ(manager.device()->available_blocks(), 6u);
  gated.gate->release();
  ASSERT_TRUE(manager.drain(seconds(30)));
  EXPECT_EQ(manager.device()->match_run(tokens.sequence_hashes()).value().size(), 2u);
}

TEST(ManagerTest, CloseCancelsAndLaterCallsAreRefused) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  compute(manager, prompt(0, 2).blocks());
  manager.close();
  manager.close();
  const auto refused = manager.onboard(manager.lookup(prompt(0, 2).sequence_hashes()));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::ProgressEngineShutdown);
}

TEST(ManagerTest, HandlesOutliveTheManager) {
  std::vector<ImmutableBlock<DeviceStorage>> blocks;
  BlockRun<PinnedStorage> run;
  Lookup found;
  {
    auto manager = ReferenceBlockManager::create(small_config()).value();
    const auto tokens = prompt(0, 3);
    compute(manager, tokens.blocks());
    ASSERT_TRUE(manager.drain(seconds(30)));
    blocks = manager.device()->match_sequence_hashes_blocking(tokens.sequence_hashes()).value();
    run = manager.host()->match_run(tokens.sequence_hashes()).value();
    found = manager.lookup(tokens.sequence_hashes());
  }
  ASSERT_EQ(blocks.size(), 3u);
  for (const auto& block : blocks) EXPECT_TRUE(is_right(block));
  EXPECT_EQ(run.blocks()[2].block_view().value().bytes().size(),
            kLayers * 2 * kPage * 10 * sizeof(std::uint16_t));
}

TEST(BlockHandleTest, ViewsAreCheckedAndDiskBlocksHaveNone) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  const auto tokens = prompt(0, 1);
  compute(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  const auto hashes = tokens.sequence_hashes();

  const auto device = manager.device()->match_sequence_hashes_blocking(hashes).value();
  EXPECT_EQ(device[0].num_layers(), kLayers);
  EXPECT_EQ(device[0].num_outer_dims(), 2u);
  EXPECT_EQ(device[0].page_size(), kPage);
  EXPECT_EQ(device[0].inner_dim(), 10u);
  const auto layer = device[0].layer_view(kLayers, 0);
  EXPECT_EQ(layer.error().code, ErrorCode::InvalidLayerIndex);
  EXPECT_EQ(layer.error().requested, kLayers);
  EXPECT_EQ(layer.error().available, kLayers);
  EXPECT_EQ(device[0].layer_view(0, 2).error().code, ErrorCode::InvalidOuterIndex);
  EXPECT_EQ(device[0].block_view().error().code, ErrorCode::NotAccessible);

  const auto disk = manager.disk()->match_sequence_hashes_blocking(hashes).value();
  ASSERT_EQ(disk.size(), 1u);
  EXPECT_EQ(disk[0].layer_view(0, 0).error().code, ErrorCode::NotAccessible);
}

TEST(BlockHandleTest, ABlockRefusesTokensOfAnotherSizeAndKeepsItself) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  auto block = std::move(manager.device()->allocate_blocks_blocking(1).value()[0]);
  const std::vector<Token> tokens = {1, 2, 3};
  const auto other = TokenBlockSequence::create(tokens, 3).value();
  const auto refused = std::move(block).complete(other.blocks()[0]);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::InvalidMutableBlock);
  EXPECT_EQ(refused.error().requested, 3u);
  EXPECT_EQ(refused.error().available, kPage);
  EXPECT_TRUE(block);
  EXPECT_TRUE(std::move(block).complete(prompt(0, 1).blocks()[0]).has_value());
}

TEST(BlockHandleTest, ACloneIsAHoldOfItsOwn) {
  auto manager = ReferenceBlockManager::create(small_config(2, 4, 4)).value();
  compute(manager, prompt(0, 1).blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  auto first = std::move(
      manager.device()->match_sequence_hashes_blocking(prompt(0, 1).sequence_hashes()).value()[0]);
  const auto second = first.clone();
  first = {};
  EXPECT_EQ(manager.device()->available_blocks(), 1u);
  EXPECT_TRUE(is_right(second));
}

}  // namespace
}  // namespace kvbm
