// Where blocks are, and forgetting them in all tiers at once, whatever moves meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <future>
#include <mutex>
#include <numeric>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"

namespace kvbm {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;

constexpr std::size_t kPage = 4;
constexpr auto kLong = seconds(30);

KvBlockManagerConfig small_config() {
  KvBlockManagerConfig config;
  config.model = {
      .num_layers = 2, .outer_dim = 1, .page_size = kPage, .inner_dim = 8, .dtype = DType::BF16};
  config.device_layout = {.num_blocks = 8,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>()};
  config.host_layout = {.num_blocks = 8, .allocator = std::make_shared<PinnedAllocator>()};
  config.disk_layout = {.num_blocks = 8,
                        .allocator = std::make_shared<DiskAllocator>(testing::TempDir())};
  return config;
}

TokenBlockSequence prompt(Token first, std::size_t blocks, const HashSeeds& seeds = {}) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage, seeds).value();
}

HashSeeds keyed(char secret) {
  const std::vector<std::byte> bytes(32, std::byte(secret));
  return {.key = DigestKey::create(bytes).value()};
}

void put(ReferenceBlockManager& manager, std::span<const TokenBlock> tokens,
         NamespaceId name_space = 0) {
  auto blocks = manager.device()->allocate_blocks_blocking(tokens.size()).value();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    blocks[i].apply_token_block(tokens[i], name_space).value();
  }
  manager.device()->register_blocks_blocking(std::move(blocks)).value();
}

// Evicts all that is on the device.
void clear_device(ReferenceBlockManager& manager) {
  manager.device()->allocate_blocks_blocking(manager.device()->total_blocks()).value();
}
void clear_host(ReferenceBlockManager& manager) {
  manager.host()->allocate_blocks_blocking(manager.host()->total_blocks()).value();
}

// "GHD": device, host and disk have it; "---": none.
std::string where(const ReferenceBlockManager& manager, SequenceHash hash, NamespaceId space = 0) {
  const Presence presence = manager.presence(hash, space);
  const std::string text = {presence.device ? 'G' : '-', presence.host ? 'H' : '-',
                            presence.disk ? 'D' : '-'};
  EXPECT_EQ(presence.anywhere(), text != "---");
  return text;
}

// Keeps transfers, while it is shut, until the test lets them go.
class Gate final : public TransferExecutor {
 public:
  struct State {
    std::mutex mutex;
    bool open = true;
    std::deque<std::pair<TransferRequest, Done>> waiting;
    TransferExecutor* inner = nullptr;

    void shut() {
      const std::lock_guard lock(mutex);
      open = false;
    }
    // Lets those go that wait now; later ones wait again unless the gate is opened.
    void let_through() {
      std::deque<std::pair<TransferRequest, Done>> released;
      {
        const std::lock_guard lock(mutex);
        released.swap(waiting);
      }
      for (auto& [request, done] : released) inner->submit(std::move(request), std::move(done));
    }
    void open_for_good() {
      {
        const std::lock_guard lock(mutex);
        open = true;
      }
      let_through();
    }
    std::size_t count() {
      const std::lock_guard lock(mutex);
      return waiting.size();
    }
  };

  Gate(std::unique_ptr<TransferExecutor> inner, std::shared_ptr<State> state)
      : inner_(std::move(inner)), state_(std::move(state)) {
    state_->inner = inner_.get();
  }
  void submit(TransferRequest request, Done done) override {
    {
      const std::lock_guard lock(state_->mutex);
      if (!state_->open) {
        state_->waiting.emplace_back(std::move(request), std::move(done));
        return;
      }
    }
    inner_->submit(std::move(request), std::move(done));
  }

 private:
  std::unique_ptr<TransferExecutor> inner_;
  std::shared_ptr<State> state_;
};

class ResetRaceTest : public testing::Test {
 protected:
  // Two blocks that are in host and disk alone.
  void put_below() {
    put(manager_, tokens_.blocks());
    ASSERT_TRUE(manager_.drain(kLong));
    clear_device(manager_);
    ASSERT_EQ(where(manager_, hashes_[0]), "-HD");
    ASSERT_EQ(where(manager_, hashes_[1]), "-HD");
  }
  void expect_nowhere() {
    for (const SequenceHash hash : hashes_) EXPECT_EQ(where(manager_, hash), "---");
    EXPECT_EQ(manager_.lookup(hashes_).size(), 0u);
  }
  // Nothing is held or lost once all has ended.
  void expect_all_available() {
    EXPECT_EQ(manager_.device()->available_blocks(), 8u);
    EXPECT_EQ(manager_.host()->available_blocks(), 8u);
    EXPECT_EQ(manager_.disk()->available_blocks(), 8u);
    auto& core = detail::ManagerAccess::core(manager_);
    for (const auto& pool : {core.device, core.host, core.disk}) pool->store().check_invariants();
    core.driver->check_invariants();
  }

  std::shared_ptr<Gate::State> gate_ = std::make_shared<Gate::State>();
  ReferenceBlockManager manager_ =
      detail::ManagerAccess::create(small_config(), [this](auto inner) {
        return std::make_unique<Gate>(std::move(inner), gate_);
      }).value();
  const TokenBlockSequence tokens_ = prompt(1, 2);
  const std::vector<SequenceHash> hashes_ = tokens_.sequence_hashes();
};

// --- presence and lookup -----------------------------------------------------------------------

TEST(PresenceTest, TellsEachTierAndIsNoUse) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  const auto tokens = prompt(1, 1);
  const SequenceHash hash = tokens.sequence_hashes()[0];
  EXPECT_EQ(where(manager, hash), "---");
  put(manager, tokens.blocks());
  ASSERT_TRUE(manager.drain(kLong));
  EXPECT_EQ(where(manager, hash), "GHD");
  EXPECT_EQ(where(manager, hash, 1), "---") << "another namespace";
  EXPECT_EQ(manager.device()->stats().matches, 0u) << "nor is an offload";
  clear_device(manager);
  EXPECT_EQ(where(manager, hash), "-HD");
  clear_host(manager);
  EXPECT_EQ(where(manager, hash), "--D");
  manager.disk()->reset().value();
  EXPECT_EQ(where(manager, hash), "---");
}

TEST(PresenceTest, TiersThatAreNotConfiguredHaveNothing) {
  KvBlockManagerConfig config = small_config();
  config.host_layout.reset();
  config.disk_layout.reset();
  auto manager = ReferenceBlockManager::create(config).value();
  put(manager, prompt(1, 1).blocks());
  EXPECT_EQ(where(manager, prompt(1, 1).sequence_hashes()[0]), "G--");
  ASSERT_TRUE(manager.reset().has_value());
  EXPECT_EQ(where(manager, prompt(1, 1).sequence_hashes()[0]), "---");
}

TEST(PresenceTest, NamespacesGoAlongToEveryTier) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  const auto tokens = prompt(1, 2);
  put(manager, tokens.blocks(), 5);
  ASSERT_TRUE(manager.drain(kLong));
  EXPECT_EQ(where(manager, tokens.sequence_hashes()[1], 5), "GHD");
  EXPECT_EQ(where(manager, tokens.sequence_hashes()[1]), "---");
  clear_device(manager);
  clear_host(manager);
  EXPECT_EQ(manager.lookup(tokens.sequence_hashes()).size(), 0u);
  auto found = manager.lookup(tokens.sequence_hashes(), 5);
  EXPECT_EQ(found.count(Tier::Disk), 2u);
  EXPECT_EQ(std::move(manager.onboard(std::move(found)).value()).get().valid_prefix(), 2u);
  EXPECT_EQ(where(manager, tokens.sequence_hashes()[1], 5), "GHD");
  EXPECT_EQ(where(manager, tokens.sequence_hashes()[1]), "---");
}

TEST(PresenceTest, LookupByTokenBlocksComparesDigestsInEveryTier) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  const auto mine = prompt(1, 3, keyed('a'));
  const auto crafted = prompt(1, 3, keyed('b'));
  put(manager, mine.blocks());
  ASSERT_TRUE(manager.drain(kLong));
  for (const Tier tier : {Tier::Device, Tier::Host, Tier::Disk}) {
    EXPECT_EQ(manager.lookup(mine.blocks()).count(tier), 3u) << to_string(tier);
    EXPECT_EQ(manager.lookup(crafted.blocks()).size(), 0u) << to_string(tier);
    std::vector<TokenBlock> mixed(mine.blocks().begin(), mine.blocks().end());
    mixed[2] = crafted.blocks()[2];
    EXPECT_EQ(manager.lookup(mixed).size(), 2u) << to_string(tier);
    EXPECT_EQ(manager.lookup(mine.sequence_hashes()).size(), 3u);
    if (tier == Tier::Device) clear_device(manager);
    if (tier == Tier::Host) clear_host(manager);
  }
}

// --- reset -------------------------------------------------------------------------------------

TEST(ManagerResetTest, ForgetsEveryTierOrOneNamespaceOfEveryTier) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  const auto tokens = prompt(1, 2);
  const SequenceHash hash = tokens.sequence_hashes()[1];
  for (const NamespaceId space : {NamespaceId{0}, NamespaceId{1}, NamespaceId{2}}) {
    put(manager, tokens.blocks(), space);
    ASSERT_TRUE(manager.drain(kLong));
  }
  const auto held = manager.device()->match_run(tokens.sequence_hashes(), 1).value();
  ASSERT_TRUE(manager.reset(1).has_value());
  EXPECT_EQ(where(manager, hash, 0), "GHD");
  EXPECT_EQ(where(manager, hash, 1), "---");
  EXPECT_EQ(where(manager, hash, 2), "GHD");
  EXPECT_EQ(manager.lookup(tokens.sequence_hashes(), 1).size(), 0u);
  EXPECT_EQ(held.blocks()[1].sequence_hash(), hash) << "valid for its holder";
  ASSERT_TRUE(manager.reset().has_value());
  EXPECT_EQ(where(manager, hash, 0), "---");
  EXPECT_EQ(where(manager, hash, 2), "---");

  put(manager, tokens.blocks(), 1);
  ASSERT_TRUE(manager.drain(kLong));
  EXPECT_EQ(where(manager, hash, 1), "GHD") << "and all goes on";
}

TEST(ManagerResetTest, IsRefusedAfterClose) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  manager.close();
  for (const auto& refused : {manager.reset(), manager.reset(3)}) {
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::ProgressEngineShutdown);
  }
}

TEST(ManagerResetTest, AnEventManagerHearsWhatWasClearedInWhichTier) {
  struct Log final : EventManager {
    void block_allocated(BlockId) override {}
    void block_registered(BlockId, SequenceHash) override {}
    void block_matched(BlockId, SequenceHash) override {}
    void block_evicted(BlockId) override {}
    void blocks_cleared(Tier tier, NamespaceId space) override {
      cleared.push_back(std::string(to_string(tier)) + " " + std::to_string(space));
    }
    std::vector<std::string> cleared;
  };
  const auto log = std::make_shared<Log>();
  KvBlockManagerConfig config = small_config();
  config.event_manager = log;
  {
    auto manager = ReferenceBlockManager::create(config).value();
    put(manager, prompt(1, 2).blocks());
    put(manager, prompt(100, 2).blocks(), 7);
    put(manager, prompt(200, 1).blocks(), 3);
    ASSERT_TRUE(manager.drain(kLong));
    ASSERT_TRUE(manager.reset(7).has_value());
    ASSERT_TRUE(manager.reset().has_value());
  }  // delivers what is queued
  EXPECT_THAT(log->cleared, ElementsAre("device 7", "host 7", "disk 7", "device 0", "device 3",
                                        "host 0", "host 3", "disk 0", "disk 3"));
}

// --- what moves meanwhile ------------------------------------------------------------------------

TEST_F(ResetRaceTest, AnOffloadUnderWayArrivesForgotten) {
  gate_->shut();
  put(manager_, tokens_.blocks());
  ASSERT_GT(gate_->count(), 0u);
  ASSERT_TRUE(manager_.reset().has_value());
  gate_->open_for_good();
  ASSERT_TRUE(manager_.drain(kLong));
  expect_nowhere();
  EXPECT_EQ(manager_.disk()->stats().allocations, 0u) << "nor is it offered to the next tier";
  expect_all_available();
}

TEST_F(ResetRaceTest, AnOffloadToDiskUnderWayArrivesForgotten) {
  gate_->shut();
  put(manager_, tokens_.blocks());
  while (manager_.disk()->stats().allocations == 0) gate_->let_through();
  ASSERT_TRUE(manager_.reset(0).has_value());
  gate_->open_for_good();
  ASSERT_TRUE(manager_.drain(kLong));
  expect_nowhere();
  expect_all_available();
}

// The same name is registered again before the old copy arrives: the new bytes count.
TEST_F(ResetRaceTest, AnOldCopyDoesNotStandForTheNewBlock) {
  gate_->shut();
  put(manager_, tokens_.blocks());
  ASSERT_TRUE(manager_.reset().has_value());
  {
    auto blocks = manager_.device()->allocate_blocks_blocking(2).value();
    for (std::size_t i = 0; i < 2; ++i) {
      std::ranges::fill(blocks[i].layer_view_mut(0, 0).value().bytes(), std::byte{0x5a});
      blocks[i].apply_token_block(tokens_.blocks()[i]).value();
    }
    manager_.device()->register_blocks_blocking(std::move(blocks)).value();
  }
  gate_->open_for_good();
  ASSERT_TRUE(manager_.drain(kLong));
  EXPECT_EQ(where(manager_, hashes_[1]), "GHD");
  clear_device(manager_);
  const auto loaded = std::move(manager_.onboard(manager_.lookup(hashes_)).value()).get();
  ASSERT_EQ(loaded.valid_prefix(), 2u);
  for (const auto& block : loaded.blocks) {
    EXPECT_EQ(block->layer_view(0, 0).value().bytes()[3], std::byte{0x5a});
  }
}

TEST_F(ResetRaceTest, ALoadUnderWayArrivesForgotten) {
  put_below();
  gate_->shut();
  auto completion = manager_.onboard(manager_.lookup(hashes_)).value();
  ASSERT_GT(gate_->count(), 0u);
  ASSERT_TRUE(manager_.reset().has_value());
  gate_->open_for_good();
  {
    const OnboardResult<> loaded = std::move(completion).get();
    EXPECT_EQ(loaded.valid_prefix(), 2u) << "valid for who asked before the reset";
    EXPECT_EQ(loaded.blocks[1]->sequence_hash(), hashes_[1]);
    expect_nowhere();
  }
  ASSERT_TRUE(manager_.drain(kLong));
  expect_nowhere();
  expect_all_available();
}

TEST_F(ResetRaceTest, AStageFromDiskUnderWayArrivesForgottenInBothTiers) {
  put_below();
  clear_host(manager_);
  gate_->shut();
  auto completion = manager_.onboard(manager_.lookup(hashes_)).value();
  ASSERT_GT(gate_->count(), 0u);
  ASSERT_TRUE(manager_.reset(0).has_value());
  gate_->open_for_good();
  EXPECT_EQ(std::move(completion).get().valid_prefix(), 2u);
  ASSERT_TRUE(manager_.drain(kLong));
  expect_nowhere();
  expect_all_available();
}

// Between the lookup, or the preparation, and the start there is no transfer that a reset could
// see.
TEST_F(ResetRaceTest, ALookupOfBeforeBringsNothingBack) {
  put_below();
  Lookup before = manager_.lookup(hashes_);
  ASSERT_EQ(before.count(Tier::Host), 2u);
  ASSERT_TRUE(manager_.reset().has_value());
  EXPECT_EQ(std::move(manager_.onboard(std::move(before)).value()).get().valid_prefix(), 2u);
  ASSERT_TRUE(manager_.drain(kLong));
  expect_nowhere();
  expect_all_available();
}

TEST_F(ResetRaceTest, AnOnboardPreparedBeforeAndStartedAfterArrivesForgotten) {
  put_below();
  for (const bool from_disk : {false, true}) {
    if (from_disk) {
      put_below();
      clear_host(manager_);
    }
    auto& core = detail::ManagerAccess::core(manager_);
    auto work = detail::prepare_onboard(core, manager_.lookup(hashes_), {}).value();
    ASSERT_TRUE(detail::needs_transfers(*work));
    ASSERT_TRUE(manager_.reset().has_value());
    const auto arrived = std::make_shared<std::promise<std::ptrdiff_t>>();
    detail::start_onboard(core, std::move(work), {}, [arrived](detail::Moved blocks) {
      const auto good =
          std::ranges::count_if(blocks, [](const auto& block) { return block.has_value(); });
      blocks.clear();  // before the test goes on to count what is held
      arrived->set_value(good);
    });
    EXPECT_EQ(arrived->get_future().get(), 2);
    ASSERT_TRUE(manager_.drain(kLong));
    expect_nowhere();
    expect_all_available();
  }
}

TEST_F(ResetRaceTest, ABlockNamedBeforeAndRegisteredAfterIsFoundNowhere) {
  std::vector<CompleteBlock<DeviceStorage>> named;
  for (const TokenBlock& block : tokens_.blocks()) {
    named.push_back(manager_.device()->allocate_block().value().complete(block).value());
  }
  ASSERT_TRUE(manager_.reset().has_value());
  auto held = manager_.device()->register_blocks_blocking(std::move(named)).value();
  ASSERT_TRUE(manager_.drain(kLong));
  expect_nowhere();
  EXPECT_EQ(held[0].sequence_hash(), hashes_[0]) << "valid for its holder";
  EXPECT_EQ(manager_.host()->stats().allocations, 0u) << "it is not offloaded";
  held.clear();
  expect_all_available();
}

TEST_F(ResetRaceTest, AResetOfAnotherNamespaceDisturbsNothing) {
  gate_->shut();
  put(manager_, tokens_.blocks());
  ASSERT_TRUE(manager_.reset(1).has_value());
  gate_->open_for_good();
  ASSERT_TRUE(manager_.drain(kLong));
  EXPECT_EQ(where(manager_, hashes_[1]), "GHD");
  expect_all_available();
}

}  // namespace
}  // namespace kvbm
