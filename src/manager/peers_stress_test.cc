// Two managers, one of which loads what the other has.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "kvbm/kvbm.h"
#include "manager/test_gate.h"
#include "manager/test_manager.h"

namespace kvbm::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::ElementsAre;
using testing::HasSubstr;

class PeersTest : public testing::Test {
 protected:
  static KvBlockManagerConfig config_of(WorkerID worker) {
    KvBlockManagerConfig config = test_config();
    config.runtime.worker_id = worker;
    return config;
  }
  void start_owner(KvBlockManagerConfig config = config_of(1)) {
    config.runtime.sharing.listen = address_;
    owner_.emplace(ReferenceBlockManager::create(config).value());
    address_ = owner_->sharing_address();
  }
  void start_reader(KvBlockManagerConfig config = config_of(2)) {
    config.runtime.sharing.peers = {address_};
    reader_.emplace(ReferenceBlockManager::create(config).value());
  }
  void expect_state(PeerState state) {
    const auto end = steady_clock::now() + kTestPatience;
    while (reader_->peers().front().state != state && steady_clock::now() < end) {
      std::this_thread::yield();
    }
    ASSERT_EQ(reader_->peers().front().state, state) << reader_->peers().front().reason;
  }
  // A reader that knows the owner, who has the blocks of the prompt in its host tier and on disk.
  void start_both() {
    start_owner();
    start_reader();
    compute_and_drain(*owner_, prompt_.blocks());
    clear(*owner_->device());
    expect_state(PeerState::Up);
  }
  Lookup look(LookupOptions options = {.peers_timeout = kTestPatience}) {
    return reader_->lookup_with_peers(prompt_.blocks(), 0, options).get();
  }
  std::vector<std::optional<ErrorCode>> onboard(Lookup found) {
    const auto loaded = reader_->onboard(std::move(found)).value().get();
    std::vector<std::optional<ErrorCode>> errors;
    for (const auto& block : loaded.blocks) {
      errors.push_back(block ? std::nullopt : std::optional(block.error().code));
      if (block) {
        EXPECT_TRUE(is_right(*block));
      }
    }
    return errors;
  }
  std::uint64_t pulled() {
    return reader_->transfer_stats().edges[static_cast<std::size_t>(Edge::PeerToHost)].blocks;
  }

  const TokenBlockSequence prompt_ = test_prompt(0, 4);
  std::string address_ = "127.0.0.1:0";
  std::optional<ReferenceBlockManager> owner_;
  std::optional<ReferenceBlockManager> reader_;
};

constexpr std::nullopt_t kThere = std::nullopt;

TEST_F(PeersTest, WhatAPeerHasIsLoadedFromThere) {
  start_both();
  Lookup found = look();
  EXPECT_EQ(found.size(), 4u);
  EXPECT_EQ(found.count(Tier::Remote), 4u);
  EXPECT_EQ(found.tier(0), Tier::Remote);
  EXPECT_THAT(onboard(std::move(found)), ElementsAre(kThere, kThere, kThere, kThere));
  EXPECT_EQ(pulled(), 4u);
  EXPECT_EQ(look().count(Tier::Remote), 0u) << "it is here now";
  const PeersStats stats = reader_->peers_stats();
  EXPECT_EQ(stats.lookups, 1u);
  EXPECT_EQ(stats.hits, 1u);
}

TEST_F(PeersTest, WhatIsHereIsNotAskedFor) {
  start_both();
  compute_and_drain(*reader_, prompt_.blocks().first(2));
  Lookup found = look();
  EXPECT_EQ(found.count(Tier::Device), 2u);
  EXPECT_EQ(found.count(Tier::Remote), 2u);
  EXPECT_THAT(onboard(std::move(found)), ElementsAre(kThere, kThere, kThere, kThere));
  EXPECT_EQ(pulled(), 2u);
}

TEST_F(PeersTest, BlocksOnThePeersDiskComeToo) {
  start_both();
  clear(*owner_->host());
  EXPECT_THAT(onboard(look()), ElementsAre(kThere, kThere, kThere, kThere));
  EXPECT_EQ(pulled(), 4u);
}

TEST_F(PeersTest, APlanKeepsThePeersBlocksUntilItIsUsed) {
  start_both();
  Lookup found = look();
  EXPECT_EQ(owner_->host()->available_blocks(), owner_->host()->total_blocks() - 4);
  EXPECT_THAT(onboard(std::move(found)), ElementsAre(kThere, kThere, kThere, kThere));
  const auto end = steady_clock::now() + kTestPatience;
  while (owner_->host()->available_blocks() < owner_->host()->total_blocks()) {
    ASSERT_LT(steady_clock::now(), end) << "the plan is not given back";
    std::this_thread::yield();
  }
}

TEST_F(PeersTest, AResetOfThePeerAfterItWasAskedIsAMiss) {
  start_both();
  Lookup found = look();
  owner_->reset().value();
  const auto gone = std::optional(ErrorCode::PlanExpired);
  EXPECT_THAT(onboard(std::move(found)), ElementsAre(gone, gone, gone, gone));
  EXPECT_EQ(reader_->host()->available_blocks(), reader_->host()->total_blocks());
  EXPECT_FALSE(reader_->presence(prompt_.blocks()[0].sequence_hash()).anywhere());
}

TEST_F(PeersTest, AResetHereAfterThePeerWasAskedLeavesNothingToFind) {
  start_both();
  Lookup found = look();
  reader_->reset().value();
  onboard(std::move(found));
  EXPECT_FALSE(reader_->presence(prompt_.blocks()[0].sequence_hash()).anywhere());
}

TEST_F(PeersTest, APeerThatGoesIsAMissAndComesBack) {
  start_both();
  Lookup found = look();
  owner_.reset();
  for (const auto& error : onboard(std::move(found))) EXPECT_TRUE(error);
  EXPECT_EQ(look({.peers_timeout = milliseconds(1)}).size(), 0u);
  start_owner();
  compute_and_drain(*owner_, prompt_.blocks());
  expect_state(PeerState::Up);
  EXPECT_THAT(onboard(look()), ElementsAre(kThere, kThere, kThere, kThere));
}

TEST_F(PeersTest, ALookupWithoutPeersIsTheLocalOne) {
  reader_.emplace(ReferenceBlockManager::create(config_of(2)).value());
  compute_and_drain(*reader_, prompt_.blocks().first(3));
  EXPECT_EQ(look().size(), 3u);
  EXPECT_TRUE(reader_->peers().empty());
  EXPECT_EQ(reader_->sharing_address(), "");
}

TEST_F(PeersTest, WhatTheRequestWaitsForEndsWithTheManager) {
  start_both();
  Lookup found = look();
  auto completion = reader_->onboard(std::move(found)).value();
  reader_->close();
  for (const auto& block : std::move(completion).get().blocks) {
    if (block) {
      EXPECT_TRUE(is_right(*block));
    }
  }
}

TEST_F(PeersTest, AWorkerOfAnotherModelIsRefusedWithBothNames) {
  KvBlockManagerConfig other = config_of(1);
  other.model.name = "another model";
  start_owner(other);
  start_reader();
  expect_state(PeerState::Refused);
  EXPECT_THAT(reader_->peers().front().reason, HasSubstr("another model"));
  EXPECT_EQ(look().size(), 0u);
}

TEST_F(PeersTest, BadAddressesAreNamed) {
  KvBlockManagerConfig config = config_of(2);
  config.runtime.sharing.peers = {"nowhere"};
  auto refused = ReferenceBlockManager::create(config);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("runtime.sharing.peers"));
  EXPECT_THAT(refused.error().message, HasSubstr("nowhere"));

  config = config_of(1);
  config.runtime.sharing.listen = "0.0.0.0:0";
  refused = ReferenceBlockManager::create(config);
  ASSERT_FALSE(refused) << "others could reach it without a secret";
  EXPECT_THAT(refused.error().message, HasSubstr("runtime.sharing.listen"));

  config = test_config(8, 0, 8);
  config.runtime.sharing.listen = "127.0.0.1:0";
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("host_layout")));
}

}  // namespace
}  // namespace kvbm::detail
