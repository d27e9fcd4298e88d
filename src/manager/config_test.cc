#include "kvbm/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <numeric>
#include <thread>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"
#include "manager/options.h"

namespace kvbm {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::size_t kPage = 4;

KvManagerModelConfig small_model() {
  return KvManagerModelConfigBuilder()
      .num_layers(2)
      .outer_dim(1)
      .page_size(kPage)
      .inner_dim(8)
      .dtype(DType::BF16)
      .build();
}

KvBlockManagerConfig small_config(std::size_t device = 16, std::size_t host = 16) {
  KvBlockManagerConfig config;
  config.model = small_model();
  config.device_layout = {.num_blocks = device,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>()};
  config.host_layout = {.num_blocks = host, .allocator = std::make_shared<PinnedAllocator>()};
  return config;
}

TokenBlockSequence prompt(Token first, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage).value();
}

template <class Manager>
void put(Manager& manager, const TokenBlock& tokens, std::uint32_t priority = DEFAULT_PRIORITY) {
  auto blocks = manager.device()->allocate_blocks_blocking(1).value();
  blocks[0].set_priority(priority).value();
  blocks[0].apply_token_block(tokens).value();
  manager.device()->register_blocks_blocking(std::move(blocks)).value();
}

// --- the configuration itself ----------------------------------------------------------------

TEST(ConfigTest, DefaultsAreThoseOfTheOptionTable) {
  const KvBlockManagerConfig config;
  std::vector<std::string> names;
  for (const detail::Option& option : detail::options()) {
    EXPECT_EQ(option.read(config), option.default_value) << option.name;
    EXPECT_GE(option.default_value, option.min) << option.name;
    EXPECT_LE(option.default_value, option.max) << option.name;
    EXPECT_NE(std::string(option.help), "") << option.name;
    names.emplace_back(option.name);
  }
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::adjacent_find(names), names.end()) << "a name twice";
}

TEST(ConfigTest, BuildersFillEveryField) {
  std::stop_source stop;
  const auto registry = std::make_shared<MemoryRegistry>();
  const auto events = std::make_shared<NullEventManager>();
  KvManagerRuntimeConfigBuilder runtime;
  runtime.worker_id(9).cancellation_token(stop.get_token()).metrics_registry(registry);
  EXPECT_EQ(runtime.build().nixl.kind, NixlOptions::Kind::Disabled);
  EXPECT_EQ(runtime.enable_nixl().build().nixl.kind, NixlOptions::Kind::Enabled);
  EXPECT_EQ(runtime.use_nixl_agent({"me"}).build().nixl.agent.value().name, "me");
  EXPECT_EQ(runtime.build().nixl.kind, NixlOptions::Kind::Agent);
  EXPECT_EQ(runtime.nixl_library("/a/path").build().nixl.library, "/a/path");
  EXPECT_FALSE(runtime.disable_nixl().build().nixl.agent.has_value());

  const KvBlockManagerConfig parts = small_config();
  const auto built =
      KvBlockManagerConfigBuilder()
          .runtime(runtime.build())
          .model(small_model())
          .device_layout(*parts.device_layout)
          .host_layout(*parts.host_layout)
          .disk_layout({.num_blocks = 3, .allocator = std::make_shared<DiskAllocator>("/tmp")})
          .event_manager(events)
          .build()
          .value();
  EXPECT_EQ(built.runtime.worker_id, 9u);
  EXPECT_TRUE(built.runtime.cancellation_token.stop_possible());
  EXPECT_EQ(built.runtime.metrics_registry, registry);
  EXPECT_EQ(built.model.num_layers, 2u);
  EXPECT_EQ(built.model.outer_dim, 1u);
  EXPECT_EQ(built.model.page_size, kPage);
  EXPECT_EQ(built.model.inner_dim, 8u);
  EXPECT_EQ(built.model.dtype, DType::BF16);
  EXPECT_EQ(built.device_layout->num_blocks, 16u);
  EXPECT_EQ(built.host_layout->num_blocks, 16u);
  EXPECT_EQ(built.disk_layout->num_blocks, 3u);
  EXPECT_EQ(built.event_manager, events);
}

TEST(ConfigTest, WhatDependsOnTimeIsNotDeterministic) {
  KvBlockManagerConfig config = small_config();
  config.runtime = KvManagerRuntimeConfigBuilder()
                       .deterministic()
                       .prefill_tokens_per_second(1000)
                       .transfer_threads(2)
                       .offload_queue_blocks(9)
                       .build();
  EXPECT_EQ(config.runtime.transfer_threads, 2u);
  EXPECT_EQ(config.runtime.offload_queue_blocks, 9u);
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("exclude each other")));
  config.runtime.prefill_tokens_per_second = 0;
  EXPECT_TRUE(config.problems().empty());
}

TEST(ConfigTest, ProblemsAreToldAllAtOnce) {
  KvBlockManagerConfig config;
  config.model.page_size = 0;
  config.model.outer_dim = 3;
  config.runtime.transfer_threads = 65;
  config.disk_layout = {.num_blocks = 0};
  EXPECT_THAT(
      config.problems(),
      ElementsAre(
          HasSubstr("runtime.transfer_threads is 65; it must be 1 .. 64"),
          HasSubstr("model.outer_dim is 3; it must be 1 .. 2"),
          HasSubstr("model.page_size is 0; it must be 1 .. 1024"),
          HasSubstr("device_layout is missing"), HasSubstr("disk_layout.num_blocks is 0"),
          HasSubstr("disk_layout sets 0 of storage, allocator, tensors, store and logical")));
  const auto refused = KvBlockManagerConfigBuilder().build();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::InvalidConfig);
  const auto made = ReferenceBlockManager::create(config);
  ASSERT_FALSE(made.has_value());
  for (const std::string& problem : config.problems()) {
    EXPECT_THAT(made.error().message, HasSubstr(problem));
  }
  EXPECT_TRUE(small_config().problems().empty());
}

TEST(ConfigTest, ALayoutNamesExactlyOneSourceOfItsBytes) {
  const PinnedStorage storage = PinnedAllocator().allocate(1 << 20).value();
  for (int choice = 0; choice < 8; ++choice) {
    KvBlockManagerConfig config = small_config();
    auto& layout = *config.host_layout;
    layout.allocator = choice & 1 ? std::make_shared<PinnedAllocator>() : nullptr;
    if (choice & 2) layout.storage = {storage};
    if (choice & 4) layout.logical = BlockParallelismStrategy::LeaderWorkerSharded;
    const bool one = choice == 1 || choice == 2 || choice == 4;
    EXPECT_EQ(config.problems().empty(), one) << choice;
    EXPECT_EQ(ReferenceBlockManager::create(config).has_value(), one) << choice;
  }
}

TEST(ConfigTest, ACallersStorageIsUsedAndChecked) {
  KvBlockManagerConfig config = small_config();
  const DeviceStorage storage = HostBackedDeviceAllocator().allocate(1 << 16).value();
  config.device_layout = {.num_blocks = 4, .storage = {storage}};
  auto manager = ReferenceBlockManager::create(config).value();
  const auto blocks = manager.device()->allocate_blocks_blocking(1).value();
  const auto* first = blocks[0].layer_view(0, 0).value().bytes().data();
  EXPECT_GE(first, storage.as_ptr());
  EXPECT_LT(first, storage.as_ptr() + storage.size());

  config.device_layout->num_blocks = 4096;
  const auto small = ReferenceBlockManager::create(config);
  ASSERT_FALSE(small.has_value());
  EXPECT_EQ(small.error().code, ErrorCode::InvalidConfig);
}

// --- what is not there -----------------------------------------------------------------------

TEST(ConfigTest, ANixlThatIsNotThereIsNamed) {
  for (const NixlOptions::Kind kind : {NixlOptions::Kind::Enabled, NixlOptions::Kind::Agent}) {
    KvBlockManagerConfig config = small_config();
    config.runtime.nixl = {kind, NixlAgent{"agent"}, "/no/such/libnixl_capi.so"};
    const auto refused = ReferenceBlockManager::create(config);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::NixlError);
    EXPECT_EQ(refused.error().native, 0);
    EXPECT_NE(refused.error().message.find("runtime.nixl"), std::string::npos);
    EXPECT_NE(refused.error().message.find("/no/such/libnixl_capi.so"), std::string::npos);
  }
}

TEST(ConfigTest, ANixlAgentNeedsAName) {
  KvBlockManagerConfig config = small_config();
  for (const std::optional<NixlAgent>& agent :
       {std::optional<NixlAgent>(), std::optional(NixlAgent{""}),
        std::optional(NixlAgent{std::string(129, 'a')})}) {
    config.runtime.nixl = {NixlOptions::Kind::Agent, agent};
    const auto problems = config.problems();
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_NE(problems[0].find("runtime.nixl.agent"), std::string::npos) << problems[0];
  }
}

TEST(ConfigTest, NixlRegistersNoMemoryWhereItIsAllocated) {
  NixlAllocator<PinnedStorage> allocator(std::make_shared<PinnedAllocator>());
  EXPECT_EQ(allocator.allocate(4096).error().code, ErrorCode::NixlError);
}

TEST(ConfigTest, RemoteCallsAnswerNixlError) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  const BlockDescriptorList list{.worker_id = 1, .block_set = Tier::Host, .block_indices = {0}};
  EXPECT_EQ(manager.export_local_blockset().error().code, ErrorCode::NixlError);
  EXPECT_EQ(manager.import_remote_blockset({}).error().code, ErrorCode::NixlError);
  EXPECT_EQ(manager.get_remote_blocks_immutable(list).error().code, ErrorCode::NixlError);
  EXPECT_EQ(manager.get_remote_blocks_mutable(list).error().code, ErrorCode::NixlError);
}

TEST(ConfigTest, ADeviceWithoutADriverIsAnErrorWithItsReason) {
  KvBlockManagerConfig config = small_config();
  config.host_layout.reset();
  config.device_layout = {.num_blocks = 2, .allocator = std::make_shared<DeviceAllocator>()};
  const auto made = ReferenceBlockManager::create(config);
  if (made) GTEST_SKIP() << "this machine has a CUDA driver and a device";
  EXPECT_EQ(made.error().code, ErrorCode::Cuda);
  EXPECT_THAT(made.error().message, HasSubstr("device tier: "));
  EXPECT_GT(made.error().message.size(), std::string("device tier: ").size());
}

// --- runtime options -------------------------------------------------------------------------

// Threads of the caller; counts what they are given.
class Threads final : public Executor {
 public:
  Threads() {
    for (int i = 0; i < 2; ++i) {
      threads_.emplace_back([this](std::stop_token stop) { work(stop); });
    }
  }
  void post(std::function<void()> task) override {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
      ++posted_;
    }
    wake_.notify_one();
  }
  int posted() {
    const std::lock_guard lock(mutex_);
    return posted_;
  }
  std::size_t waiting() {
    const std::lock_guard lock(mutex_);
    return tasks_.size();
  }

 private:
  void work(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    while (wake_.wait(lock, stop, [this] { return !tasks_.empty(); })) {
      const auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<std::function<void()>> tasks_;
  int posted_ = 0;
  std::vector<std::jthread> threads_;
};

TEST(RuntimeTest, ACallersExecutorMovesTheBytesOfSeveralManagers) {
  const auto threads = std::make_shared<Threads>();
  KvBlockManagerConfig config = small_config();
  config.runtime.async_runtime = threads;
  {
    auto first = ReferenceBlockManager::create(config).value();
    auto second = ReferenceBlockManager::create(config).value();
    const auto tokens = prompt(1, 2);
    for (auto* manager : {&first, &second}) {
      for (const TokenBlock& block : tokens.blocks()) put(*manager, block);
    }
    ASSERT_TRUE(first.drain(seconds(30)));
    EXPECT_EQ(first.host()->match_run(tokens.sequence_hashes()).value().size(), 2u);
    EXPECT_GE(threads->posted(), 2);
    first.close();
    ASSERT_TRUE(second.drain(seconds(30)));
    EXPECT_EQ(second.host()->match_run(tokens.sequence_hashes()).value().size(), 2u);
  }
  EXPECT_EQ(threads->waiting(), 0u) << "the managers waited for their tasks";
  EXPECT_EQ(config.runtime.async_runtime.use_count(), 2) << "and let the executor go";
}

TEST(RuntimeTest, AStoppedTokenClosesTheManager) {
  std::stop_source stop;
  KvBlockManagerConfig config = small_config();
  config.runtime.cancellation_token = stop.get_token();
  auto manager = ReferenceBlockManager::create(config).value();
  put(manager, prompt(1, 1).blocks()[0]);
  const auto hashes = prompt(1, 1).sequence_hashes();
  Lookup found = manager.lookup(hashes);
  stop.request_stop();
  constexpr ErrorCode kClosed = ErrorCode::ProgressEngineShutdown;
  EXPECT_EQ(manager.onboard(std::move(found)).error().code, kClosed);
  EXPECT_EQ(manager.device()->allocate_blocks_blocking(1).error().code, kClosed);
  EXPECT_EQ(manager.host()->match_run(hashes).error().code, kClosed);
}

TEST(RuntimeTest, TheTokenMayBeStoppedBeforeOrAfterTheManager) {
  std::stop_source stop;
  KvBlockManagerConfig config = small_config();
  config.runtime.cancellation_token = stop.get_token();
  {
    const auto gone = ReferenceBlockManager::create(config).value();
  }
  stop.request_stop();
  auto closed = ReferenceBlockManager::create(config).value();
  EXPECT_EQ(closed.device()->allocate_blocks_blocking(1).error().code,
            ErrorCode::ProgressEngineShutdown);
}

TEST(RuntimeTest, EventsAndMetricsCoverEveryTier) {
  struct Tiers final : EventManager {
    void block_allocated(BlockId) override {}
    void block_registered(BlockId, SequenceHash) override {}
    void block_matched(BlockId, SequenceHash) override {}
    void block_evicted(BlockId) override {}
    void on_event(const BlockEvent& event) override {
      if (event.kind == BlockEvent::Kind::Registered) ++registered[std::size_t(event.tier)];
    }
    std::array<int, kTierCount> registered{};
  };
  const auto tiers = std::make_shared<Tiers>();
  const auto registry = std::make_shared<MemoryRegistry>();
  KvBlockManagerConfig config = small_config();
  config.event_manager = tiers;
  config.runtime.metrics_registry = registry;
  {
    auto manager = ReferenceBlockManager::create(config).value();
    const auto tokens = prompt(1, 3);
    for (const TokenBlock& block : tokens.blocks()) put(manager, block);
    ASSERT_TRUE(manager.drain(seconds(30)));
  }
  EXPECT_THAT(tiers->registered, ElementsAre(3, 3, 0));
  int labels = 0;
  for (const auto& sample : registry->samples()) {
    if (sample.name != "kvbm_registrations_total") continue;
    ++labels;
    EXPECT_EQ(sample.value, 3) << sample.tier;
  }
  EXPECT_EQ(labels, 2);
}

// --- the order of offloads -------------------------------------------------------------------

// Keeps transfers until the test lets them go, oldest first.
class HeldBack final : public TransferExecutor {
 public:
  struct Held {
    std::mutex mutex;
    bool open = false;
    std::deque<std::pair<TransferRequest, Done>> waiting;
    std::vector<BlockId> order;  // sources, as submitted
    TransferExecutor* inner = nullptr;

    void release() {
      std::deque<std::pair<TransferRequest, Done>> released;
      {
        const std::lock_guard lock(mutex);
        open = true;
        released.swap(waiting);
      }
      for (auto& [request, done] : released) inner->submit(std::move(request), std::move(done));
    }
  };

  HeldBack(std::unique_ptr<TransferExecutor> inner, std::shared_ptr<Held> held)
      : inner_(std::move(inner)), held_(std::move(held)) {
    held_->inner = inner_.get();
  }
  void submit(TransferRequest request, Done done) override {
    {
      const std::lock_guard lock(held_->mutex);
      for (const BlockCopy& copy : request.blocks) held_->order.push_back(copy.source);
      if (!held_->open) {
        held_->waiting.emplace_back(std::move(request), std::move(done));
        return;
      }
    }
    inner_->submit(std::move(request), std::move(done));
  }

 private:
  std::unique_ptr<TransferExecutor> inner_;
  std::shared_ptr<Held> held_;
};

TEST(OffloadOrderTest, HigherPriorityGoesFirstThenWhoCameFirst) {
  const auto held = std::make_shared<HeldBack::Held>();
  auto manager = detail::ManagerAccess::create(small_config(), [&](auto inner) {
                   return std::make_unique<HeldBack>(std::move(inner), held);
                 }).value();
  // One transfer each, until the path is full; those that follow must wait.
  BlockId next = 0;
  constexpr BlockId kInFlight = detail::EngineOptions{}.offloads_in_flight;
  for (; next < kInFlight; ++next) put(manager, prompt(next * 100, 1).blocks()[0]);
  const std::uint32_t priorities[] = {1, 0, 7, 7, 3, 0};
  for (const std::uint32_t priority : priorities) {
    put(manager, prompt(next++ * 100, 1).blocks()[0], priority);
  }
  {
    const std::lock_guard lock(held->mutex);
    ASSERT_EQ(held->order.size(), kInFlight);
  }
  held->release();
  ASSERT_TRUE(manager.drain(seconds(30)));
  EXPECT_THAT(held->order, ElementsAre(0, 1, 2, 3, 6, 7, 8, 4, 5, 9));
  EXPECT_EQ(manager.transfer_stats().edges[0].blocks, 10u);
}

TEST(OffloadOrderTest, ThePriorityGoesAlong) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  put(manager, prompt(1, 1).blocks()[0], 6);
  ASSERT_TRUE(manager.drain(seconds(30)));
  const auto found =
      manager.host()->match_sequence_hashes_blocking(prompt(1, 1).sequence_hashes()).value();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].metadata().priority, 6u);
}

// A caller's metadata may forbid it.
struct Private {
  bool is_private = true;
  void on_acquired(std::uint64_t) {}
  void on_returned(std::uint64_t) {}
  void reset_metadata() { is_private = true; }
  std::optional<std::uint64_t> offload_priority() const {
    return is_private ? std::nullopt : std::optional<std::uint64_t>(0);
  }
};

TEST(OffloadOrderTest, BlocksWithoutAPriorityStayOnTheDevice) {
  auto manager = KvBlockManager<Private>::create(small_config()).value();
  const auto tokens = prompt(1, 2);
  auto blocks = manager.device()->allocate_blocks_blocking(2).value();
  blocks[0].metadata().is_private = false;
  for (std::size_t i = 0; i < 2; ++i) blocks[i].apply_token_block(tokens.blocks()[i]).value();
  manager.device()->register_blocks_blocking(std::move(blocks)).value();
  ASSERT_TRUE(manager.drain(seconds(30)));
  const auto found = manager.host()->scan_matches(tokens.sequence_hashes()).value();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].first, 0u);
  EXPECT_FALSE(found[0].second.metadata().is_private) << "the metadata went along";
}

}  // namespace
}  // namespace kvbm
