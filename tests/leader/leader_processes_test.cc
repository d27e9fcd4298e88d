// Ranks and leaders that are killed, stopped and started again cost misses and leases, never a
// hang and never a plan of another question.
//
// KVBM_SEED repeats the kills, as far as the system does; KVBM_KILLS is how many there are.
#include <gtest/gtest.h>

#include <cinttypes>
#include <condition_variable>
#include <cstdlib>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "child.h"
#include "kvbm/leader.h"
#include "leader/test_peer.h"
#include "leader/test_service.h"

namespace kvbm::leader {
namespace {

using std::chrono::milliseconds;

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* given = std::getenv(variable);
  return given ? std::strtoull(given, nullptr, 10) : otherwise;
}

// The number of ranks.
class LeaderProcessesTest : public testing::TestWithParam<std::size_t> {
 protected:
  std::string path(std::size_t rank) const { return folder_ / ("rank" + std::to_string(rank)); }

  // Rank r has 4 + r blocks. Every process has an epoch of its own.
  void start_rank(std::size_t rank) {
    epochs_[rank] = ++last_epoch_;
    const std::vector<std::string> command = {KVBM_LEADER_PROCESS, "rank", path(rank),
                                              std::to_string(4 + rank),
                                              std::to_string(epochs_[rank])};
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
  Leader lead(milliseconds timeout = milliseconds(60'000)) {
    LeaderConfig config{.sockets = sockets(), .lookup_timeout = timeout};
    config.first_reconnect = config.longest_reconnect = milliseconds(1);
    config.on_rank_change = [this](const RankHealth& health) {
      const std::lock_guard lock(mutex_);
      health_[health.rank] = health;
      changed_.notify_all();
    };
    return Leader::create(std::move(config)).value();
  }
  // Of the process that runs now.
  void wait_until_ready(std::size_t rank) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      const RankHealth& health = health_[rank];
      return health.state == RankState::Ready && health.info.epoch == epochs_[rank];
    });
  }
  void wait_until(std::size_t rank, RankState state) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return health_[rank].state == state; });
  }
  std::size_t last_rank() const { return GetParam() - 1; }

  const TestFolder folder_;
  std::map<std::size_t, std::uint64_t> epochs_;
  std::uint64_t last_epoch_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::size_t, RankHealth> health_;
  std::map<std::size_t, std::unique_ptr<Child>> ranks_;
};

TEST_P(LeaderProcessesTest, TheShortestPrefixOfAllRanksIsFound) {
  start_ranks();
  Leader leader = lead();
  {
    const auto plan = leader.lookup(prefix(10)).value();
    EXPECT_EQ(plan.blocks(), 4u);
    for (std::size_t rank = 0; rank < GetParam(); ++rank) {
      EXPECT_EQ(ranks_[rank]->tell("plan " + std::to_string(plan.plan_ids()[rank])), 4u);
    }
  }
  for (auto& [_, rank] : ranks_) rank->tell("await-plans 0");
}

TEST_P(LeaderProcessesTest, ARankThatIsKilledWhileItIsAskedMakesAMiss) {
  start_ranks();
  Leader leader = lead();
  ranks_[last_rank()]->tell("hold");
  auto asked = std::async([&] { return leader.lookup(prefix(10)).value().blocks(); });
  ranks_[last_rank()]->tell("await-lookups 1");
  ranks_[last_rank()]->kill();
  EXPECT_EQ(asked.get(), 0u);
  EXPECT_EQ(leader.stats().failures, 1u);
  wait_until(last_rank(), RankState::Down);
  EXPECT_EQ(leader.lookup(prefix(10)).value().blocks(), 0u);
  for (std::size_t rank = 0; rank < last_rank(); ++rank) ranks_[rank]->tell("await-plans 0");

  start_rank(last_rank());  // where the dead one's socket is
  wait_until_ready(last_rank());
  EXPECT_EQ(leader.lookup(prefix(10)).value().blocks(), 4u);
}

TEST_P(LeaderProcessesTest, TheLeasesOfAKilledLeaderExpireAndTheNextOneIsAnswered) {
  start_ranks();
  std::vector<std::string> command = {KVBM_LEADER_PROCESS, "leader"};
  for (const std::string& socket : sockets()) command.push_back(socket);
  Child first(command);
  ASSERT_EQ(first.read_line(), "ready");
  EXPECT_EQ(first.tell("lookup 3"), 3u);
  EXPECT_EQ(first.tell("lookup 10"), 4u);
  first.kill();
  Leader next = lead();
  EXPECT_EQ(next.lookup(prefix(2)).value().blocks(), 2u);
  for (auto& [_, rank] : ranks_) {
    rank->tell("await-plans 2");  // those of the killed one
    rank->tell("advance 29999");
    EXPECT_EQ(rank->tell("plans"), 2u);
    rank->tell("advance 1");
    EXPECT_EQ(rank->tell("plans"), 0u);
  }
}

TEST_P(LeaderProcessesTest, AStoppedRankMakesAMissAndIsAskedAgainWhenItGoesOn) {
  start_ranks();
  Leader leader = lead(milliseconds(50));
  ranks_[last_rank()]->stop();
  EXPECT_EQ(leader.lookup(prefix(10)).value().blocks(), 0u);
  EXPECT_EQ(leader.stats().timeouts, 1u);
  wait_until(last_rank(), RankState::Stalled);
  EXPECT_EQ(leader.lookup(prefix(10)).value().blocks(), 0u);
  EXPECT_EQ(leader.stats().timeouts, 1u) << "once is enough";
  ranks_[last_rank()]->resume();
  wait_until(last_rank(), RankState::Ready);
  for (auto& [_, rank] : ranks_) rank->tell("await-plans 0");
  EXPECT_EQ(leader.stats().late_answers, 1u);
  leader.check_invariants();
}

TEST_P(LeaderProcessesTest, NoKillAtAnyTimeLeavesAWrongPlan) {
  const std::uint64_t seed = number_from("KVBM_SEED", std::random_device()());
  SCOPED_TRACE(testing::Message() << "KVBM_SEED=" << seed);
  std::mt19937_64 random(seed);
  start_ranks();
  Leader leader = lead();
  std::uint64_t hits = 0;
  const std::uint64_t kills = number_from("KVBM_KILLS", 30);
  for (std::uint64_t i = 0; i < kills; ++i) {
    const std::size_t victim = random() % GetParam();
    const std::size_t wanted = 1 + random() % 10;
    auto asked = std::async([&] { return leader.lookup(prefix(wanted)).value(); });
    for (std::uint64_t spins = random() % 100; spins > 0; --spins) std::this_thread::yield();
    ranks_[victim]->kill();
    const LeaderPlan plan = asked.get();
    leader.check_invariants();
    if (plan.blocks() > 0) {
      ++hits;
      EXPECT_EQ(plan.blocks(), std::min<std::size_t>(wanted, 4));
    }
    for (const RankPlan& of_rank : plan.ranks()) {
      const auto rank = static_cast<std::size_t>(&of_rank - plan.ranks().data());
      if (rank == victim) continue;
      EXPECT_EQ(of_rank.epoch, epochs_[rank]);
      EXPECT_EQ(ranks_[rank]->tell("plan " + std::to_string(of_rank.plan)), plan.blocks());
    }
    start_rank(victim);
    if (HasFatalFailure()) return;
    wait_until_ready(victim);
    EXPECT_EQ(leader.lookup(prefix(10)).value().blocks(), 4u);
  }
  std::printf("KVBM_SEED=%" PRIu64 ": %" PRIu64 " of %" PRIu64 " lookups came before the kill\n",
              seed, hits, kills);
}

INSTANTIATE_TEST_SUITE_P(Ranks, LeaderProcessesTest, testing::Values(1, 2, 4));

}  // namespace
}  // namespace kvbm::leader
