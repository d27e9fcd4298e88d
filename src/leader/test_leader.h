// For tests: leaders of ranks that are served here, or that the test plays.
#pragma once

#include <array>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kvbm/leader.h"
#include "leader/rank_server.h"
#include "leader/test_peer.h"
#include "leader/test_service.h"

namespace kvbm::leader {

using std::chrono::milliseconds;
inline constexpr milliseconds kLong{60'000};  // for what must come by itself
inline constexpr milliseconds kShort{20};     // for what never comes

// The states that a leader told of.
class States {
 public:
  std::function<void(const RankHealth&)> listener() {
    return [this](const RankHealth& health) {
      MutexLock lock(mutex_);
      told_.push_back(health);
      changed_.notify_all();
    };
  }
  // Waits until the rank has the state; returns why.
  std::string wait_for(std::size_t rank, RankState state) {
    MutexLock lock(mutex_);
    for (;;) {
      for (auto last = told_.rbegin(); last != told_.rend(); ++last) {
        if (last->rank != rank) continue;
        if (last->state == state) return last->reason;
        break;
      }
      changed_.wait(mutex_);
    }
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<RankHealth> told_;
};

// A fixture inherits it.
class LeaderWorld {
 protected:
  LeaderConfig config(std::size_t ranks, milliseconds timeout = kLong) {
    LeaderConfig config;
    for (std::size_t i = 0; i < ranks; ++i) config.sockets.push_back(path(i));
    config.lookup_timeout = timeout;
    config.first_reconnect = config.longest_reconnect = milliseconds(1);
    config.on_rank_change = states_.listener();
    return config;
  }
  std::string path(std::size_t rank) const { return folder_ / ("rank" + std::to_string(rank)); }
  void serve(std::size_t rank) {
    servers_[rank] = RankServer::start(*services_[rank], {.socket = path(rank)}).value();
  }
  // A rank for each of these numbers of blocks.
  void serve_all(std::initializer_list<std::uint32_t> blocks) {
    std::size_t rank = 0;
    for (const std::uint32_t count : blocks) {
      services_[rank] = std::make_unique<TestService>(count, rank + 1);
      serve(rank++);
    }
  }
  // A leader of rank 0, which is a server, and rank 1, which the test plays.
  struct Played {
    Leader leader;
    TestPeer peer;
  };
  Played play(LeaderConfig config) {
    serve_all({4});
    auto peer = std::async([this] { return TestPeer::accept(*listener_, services_[0]->info()); });
    Leader leader = Leader::create(std::move(config)).value();
    states_.wait_for(1, RankState::Ready);
    return {std::move(leader), peer.get()};
  }
  static std::future<LeaderPlan> ask(Leader& leader) {
    return std::async([&leader] { return leader.lookup(prefix(6)).value(); });
  }
  // Whether a lookup of 6 blocks finds none and has no plans.
  static bool misses(Leader& leader) {
    const auto plan = leader.lookup(prefix(6)).value();
    leader.check_invariants();
    return plan.blocks() == 0 && plan.ranks().empty();
  }

  const TestFolder folder_;
  States states_;
  std::array<std::unique_ptr<TestService>, 4> services_;
  std::array<std::unique_ptr<RankServer>, 4> servers_;
  std::optional<Listener> listener_ = Listener::open(path(1)).value();  // of a played rank 1
};

}  // namespace kvbm::leader
