// Engine threads, resets, readers of metrics and a close at any moment against managers that follow
// each other on one store.
#include <gtest/gtest.h>

#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <random>
#include <thread>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"
#include "store/disk_store.h"
#include "tiers/disk_tier.h"

namespace kvbm {
namespace {

constexpr std::size_t kPage = 4;
constexpr std::size_t kNamespaces = 2;

TokenBlockSequence prompt(Token conversation, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), conversation * 1000);
  return TokenBlockSequence::create(tokens, kPage).value();
}

std::byte expected_byte(SequenceHash hash, NamespaceId space, std::size_t i) {
  return std::byte(hash.value() + space * 101u + i * 3);
}

// One manager, used by several threads until one of them closes it.
class Life {
 public:
  Life(const KvBlockManagerConfig& config, MemoryRegistry& metrics, std::uint64_t close_after)
      : manager_(ReferenceBlockManager::create(config).value()),
        metrics_(metrics),
        requests_left_(static_cast<std::int64_t>(close_after)) {}

  void run(std::uint64_t seed) {
    {
      std::vector<std::jthread> threads;
      for (std::uint64_t t = 0; t < 2; ++t) threads.emplace_back([&, t] { compute(seed + t); });
      threads.emplace_back([&] { reset(seed); });
      threads.emplace_back([&] { watch(); });
    }
    auto& core = detail::ManagerAccess::core(manager_);
    core.driver->check_invariants();
    for (detail::TierPool* pool : {core.device.get(), core.host.get(), core.disk.get()}) {
      pool->store().check_invariants();
      EXPECT_EQ(pool->store().available_blocks(), pool->store().total_blocks()) << "a hold leaked";
    }
  }
  std::uint64_t served() const { return served_; }

 private:
  bool is_open() const { return requests_left_.load() > 0; }

  void compute(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    while (is_open()) {
      const auto space = static_cast<NamespaceId>(random() % kNamespaces);
      const auto tokens = prompt(static_cast<Token>(random() % 8), 1 + random() % 6);
      serve(tokens.blocks(), space);
      if (requests_left_.fetch_sub(1) == 1) manager_.close();
    }
  }

  void serve(std::span<const TokenBlock> tokens, NamespaceId space) {
    std::size_t present = 0;
    OnboardResult<> loaded;
    if (auto completion = manager_.onboard(manager_.lookup(tokens, space))) {
      loaded = std::move(*completion).get();
      present = loaded.valid_prefix();
      for (std::size_t i = 0; i < present; ++i) check(*loaded.blocks[i], space);
    }
    tokens = tokens.subspan(present);
    auto owned = manager_.device()->allocate_blocks_blocking(tokens.size());
    if (!owned) return;  // others hold the rest, or it is closed
    for (std::size_t b = 0; b < tokens.size(); ++b) {
      const auto bytes = (*owned)[b].block_view_mut().value().bytes();
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = expected_byte(tokens[b].sequence_hash(), space, i);
      }
      (*owned)[b].apply_token_block(tokens[b], space).value();
    }
    (void)manager_.device()->register_blocks_blocking(std::move(*owned)).has_value();
  }

  void check(const ImmutableBlock<DeviceStorage>& block, NamespaceId space) {
    ++served_;
    const auto bytes = block.block_view().value().bytes();
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      ASSERT_EQ(bytes[i], expected_byte(block.sequence_hash(), space, i)) << "a wrong byte";
    }
  }

  void reset(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    while (is_open()) {
      const auto before = requests_left_.load();
      const auto space = static_cast<NamespaceId>(random() % kNamespaces);
      switch (random() % 4) {
        case 0: expect_done(manager_.reset()); break;
        case 1: expect_done(manager_.reset(space)); break;
        case 2: expect_done(manager_.disk()->reset()); break;
        default: expect_done(manager_.disk()->reset(space)); break;
      }
      // A few requests between two resets, or nothing is ever found.
      while (is_open() && requests_left_.load() > before - 20) std::this_thread::yield();
    }
  }
  template <class T>
  void expect_done(const Result<T>& result) {
    if (result) return;
    EXPECT_EQ(result.error().code, ErrorCode::ProgressEngineShutdown);
  }

  void watch() {
    while (is_open()) {
      EXPECT_TRUE(manager_.disk_stats().has_value());
      EXPECT_FALSE(metrics_.samples().empty());
      (void)manager_.transfer_stats();
      (void)manager_.disk()->stats();
    }
  }

  ReferenceBlockManager manager_;
  MemoryRegistry& metrics_;
  std::atomic<std::int64_t> requests_left_;
  std::atomic<std::uint64_t> served_{0};
};

TEST(SurvivingDiskStressTest, NoWrongByteIsServedWhateverHappensAtOnce) {
  const char* given = std::getenv("KVBM_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device()();
  std::fprintf(stderr, "KVBM_SEED=%" PRIu64 "\n", seed);
  std::mt19937_64 random(seed);
  std::string parent = testing::TempDir() + "kvbm-stress-XXXXXX";
  ASSERT_NE(::mkdtemp(parent.data()), nullptr);
  KvBlockManagerConfig config;
  config.model = {
      .num_layers = 2, .outer_dim = 2, .page_size = kPage, .inner_dim = 16, .dtype = DType::INT8};
  config.device_layout = {.num_blocks = 16,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>()};
  config.host_layout = {.num_blocks = 12, .allocator = std::make_shared<PinnedAllocator>()};
  std::uint64_t served = 0;
  std::uint64_t restored = 0;
  for (int i = 0; i < 30; ++i) {
    config.disk_layout = {
        .num_blocks = 40,
        .store = DiskStoreConfig{.directory = parent + "/store",
                                 .durable = random() % 2 == 0,
                                 .sync_interval = std::chrono::milliseconds(10),
                                 .keep_tokens = true,
                                 .scrub_bytes_per_second = std::uint64_t{1} << 30}};
    const auto metrics = std::make_shared<MemoryRegistry>();
    config.runtime.metrics_registry = metrics;
    Life life(config, *metrics, 1 + random() % 300);
    life.run(random());
    served += life.served();
    for (const auto& sample : metrics->samples()) {
      if (sample.name == "kvbm_disk_restored_blocks") {
        restored += static_cast<std::uint64_t>(sample.value);
      }
    }
  }
  std::filesystem::remove_all(parent);
  EXPECT_GT(served, 100u);
  EXPECT_GT(restored, 0u);
}

}  // namespace
}  // namespace kvbm
