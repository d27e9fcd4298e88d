// Defects that the first generation of KV block managers is known for, one test each, named after
// what is right instead.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <numeric>
#include <thread>

#include "kvbm/kvbm.h"
#include "logical/pool/hold_ops.h"
#include "manager/manager_core.h"

namespace kvbm {
namespace {

using std::chrono::seconds;
using Manager = ReferenceBlockManager;
using Setting = BlockRegistrationDuplicationSetting;

constexpr std::size_t kPage = 4;

KvBlockManagerConfig config_of(std::size_t device, std::size_t host, std::size_t layers = 2,
                               std::size_t inner = 8) {
  KvBlockManagerConfig config;
  config.model = {.num_layers = layers, .outer_dim = 2, .page_size = kPage, .inner_dim = inner};
  config.device_layout = {.num_blocks = device,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>(),
                          .layout_type = LayoutType::LayerSeparateOuterContiguous};
  config.host_layout = {.num_blocks = host, .allocator = std::make_shared<PinnedAllocator>()};
  return config;
}

TokenBlockSequence prompt(Token first, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage).value();
}

template <class Block, class Use>
void each_byte(Block& block, SequenceHash hash, Use use) {
  for (std::size_t layer = 0; layer < block.num_layers(); ++layer) {
    for (std::size_t outer = 0; outer < block.num_outer_dims(); ++outer) {
      auto bytes = [&] {
        if constexpr (requires { block.layer_view_mut(layer, outer); }) {
          return block.layer_view_mut(layer, outer).value().bytes();
        } else {
          return block.layer_view(layer, outer).value().bytes();
        }
      }();
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        use(bytes[i], std::byte(hash.value() + layer * 7 + outer * 3 + i));
      }
    }
  }
}

std::vector<ImmutableBlock<DeviceStorage>> put(Manager& manager,
                                               std::span<const TokenBlock> tokens) {
  auto blocks = manager.device()->allocate_blocks_blocking(tokens.size()).value();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    each_byte(blocks[i], tokens[i].sequence_hash(),
              [](std::byte& byte, std::byte right) { byte = right; });
    blocks[i].apply_token_block(tokens[i]).value();
  }
  return manager.device()->register_blocks_blocking(std::move(blocks)).value();
}

template <class Block>
bool is_right(const Block& block) {
  bool right = true;
  each_byte(block, block.sequence_hash(),
            [&](std::byte byte, std::byte expected) { right &= byte == expected; });
  return right;
}

// --- pools -----------------------------------------------------------------------------------

// There, returned blocks waited in a queue that was served last.
TEST(V1DefectsTest, ReturnedBlocksAreAvailableAtOnce) {
  auto manager = Manager::create(config_of(4, 4)).value();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(manager.device()->allocate_blocks_blocking(4).has_value()) << i;
    ASSERT_EQ(manager.device()->available_blocks(), 4u);
  }
}

TEST(V1DefectsTest, BlocksReturnedByAnotherThreadAreAvailableAtOnce) {
  auto manager = Manager::create(config_of(4, 4)).value();
  for (int i = 0; i < 100; ++i) {
    auto blocks = manager.device()->allocate_blocks_blocking(4).value();
    std::jthread([&] { blocks.clear(); }).join();
    ASSERT_EQ(manager.device()->available_blocks(), 4u) << i;
  }
}

// There, the second of two blocks with one name overwrote the first, which was lost.
TEST(V1DefectsTest, TwoBlocksOfOneNameAreNeverLost) {
  for (const Setting setting : {Setting::Disabled, Setting::Allowed}) {
    KvBlockManagerConfig config = config_of(4, 4);
    config.device_layout->duplicates = setting;
    auto manager = Manager::create(config).value();
    const auto tokens = prompt(1, 1);
    for (int i = 0; i < 20; ++i) {
      auto first = put(manager, tokens.blocks());
      auto second = put(manager, tokens.blocks());
      if (i % 2 == 0) first.clear();
      second.clear();
      first.clear();
      ASSERT_TRUE(manager.drain(seconds(30)));
      ASSERT_EQ(manager.device()->available_blocks(), 4u) << i;
      ASSERT_EQ(manager.device()->stats().registered_blocks, 1u);
    }
    EXPECT_EQ(manager.device()->allocate_blocks_blocking(4).value().size(), 4u);
    detail::ManagerAccess::core(manager).device->store().check_invariants();
  }
}

// There, registering a name whose block was on its way back blocked the whole pool until it came.
TEST(V1DefectsTest, ANameWhoseBlockIsHeldDelaysNobody) {
  auto manager = Manager::create(config_of(4, 4)).value();
  const auto tokens = prompt(1, 1);
  const auto held = put(manager, tokens.blocks());
  const auto again = put(manager, tokens.blocks());
  EXPECT_EQ(again[0].block_id(), held[0].block_id());
  EXPECT_TRUE(manager.device()->allocate_blocks_blocking(3).has_value());
}

// There, each call was a message to another thread.
TEST(V1DefectsTest, CallsAreDoneWhenTheyReturn) {
  auto manager = Manager::create(config_of(4, 4)).value();
  auto& pool = *manager.device();
  const auto hashes = prompt(1, 1).sequence_hashes();
  EXPECT_TRUE(pool.allocate_blocks(2).done());
  EXPECT_TRUE(pool.match_sequence_hashes(hashes).done());
  EXPECT_TRUE(pool.register_blocks(MutableBlocks<DeviceStorage>()).done());
}

// There, those before the failing one were registered and dropped without a word.
TEST(V1DefectsTest, AFailedMiddleOfARegistrationRegistersNothing) {
  auto manager = Manager::create(config_of(4, 4)).value();
  const auto tokens = prompt(1, 3);
  auto blocks = manager.device()->allocate_blocks_blocking(3).value();
  blocks[0].apply_token_block(tokens.blocks()[0]).value();
  blocks[2].apply_token_block(tokens.blocks()[2]).value();
  const auto refused = manager.device()->register_blocks_blocking(std::move(blocks));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().requested, 1u);
  EXPECT_EQ(manager.device()->stats().registered_blocks, 0u);
  EXPECT_EQ(manager.device()->stats().free_blocks, 4u);
  EXPECT_TRUE(manager.drain(seconds(30)));
  EXPECT_EQ(manager.host()->stats().registered_blocks, 0u) << "nor was anything offloaded";
}

// There, the registry learned of an eviction later, on another thread.
TEST(V1DefectsTest, AnEvictedNameIsGoneWhenTheAllocationReturns) {
  auto manager = Manager::create(config_of(1, 4)).value();
  for (Token i = 0; i < 100; ++i) {
    const auto tokens = prompt(i * 10, 1);
    put(manager, tokens.blocks());
    ASSERT_TRUE(manager.drain(seconds(30)));
    const auto taken = manager.device()->allocate_blocks_blocking(1).value();
    ASSERT_TRUE(manager.device()->match_run(tokens.sequence_hashes()).value().empty());
  }
}

// There, dropping a deep chain recursed once per block.
TEST(V1DefectsTest, AChainOfAHundredThousandBlocksIsDropped) {
  constexpr std::uint32_t kBlocks = 100000;
  // Names as plain as an engine may choose them: nothing may become slow by that.
  const auto hash = [](std::uint64_t i) { return SequenceHash(i); };
  const auto store = BlockStore::create({.capacity = kBlocks}).value();
  std::vector<detail::CompleteHold> blocks;
  std::vector<SequenceHash> hashes;
  for (auto& block : detail::allocate(*store, kBlocks).value()) {
    const auto position = static_cast<std::uint32_t>(blocks.size());
    hashes.push_back(hash(position + 1));
    blocks.push_back(
        detail::complete(std::move(block), {hash(position + 1), hash(position), position, kPage}));
  }
  detail::register_blocks(*store, std::move(blocks)).value();
  EXPECT_EQ(store->available_blocks(), kBlocks);
  detail::RunHold run = detail::match_run(*store, hashes);
  EXPECT_EQ(run.count(), kBlocks);
  EXPECT_EQ(store->available_blocks(), 0u);
  run = {};
  EXPECT_EQ(store->available_blocks(), kBlocks);
}

// --- transfers -------------------------------------------------------------------------------

// Fails every block while `failing` is set.
class Unreliable final : public TransferExecutor {
 public:
  Unreliable(std::unique_ptr<TransferExecutor> inner, const std::atomic<bool>& failing)
      : inner_(std::move(inner)), failing_(failing) {}
  void submit(TransferRequest request, Done done) override {
    if (!failing_) return inner_->submit(std::move(request), std::move(done));
    const std::size_t count = request.blocks.size();
    request.blocks.clear();  // nothing is copied
    inner_->submit(std::move(request), [count, done = std::move(done)](TransferResult) {
      TransferResult failed;
      for (std::size_t i = 0; i < count; ++i) {
        failed.blocks.emplace_back(Error{ErrorCode::OperationFailed, 5, 0, 0, "injected"});
      }
      done(std::move(failed));
    });
  }

 private:
  std::unique_ptr<TransferExecutor> inner_;
  const std::atomic<bool>& failing_;
};

// There, an error was logged, acknowledged as success, and the target registered with whatever
// bytes it had; and the counters had counted it before it began.
TEST(V1DefectsTest, AFailedTransferNeverRegisters) {
  std::atomic<bool> failing{true};
  auto manager = detail::ManagerAccess::create(config_of(4, 4), [&](auto inner) {
                   return std::make_unique<Unreliable>(std::move(inner), failing);
                 }).value();
  const auto tokens = prompt(1, 2);
  put(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  EXPECT_EQ(manager.host()->stats().registered_blocks, 0u);
  EXPECT_EQ(manager.host()->available_blocks(), 4u);
  const auto edge = [&](Edge at) {
    return manager.transfer_stats().edges[static_cast<std::size_t>(at)];
  };
  EXPECT_EQ(edge(Edge::DeviceToHost).blocks, 0u);
  EXPECT_EQ(edge(Edge::DeviceToHost).failed, 2u);

  failing = false;
  manager.device()->reset().value();
  put(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(seconds(30)));
  manager.device()->reset().value();
  failing = true;
  auto loaded = std::move(manager.onboard(manager.lookup(tokens.sequence_hashes())).value()).get();
  ASSERT_EQ(loaded.blocks.size(), 2u);
  EXPECT_EQ(loaded.valid_prefix(), 0u);
  EXPECT_EQ(loaded.blocks[0].error().code, ErrorCode::OperationFailed);
  EXPECT_EQ(manager.device()->stats().registered_blocks, 0u);
  EXPECT_EQ(edge(Edge::HostToDevice).blocks, 0u);
  EXPECT_EQ(edge(Edge::HostToDevice).failed, 2u);
}

// There, block sizes were kept once per process: the second model used the first one's.
TEST(V1DefectsTest, TwoManagersWithDifferentLayoutsLiveInOneProcess) {
  auto small = Manager::create(config_of(4, 4, 2, 8)).value();
  auto large = Manager::create(config_of(4, 4, 5, 100)).value();
  const auto tokens = prompt(1, 3);
  for (Manager* manager : {&small, &large}) {
    put(*manager, tokens.blocks());
    ASSERT_TRUE(manager->drain(seconds(30)));
    manager->device()->reset().value();
  }
  for (Manager* manager : {&small, &large}) {
    const auto loaded =
        std::move(manager->onboard(manager->lookup(tokens.sequence_hashes())).value()).get();
    ASSERT_EQ(loaded.valid_prefix(), 3u);
    for (const auto& block : loaded.blocks) EXPECT_TRUE(is_right(*block));
  }
}

// There, an empty transfer was a warning, and empty registrations an error.
TEST(V1DefectsTest, NothingToMoveIsDone) {
  auto manager = Manager::create(config_of(4, 4)).value();
  auto completion = manager.onboard(manager.lookup(std::span<const SequenceHash>())).value();
  EXPECT_TRUE(completion.done());
  EXPECT_TRUE(std::move(completion).get().blocks.empty());
}

// A caller's thread that runs a task when it is told to.
class ByHand final : public Executor {
 public:
  void post(std::function<void()> task) override {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    posted_.notify_all();
  }
  void run_until_drained(Manager& manager) {
    std::jthread runner([this](std::stop_token stop) {
      std::unique_lock lock(mutex_);
      while (posted_.wait(lock, stop, [this] { return !tasks_.empty(); })) {
        const auto task = std::move(tasks_.front());
        tasks_.pop_front();
        lock.unlock();
        task();
        lock.lock();
      }
    });
    EXPECT_TRUE(manager.drain(seconds(30)));
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any posted_;
  std::deque<std::function<void()>> tasks_;
};

// There, a queued offload named a block that might carry other content by its turn.
TEST(V1DefectsTest, AnOffloadThatWaitedTooLongCopiesNoOtherContent) {
  const auto by_hand = std::make_shared<ByHand>();
  KvBlockManagerConfig config = config_of(8, 16);
  config.runtime.async_runtime = by_hand;
  auto manager = Manager::create(config).value();
  std::vector<TokenBlockSequence> prompts;
  for (Token i = 0; i < 12; ++i) {  // more than the path takes at once, and than the device has
    prompts.push_back(prompt(i * 100, 1));
    put(manager, prompts.back().blocks());
  }
  by_hand->run_until_drained(manager);
  std::size_t offloaded = 0;
  for (const auto& tokens : prompts) {
    const auto found =
        manager.host()->match_sequence_hashes_blocking(tokens.sequence_hashes()).value();
    for (const auto& block : found) EXPECT_TRUE(is_right(block));
    offloaded += found.size();
  }
  EXPECT_GE(offloaded, 8u) << "what was not evicted before its turn";
  EXPECT_LT(offloaded, 12u) << "the test must see an eviction";
}

// There, constant load starved whoever wanted to end.
TEST(V1DefectsTest, ClosingIsNotStarvedByLoad) {
  auto manager = Manager::create(config_of(4, 4)).value();
  std::atomic<int> refused{0};
  std::atomic<int> rounds{0};
  {
    std::vector<std::jthread> load;
    for (int t = 0; t < 2; ++t) {
      load.emplace_back([&] {
        while (manager.device()->allocate_blocks_blocking(1).has_value()) {
          ++rounds;
          rounds.notify_all();
        }
        ++refused;
      });
    }
    rounds.wait(0);
    manager.close();
  }
  EXPECT_EQ(refused, 2);
}

}  // namespace
}  // namespace kvbm
