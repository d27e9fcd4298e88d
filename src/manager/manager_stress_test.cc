// Engine threads against one manager while transfers fail, requests time out and get cancelled.
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <random>
#include <thread>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"

namespace kvbm {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;

constexpr std::size_t kPage = 4;

// Fails, spoils or cancels some transfers, chosen by a counter so that every kind comes up.
class FaultyExecutor final : public TransferExecutor {
 public:
  explicit FaultyExecutor(std::unique_ptr<TransferExecutor> inner) : inner_(std::move(inner)) {}

  void submit(TransferRequest request, Done done) override {
    const std::uint64_t turn = turn_.fetch_add(1);
    if (turn % 7 == 3) {  // what is read back does not match
      for (BlockCopy& copy : request.blocks) {
        if (copy.payload_sum) *copy.payload_sum ^= 1;
      }
    }
    if (turn % 5 == 2) {  // the copy is made and then reported as failed
      auto failing = [done = std::move(done)](TransferResult result) {
        for (auto& block : result.blocks) {
          block = Error{ErrorCode::OperationFailed, 5, 0, 0, "injected"};
        }
        done(std::move(result));
      };
      inner_->submit(std::move(request), std::move(failing));
      return;
    }
    inner_->submit(std::move(request), std::move(done));
  }

 private:
  std::unique_ptr<TransferExecutor> inner_;
  std::atomic<std::uint64_t> turn_{0};
};

TokenBlockSequence prompt(Token conversation, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), conversation * 1000);
  return TokenBlockSequence::create(tokens, kPage).value();
}

std::byte expected_byte(SequenceHash hash, std::size_t region, std::size_t i) {
  return std::byte(hash.value() + region * 77 + i);
}

class Worker {
 public:
  Worker(ReferenceBlockManager& manager, unsigned seed) : manager_(manager), random_(seed) {}

  void run(int requests) {
    for (int i = 0; i < requests; ++i) {
      const auto tokens = prompt(static_cast<Token>(random_() % 8), 1 + random_() % 6);
      serve(tokens);
    }
  }
  std::uint64_t served() const { return served_; }

 private:
  void serve(const TokenBlockSequence& tokens) {
    OnboardOptions options;
    if (random_() % 4 == 0) options.timeout = microseconds(random_() % 200);
    auto completion = manager_.onboard(manager_.lookup(tokens.sequence_hashes()), options);
    std::size_t present = 0;
    OnboardResult<> loaded;
    if (completion) {
      if (random_() % 5 == 0) completion->cancel();
      if (random_() % 5 == 0) return;  // drops it while blocks move
      loaded = std::move(*completion).get();
      present = loaded.valid_prefix();
      for (std::size_t i = 0; i < present; ++i) check(*loaded.blocks[i]);
    }
    compute(tokens.blocks().subspan(present));
  }

  void check(const ImmutableBlock<DeviceStorage>& block) {
    ++served_;
    for (std::size_t region = 0; region < 4; ++region) {
      const auto bytes = block.layer_view(region / 2, region % 2).value().bytes();
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        ASSERT_EQ(bytes[i], expected_byte(block.sequence_hash(), region, i)) << "a wrong byte";
      }
    }
  }

  void compute(std::span<const TokenBlock> missing) {
    auto blocks = manager_.device()->allocate_blocks_blocking(missing.size());
    if (!blocks) return;  // others hold the rest
    std::vector<CompleteBlock<DeviceStorage>> computed;
    for (std::size_t b = 0; b < missing.size(); ++b) {
      for (std::size_t region = 0; region < 4; ++region) {
        const auto bytes = (*blocks)[b].layer_view_mut(region / 2, region % 2).value().bytes();
        for (std::size_t i = 0; i < bytes.size(); ++i) {
          bytes[i] = expected_byte(missing[b].sequence_hash(), region, i);
        }
      }
      computed.push_back(std::move((*blocks)[b]).complete(missing[b]).value());
    }
    manager_.device()->register_blocks_blocking(std::move(computed)).value();
  }

  ReferenceBlockManager& manager_;
  std::mt19937 random_;
  std::uint64_t served_ = 0;
};

TEST(ManagerStressTest, NoWrongByteIsServedAndNothingLeaks) {
  KvBlockManagerConfig config;
  config.model = {
      .num_layers = 2, .outer_dim = 2, .page_size = kPage, .inner_dim = 16, .dtype = DType::INT8};
  config.device_layout = {.num_blocks = 16,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>(),
                          .layout_type = LayoutType::LayerSeparateOuterContiguous};
  config.host_layout = {.num_blocks = 12, .allocator = std::make_shared<PinnedAllocator>()};
  config.disk_layout = {.num_blocks = 40,
                        .allocator = std::make_shared<DiskAllocator>(testing::TempDir())};
  auto manager = detail::ManagerAccess::create(config, [](auto inner) {
                   return std::make_unique<FaultyExecutor>(std::move(inner));
                 }).value();

  std::atomic<std::uint64_t> served{0};
  {
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        Worker worker(manager, t);
        worker.run(700);
        served += worker.served();
      });
    }
  }
  EXPECT_GT(served.load(), 100u);
  ASSERT_TRUE(manager.drain(seconds(60)));
  EXPECT_GT(manager.transfer_stats().checksum_mismatches, 0u);

  auto& core = detail::ManagerAccess::core(manager);
  core.driver->check_invariants();
  for (detail::TierPool* pool : {core.device.get(), core.host.get(), core.disk.get()}) {
    pool->store().check_invariants();
    EXPECT_EQ(pool->store().available_blocks(), pool->store().total_blocks()) << "a hold leaked";
  }
}

// Managers that are destroyed while blocks move in both directions.
TEST(ManagerStressTest, DestructionWaitsForRunningCopies) {
  for (unsigned round = 0; round < 30; ++round) {
    KvBlockManagerConfig config;
    config.model = {
        .num_layers = 2, .outer_dim = 2, .page_size = kPage, .inner_dim = 16, .dtype = DType::INT8};
    config.device_layout = {.num_blocks = 16,
                            .allocator = std::make_shared<HostBackedDeviceAllocator>()};
    config.host_layout = {.num_blocks = 12, .allocator = std::make_shared<PinnedAllocator>()};
    auto manager = ReferenceBlockManager::create(config).value();
    Worker(manager, round).run(20);
    auto completion = manager.onboard(manager.lookup(prompt(1, 6).sequence_hashes()));
    if (round % 2 == 0) manager.close();
  }
}

}  // namespace
}  // namespace kvbm
