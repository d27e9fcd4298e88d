// Ranks that are processes with managers of their own: what a leader finds is onboarded there, and
// whoever is killed costs misses and leases.
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>

#include "child.h"
#include "leader/test_peer.h"
#include "manager/test_manager.h"

namespace kvbm::leader {
namespace {

using detail::test_prompt;
using std::chrono::milliseconds;

constexpr milliseconds kLong{60'000};

// The number of ranks.
class ManagerProcessesTest : public testing::TestWithParam<std::size_t> {
 protected:
  std::string path(std::size_t rank) const { return folder_ / ("rank" + std::to_string(rank)); }
  // Rank r has computed 4 + r blocks of the prompt.
  void start_rank(std::size_t rank) {
    const std::vector<std::string> command = {KVBM_MANAGER_PROCESS, "rank", path(rank),
                                              std::to_string(rank), std::to_string(4 + rank)};
    ranks_[rank] = std::make_unique<Child>(command);
    ASSERT_EQ(ranks_[rank]->read_line(), "ready");
  }
  void start_ranks() {
    for (std::size_t rank = 0; rank < GetParam(); ++rank) start_rank(rank);
  }
  std::vector<std::string> sockets() const {
    std::vector<std::string> sockets;
    for (std::size_t rank = 0; rank < GetParam(); ++rank) sockets.push_back(path(rank));
    return sockets;
  }
  Leader lead(milliseconds lease = kLong) {
    LeaderConfig config{.sockets = sockets(), .lookup_timeout = kLong, .lease = lease};
    config.first_reconnect = config.longest_reconnect = milliseconds(1);
    config.on_rank_change = [this](const RankHealth& health) {
      const std::lock_guard lock(mutex_);
      health_[health.rank] = health;
      changed_.notify_all();
    };
    return Leader::create(std::move(config)).value();
  }
  // The epoch of its process.
  std::uint64_t wait_until(std::size_t rank, RankState state) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return health_[rank].state == state; });
    return health_[rank].info.epoch;
  }
  std::size_t last_rank() const { return GetParam() - 1; }

  const TestFolder folder_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::size_t, RankHealth> health_;
  std::map<std::size_t, std::unique_ptr<Child>> ranks_;
};

TEST_P(ManagerProcessesTest, TheShortestPrefixIsOnboardedAtEveryRank) {
  start_ranks();
  Leader leader = lead();
  auto plan = leader.lookup(test_prompt(0, 10).blocks()).value();
  ASSERT_EQ(plan.blocks(), 4u);
  const auto ids = plan.plan_ids();
  for (std::size_t rank = 0; rank < GetParam(); ++rank) {
    EXPECT_EQ(plan.ranks()[rank].worker_id, rank);
    EXPECT_EQ(plan.ranks()[rank].by_tier[0], 2u);
    EXPECT_EQ(plan.ranks()[rank].by_tier[1], 2u);
  }
  plan.keep();
  for (std::size_t rank = 0; rank < GetParam(); ++rank) {
    EXPECT_EQ(ranks_[rank]->tell("onboard " + std::to_string(ids[rank])), 4u);
    EXPECT_EQ(ranks_[rank]->tell("onboard " + std::to_string(ids[rank])), 0u) << "it was used";
    ranks_[rank]->tell("await-free");
  }
}

TEST_P(ManagerProcessesTest, WhatOneRankForgotIsAMissForAll) {
  start_ranks();
  Leader leader = lead();
  ranks_[last_rank()]->tell("reset");
  EXPECT_EQ(leader.lookup(test_prompt(0, 10).blocks()).value().blocks(), 0u);
  EXPECT_EQ(leader.stats().empty, 1u);
  for (auto& [_, rank] : ranks_) {
    rank->tell("await-plans 0");
    rank->tell("await-free");
  }
}

TEST_P(ManagerProcessesTest, AKilledRankIsAMissUntilItIsBackWithoutItsPlans) {
  start_ranks();
  Leader leader = lead();
  const std::uint64_t epoch = wait_until(last_rank(), RankState::Ready);
  auto plan = leader.lookup(test_prompt(0, 10).blocks()).value();
  ASSERT_EQ(plan.blocks(), 4u);
  const auto ids = plan.plan_ids();
  plan.keep();
  ranks_[last_rank()]->kill();
  EXPECT_EQ(leader.lookup(test_prompt(0, 10).blocks()).value().blocks(), 0u);
  wait_until(last_rank(), RankState::Down);
  for (std::size_t rank = 0; rank < last_rank(); ++rank) {
    EXPECT_EQ(ranks_[rank]->tell("onboard " + std::to_string(ids[rank])), 4u);
    ranks_[rank]->tell("await-plans 0");
  }

  start_rank(last_rank());
  EXPECT_NE(wait_until(last_rank(), RankState::Ready), epoch);
  EXPECT_EQ(leader.lookup(test_prompt(0, 10).blocks()).value().blocks(), 4u);
  EXPECT_EQ(ranks_[last_rank()]->tell("onboard " + std::to_string(ids.back())), 0u)
      << "a plan of its former life";
  leader.check_invariants();
}

TEST_P(ManagerProcessesTest, APlanThatNobodyUsedExpires) {
  start_ranks();
  Leader leader = lead(milliseconds(1));
  // Its lease may be over before it is trimmed, which is a miss.
  const auto ids = leader.lookup(test_prompt(0, 4).blocks()).value().plan_ids();
  for (auto& [_, rank] : ranks_) {
    rank->tell("await-plans 0");
    rank->tell("await-free");
  }
  for (std::size_t rank = 0; rank < ids.size(); ++rank) {
    EXPECT_EQ(ranks_[rank]->tell("onboard " + std::to_string(ids[rank])), 0u);
  }
}

TEST_P(ManagerProcessesTest, TheLeasesOfAKilledLeaderExpireAndTheNextOneIsAnswered) {
  start_ranks();
  std::vector<std::string> command = {KVBM_MANAGER_PROCESS, "leader", "300"};
  for (const std::string& socket : sockets()) command.push_back(socket);
  Child first(command);
  ASSERT_EQ(first.read_line(), "ready");
  EXPECT_EQ(first.tell("lookup 3"), 3u);
  first.kill();
  Leader next = lead();
  const auto plan = next.lookup(test_prompt(0, 2).blocks()).value();
  EXPECT_EQ(plan.blocks(), 2u);
  for (std::size_t rank = 0; rank < GetParam(); ++rank) {
    ranks_[rank]->tell("await-plans 1");  // the next one's
    EXPECT_EQ(ranks_[rank]->tell("onboard " + std::to_string(plan.plan_ids()[rank])), 2u);
    ranks_[rank]->tell("await-free");
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, ManagerProcessesTest, testing::Values(1, 2, 4));

}  // namespace
}  // namespace kvbm::leader
