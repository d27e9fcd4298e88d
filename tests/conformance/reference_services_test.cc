// Views, events, metrics, utility types, constants, aliases and builders of the API reference, item
// by item and in its order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <stop_token>
#include <type_traits>

#include "reference_fixture.h"

namespace kvbm {
namespace {

// --- views -----------------------------------------------------------------------------------

template <class V>
inline constexpr bool kReadOnly =
    std::same_as<std::remove_reference_t<decltype(std::declval<V>().bytes()[0])>, const std::byte>;
static_assert(kReadOnly<LayerView<DeviceStorage>> && kReadOnly<BlockView<DeviceStorage>>);
static_assert(!kReadOnly<LayerViewMut<DeviceStorage>> && !kReadOnly<BlockViewMut<DeviceStorage>>);

template <class V>
void expect_view(const V& view, std::size_t offset, std::size_t size) {
  EXPECT_EQ(view.offset(), offset);
  EXPECT_EQ(view.size(), size);
  EXPECT_EQ(view.bytes().size(), size);
  EXPECT_EQ(view.storage_type(), (StorageType{StorageType::Kind::System, 0}));
}

TEST(ReferenceViewTest, EachTellsOffsetSizeAndStorage) {
  auto pool = device_pool(2);
  auto blocks = pool.allocate_blocks_blocking(2).value();
  MutableBlock<DeviceStorage>& block = blocks[1];
  const std::size_t block_bytes = kLayers * 2 * kRegionBytes;
  const std::size_t start = block.block_id() * block_bytes;
  const LayerView<DeviceStorage> layer = block.layer_view(2, 1).value();
  const LayerViewMut<DeviceStorage> layer_mut = block.layer_view_mut(2, 1).value();
  const BlockView<DeviceStorage> whole = block.block_view().value();
  const BlockViewMut<DeviceStorage> whole_mut = block.block_view_mut().value();
  expect_view(layer, start + 5 * kRegionBytes, kRegionBytes);
  expect_view(layer_mut, start + 5 * kRegionBytes, kRegionBytes);
  expect_view(whole, start, block_bytes);
  expect_view(whole_mut, start, block_bytes);
  EXPECT_EQ(layer.bytes().data(), whole.bytes().data() + 5 * kRegionBytes);
}

// --- events ----------------------------------------------------------------------------------

// Keeps what it hears; the library calls it on a thread of its own.
class Recorder final : public EventManager {
 public:
  void block_allocated(BlockId id) override { add("allocated", id, SequenceHash()); }
  void block_registered(BlockId id, SequenceHash hash) override { add("registered", id, hash); }
  void block_matched(BlockId id, SequenceHash hash) override { add("matched", id, hash); }
  void block_evicted(BlockId id) override { add("evicted", id, SequenceHash()); }

  // Waits until it has heard `count` events.
  std::vector<std::string> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(30), [&] { return heard_.size() >= count; });
    return heard_;
  }
  static std::string text(const char* what, BlockId id, SequenceHash hash = SequenceHash()) {
    return std::string(what) + " " + std::to_string(id) + " " + std::to_string(hash.value());
  }

 private:
  void add(const char* what, BlockId id, SequenceHash hash) {
    const std::lock_guard lock(mutex_);
    heard_.push_back(text(what, id, hash));
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> heard_;
};

TEST(ReferenceEventTest, AManagerOfEventsHearsTheFourInOrder) {
  const auto recorder = std::make_shared<Recorder>();
  auto pool =
      BlockPool<DeviceStorage>::create({.blocks = device_blocks(1), .event_manager = recorder})
          .value();
  const SequenceHash hash = prompt(0, 1).blocks()[0].sequence_hash();
  one_registered(pool, 0);
  pool.match_sequence_hashes_blocking({&hash, 1}).value();
  const BlockId id = one_block(pool).block_id();
  const auto heard = recorder->wait_for(5);
  ASSERT_EQ(heard.size(), 5u);
  EXPECT_EQ(heard[0], Recorder::text("allocated", id));
  EXPECT_EQ(heard[1], Recorder::text("registered", id, hash));
  EXPECT_EQ(heard[2], Recorder::text("matched", id, hash));
  EXPECT_THAT(heard, testing::Contains(Recorder::text("evicted", id)));
}

TEST(ReferenceEventTest, ConfigTakesAnEventManagerForEveryPool) {
  const auto recorder = std::make_shared<Recorder>();
  KvBlockManagerConfig config = small_config();
  config.event_manager = recorder;
  auto manager = ReferenceBlockManager::create(config).value();
  const BlockId id = one_block(*manager.device()).block_id();
  EXPECT_EQ(recorder->wait_for(1)[0], Recorder::text("allocated", id));
}

TEST(ReferenceEventTest, NullEventManagerHearsNothing) {
  static_assert(std::derived_from<NullEventManager, EventManager>);
  NullEventManager null;
  null.block_allocated(BlockId{1});
  null.block_registered(BlockId{1}, SequenceHash(2));
  null.block_matched(BlockId{1}, SequenceHash(2));
  null.block_evicted(BlockId{1});
}

// --- metrics ---------------------------------------------------------------------------------

double value_of(const MemoryRegistry& registry, const std::string& name) {
  for (const MemoryRegistry::Sample& sample : registry.samples()) {
    if (sample.name == name && sample.tier == "device") return sample.value;
  }
  ADD_FAILURE() << "no metric " << name;
  return -1;
}

TEST(ReferenceMetricsTest, APoolCountsThroughTheRegistry) {
  const auto registry = std::make_shared<MemoryRegistry>();
  auto pool =
      BlockPool<DeviceStorage>::create({.blocks = device_blocks(1), .metrics_registry = registry})
          .value();
  const SequenceHash hash = one_registered(pool, 0).sequence_hash();
  pool.match_sequence_hashes_blocking({&hash, 1}).value();
  const auto evicting = one_block(pool);
  EXPECT_EQ(pool.stats().available_blocks, 0u) << "reading the sizes sets the gauges";
  EXPECT_EQ(value_of(*registry, "kvbm_allocations_total"), 2);
  EXPECT_EQ(value_of(*registry, "kvbm_registrations_total"), 1);
  EXPECT_EQ(value_of(*registry, "kvbm_match_blocks_returned_total"), 1);
  EXPECT_EQ(value_of(*registry, "kvbm_evictions_total"), 1);
  EXPECT_EQ(value_of(*registry, "kvbm_total_blocks"), 1);
  EXPECT_EQ(value_of(*registry, "kvbm_available_blocks"), 0);
}

// What an exporter implements; this one counts the calls.
class CallCount final : public Registry {
 public:
  struct Calls {
    int count = 0;
  };
  class CallCounter final : public Counter {
   public:
    explicit CallCounter(Calls& calls) : calls_(calls) {}
    void add(std::uint64_t) override { ++calls_.count; }

   private:
    Calls& calls_;
  };
  class CallGauge final : public Gauge {
   public:
    explicit CallGauge(Calls& calls) : calls_(calls) {}
    void set(double) override { ++calls_.count; }

   private:
    Calls& calls_;
  };
  class CallHistogram final : public Histogram {
   public:
    explicit CallHistogram(Calls& calls) : calls_(calls) {}
    void observe(double) override { ++calls_.count; }

   private:
    Calls& calls_;
  };

  std::shared_ptr<Counter> counter(const MetricName& name) override {
    names.push_back(name.name);
    return std::make_shared<CallCounter>(calls);
  }
  std::shared_ptr<Gauge> gauge(const MetricName& name) override {
    names.push_back(name.name);
    return std::make_shared<CallGauge>(calls);
  }
  std::shared_ptr<Histogram> histogram(const MetricName& name,
                                       std::span<const double> bounds) override {
    EXPECT_TRUE(std::is_sorted(bounds.begin(), bounds.end()));
    names.push_back(name.name);
    return std::make_shared<CallHistogram>(calls);
  }

  Calls calls;
  std::vector<std::string> names;
};

TEST(ReferenceMetricsTest, ARegistryOfTheCallersIsAskedOncePerMetric) {
  const auto registry = std::make_shared<CallCount>();
  auto pool =
      BlockPool<DeviceStorage>::create({.blocks = device_blocks(1), .metrics_registry = registry})
          .value();
  EXPECT_EQ(registry->names.size(), 9u);
  const int before = registry->calls.count;
  one_registered(pool, 0);
  EXPECT_GT(registry->calls.count, before);
  EXPECT_EQ(registry->names.size(), 9u);
}

TEST(ReferenceMetricsTest, EveryMemberIsAMetricOfTheRegistry) {
  MemoryRegistry registry;
  const BlockManagerMetrics metrics = BlockManagerMetrics::create(registry, "device");
  metrics.allocation_counter->add(1);
  metrics.registration_counter->add(2);
  metrics.match_counter->add(3);
  metrics.eviction_counter->add(4);
  const PoolMetrics& pool = metrics.pool_metrics;
  pool.total_blocks->set(5);
  pool.available_blocks->set(6);
  pool.allocation_duration->observe(7);
  pool.registration_duration->observe(8);
  pool.match_duration->observe(9);
  std::vector<double> values;
  for (const auto& sample : registry.samples()) values.push_back(sample.value);
  EXPECT_THAT(values, testing::UnorderedElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
}

// --- utility types ---------------------------------------------------------------------------

TEST(ReferenceUtilityTest, SequenceHashIsEightBytesLeastSignificantFirst) {
  constexpr std::array<std::uint8_t, 8> kBytes = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
  constexpr SequenceHash kHash(kBytes);
  static_assert(kHash.value() == 0x1122334455667788u);
  static_assert(kHash.as_bytes() == kBytes);
  static_assert(kHash == SequenceHash(std::uint64_t{0x1122334455667788}));
  static_assert(sizeof(SequenceHash) == 8);
}

// Published vector of the hash scheme: tokens 1 to 8 in blocks of 4, salt hash and chain seed 1337.
TEST(ReferenceUtilityTest, SequenceHashNamesThePrefix) {
  const std::vector<Token> tokens = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto sequence =
      TokenBlockSequence::create(tokens, 4, {.salt = 1337, .chain = 1337}).value();
  EXPECT_EQ(sequence.sequence_hashes(),
            (std::vector{SequenceHash(std::uint64_t{14643705804678351452u}),
                         SequenceHash(std::uint64_t{4945711292740353085u})}));
  constexpr std::array<std::uint8_t, 8> kBytes = {0x3d, 0x3c, 0x6d, 0x9d, 0x37, 0xb2, 0xa2, 0x44};
  EXPECT_EQ(sequence.sequence_hashes()[1].as_bytes(), kBytes);
}

TEST(ReferenceUtilityTest, BlockIdAndWorkerId) {
  static_assert(std::unsigned_integral<BlockId> && sizeof(BlockId) == 4);
  static_assert(std::same_as<WorkerID, std::uint64_t>);
}

TEST(ReferenceUtilityTest, DTypesHaveSizes) {
  const std::map<DType, std::size_t> sizes = {
      {DType::FP16, 2},  {DType::FP32, 4},  {DType::BF16, 2}, {DType::INT8, 1}, {DType::INT16, 2},
      {DType::INT32, 4}, {DType::INT64, 8}, {DType::FP8, 1},  {DType::U8, 1}};
  EXPECT_EQ(sizes.size(), 9u) << "every type is a type of its own";
  for (const auto& [type, bytes] : sizes) EXPECT_EQ(size_bytes(type), bytes);
}

// --- constants -------------------------------------------------------------------------------

static_assert(DEFAULT_PAGE_SIZE == 16);
static_assert(DEFAULT_INNER_DIM == 4096);
static_assert(DEFAULT_NUM_LAYERS == 32);
static_assert(DEFAULT_OUTER_DIM == 2);
static_assert(MAX_PAGE_SIZE == 1024);
static_assert(MAX_INNER_DIM == 32768);
static_assert(MAX_NUM_LAYERS == 128);
static_assert(MAX_OUTER_DIM == 2);

TEST(ReferenceConstantsTest, DefaultsAreTheModelsDefaults) {
  const KvManagerModelConfig model;
  EXPECT_EQ(model.page_size, DEFAULT_PAGE_SIZE);
  EXPECT_EQ(model.inner_dim, DEFAULT_INNER_DIM);
  EXPECT_EQ(model.num_layers, DEFAULT_NUM_LAYERS);
  EXPECT_EQ(model.outer_dim, DEFAULT_OUTER_DIM);
}

// Each limit is allowed and one more is not.
TEST(ReferenceConstantsTest, LimitsAreEnforced) {
  const auto problems = [](auto change) {
    KvBlockManagerConfig config = small_config();
    change(config.model);
    return config.problems().size();
  };
  EXPECT_EQ(problems([](auto& m) { m.page_size = MAX_PAGE_SIZE; }), 0u);
  EXPECT_EQ(problems([](auto& m) { m.page_size = MAX_PAGE_SIZE + 1; }), 1u);
  EXPECT_EQ(problems([](auto& m) { m.inner_dim = MAX_INNER_DIM; }), 0u);
  EXPECT_EQ(problems([](auto& m) { m.inner_dim = MAX_INNER_DIM + 1; }), 1u);
  EXPECT_EQ(problems([](auto& m) { m.num_layers = MAX_NUM_LAYERS; }), 0u);
  EXPECT_EQ(problems([](auto& m) { m.num_layers = MAX_NUM_LAYERS + 1; }), 1u);
  EXPECT_EQ(problems([](auto& m) { m.outer_dim = MAX_OUTER_DIM; }), 0u);
  EXPECT_EQ(problems([](auto& m) { m.outer_dim = MAX_OUTER_DIM + 1; }), 1u);
}

// --- type aliases ----------------------------------------------------------------------------

static_assert(std::same_as<ReferenceBlockManager, KvBlockManager<BasicMetadata>>);
static_assert(std::same_as<MutableBlocks<PinnedStorage, locality::Local, BasicMetadata>,
                           std::vector<MutableBlock<PinnedStorage>>>);
static_assert(std::same_as<ImmutableBlocks<DiskStorage, locality::Local, BasicMetadata>,
                           std::vector<ImmutableBlock<DiskStorage>>>);
static_assert(std::same_as<BlockPoolResult<int>, Result<int>>);
static_assert(std::same_as<StorageResult<int>, Result<int>>);

// --- builders --------------------------------------------------------------------------------

TEST(ReferenceBuilderTest, BlockManagerConfig) {
  const KvBlockManagerConfig from = small_config();
  const auto events = std::make_shared<NullEventManager>();
  const Result<KvBlockManagerConfig> built =
      KvBlockManagerConfigBuilder()
          .runtime(KvManagerRuntimeConfigBuilder().worker_id(5).build())
          .model(small_model())
          .device_layout(*from.device_layout)
          .host_layout(*from.host_layout)
          .disk_layout(*from.disk_layout)
          .event_manager(events)
          .build();
  ASSERT_TRUE(built.has_value());
  EXPECT_EQ(built->event_manager, events);
  auto manager = ReferenceBlockManager::create(*built).value();
  EXPECT_EQ(manager.worker_id(), 5u);
  EXPECT_TRUE(manager.device() && manager.host() && manager.disk());
  expect_error(KvBlockManagerConfigBuilder().build(), ErrorCode::InvalidConfig);
}

class NoThreads final : public Executor {
 public:
  void post(std::function<void()>) override {}
};

TEST(ReferenceBuilderTest, RuntimeConfig) {
  const auto executor = std::make_shared<NoThreads>();
  const auto registry = std::make_shared<MemoryRegistry>();
  std::stop_source stop;
  const KvManagerRuntimeConfig built = KvManagerRuntimeConfigBuilder()
                                           .worker_id(9)
                                           .cancellation_token(stop.get_token())
                                           .async_runtime(executor)
                                           .metrics_registry(registry)
                                           .build();
  EXPECT_EQ(built.worker_id, 9u);
  EXPECT_EQ(built.cancellation_token, stop.get_token());
  EXPECT_EQ(built.async_runtime, executor);
  EXPECT_EQ(built.metrics_registry, registry);
  EXPECT_EQ(built.nixl.kind, NixlOptions::Kind::Disabled);

  KvManagerRuntimeConfigBuilder builder;
  EXPECT_EQ(builder.enable_nixl().build().nixl.kind, NixlOptions::Kind::Enabled);
  const NixlOptions agent = builder.use_nixl_agent(NixlAgent{"mine"}).build().nixl;
  EXPECT_EQ(agent.kind, NixlOptions::Kind::Agent);
  EXPECT_EQ(agent.agent->name, "mine");
  EXPECT_EQ(builder.disable_nixl().build().nixl.kind, NixlOptions::Kind::Disabled);
}

TEST(ReferenceBuilderTest, ModelConfig) {
  const KvManagerModelConfig built = KvManagerModelConfigBuilder()
                                         .num_layers(61)
                                         .outer_dim(1)
                                         .page_size(64)
                                         .inner_dim(576)
                                         .dtype(DType::BF16)
                                         .build();
  EXPECT_EQ(built.num_layers, 61u);
  EXPECT_EQ(built.outer_dim, 1u);
  EXPECT_EQ(built.page_size, 64u);
  EXPECT_EQ(built.inner_dim, 576u);
  EXPECT_EQ(built.dtype, DType::BF16);
}

}  // namespace
}  // namespace kvbm
