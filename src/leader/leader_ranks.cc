// The leader's thread: it reads answers and keeps the ranks connected.
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "leader/agreement.h"
#include "leader/leader_core.h"
#include "leader/socket_path.h"

namespace kvbm::detail {
namespace {

Error wrong(std::string what) {
  return Error{ErrorCode::OperationFailed, 0, 0, 0, std::move(what)};
}

std::string name_of(const RankHealth& health) {
  return "rank " + std::to_string(health.rank) + " (" + health.socket + ")";
}

}  // namespace

void LeaderCore::run() {
  std::vector<pollfd> polled;
  for (;;) {
    int timeout = 0;
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      const auto now = Clock::now();
      look_after(now);
      timeout = prepare(polled, now);
    }
    tell_changes();
    if (::poll(polled.data(), polled.size(), timeout) <= 0) continue;
    if (eventfd_t count = 0; polled[0].revents != 0) ::eventfd_read(wake_.number(), &count);
    MutexLock lock(mutex_);
    for (Rank& rank : ranks_) {
      // Only this thread closes a connection, so it is still the one that was polled.
      if (polled[rank.health.rank + 1].revents == 0) continue;
      const auto taken = take_in(rank);
      if (taken) continue;
      const bool refused = taken.error().code == ErrorCode::InvalidConfig;
      lose(rank, refused ? RankState::Refused : RankState::Down,
           refused ? taken.error().message : taken.error().to_string());
    }
  }
}

void LeaderCore::look_after(Clock::time_point now) {
  for (Rank& rank : ranks_) {
    if (!rank.socket && rank.retry <= now) connect(rank, now);
    if (!rank.owed.empty() && rank.owed.front().overdue <= now) {
      lose(rank, RankState::Down,
           "owed an answer for longer than the lease of " + std::to_string(config_.lease.count()) +
               " ms");
    }
  }
}

void LeaderCore::connect(Rank& rank, Clock::time_point now) {
  auto connected = leader::connect_to(rank.health.socket);
  if (!connected) return lose(rank, RankState::Down, connected.error().to_string());
  rank.socket.emplace(std::move(*connected));
  const std::uint64_t request = ++last_request_;
  rank.owed.push_back({.kind = Owed::Kind::Greeting,
                       .request = request,
                       .deadline = now + config_.lookup_timeout,
                       .overdue = now + config_.lookup_timeout + config_.lease});
  if (const auto sent = rank.socket->send(leader::encode_hello(request)); !sent) {
    lose(rank, RankState::Down, sent.error().to_string());
  }
}

// What is to be polled, the wake first and then every rank. Returns after how many milliseconds
// look_after() has something to do, or -1 for never.
int LeaderCore::prepare(std::vector<pollfd>& polled, Clock::time_point now) const {
  auto next = Clock::time_point::max();
  polled.assign({{.fd = wake_.number(), .events = POLLIN, .revents = 0}});
  for (const Rank& rank : ranks_) {
    pollfd wanted{.fd = -1, .events = POLLIN, .revents = 0};
    if (rank.socket) {
      wanted.fd = rank.socket->descriptor();
      if (rank.socket->unsent() > 0) wanted.events = POLLIN | POLLOUT;
      if (!rank.owed.empty()) next = std::min(next, rank.owed.front().overdue);
    } else {
      next = std::min(next, rank.retry);
    }
    polled.push_back(wanted);
  }
  if (next == Clock::time_point::max()) return -1;
  return static_cast<int>(
      std::chrono::ceil<std::chrono::milliseconds>(std::max(next, now) - now).count());
}

void LeaderCore::tell_changes() {
  std::vector<RankHealth> changes;
  {
    MutexLock lock(mutex_);
    changes.swap(changes_);
  }
  for (const RankHealth& change : changes) config_.on_rank_change(change);
}

// Errors: the connection is to be taken down; InvalidConfig because the rank disagrees with others.
Result<void> LeaderCore::take_in(Rank& rank) {
  KVBM_CHECK_OK(rank.socket->flush());
  KVBM_CHECK_OK(rank.socket->receive());
  for (;;) {
    KVBM_TRY(const auto frame, rank.socket->next());
    if (!frame) return {};
    KVBM_CHECK_OK(take_answer(rank, *frame));
  }
}

Result<void> LeaderCore::take_answer(Rank& rank, const leader::Frame& frame) {
  KVBM_TRY(leader::Reply reply, leader::decode_reply(frame));
  const bool is_owed = !rank.owed.empty() && rank.owed.front().request == frame.request;
  const bool is_greeting = is_owed && rank.owed.front().kind == Owed::Kind::Greeting;
  Question* const question = is_owed ? rank.owed.front().question : nullptr;
  if (const Error* const error = std::get_if<Error>(&reply)) {
    if (!is_owed || is_greeting) return wrong("the rank says: " + error->to_string());
    rank.health.last_error = error->to_string();
    if (question) {
      question->failed = true;
      question->changed.notify_one();
    }
  } else if (!is_owed || is_greeting != std::holds_alternative<RankInfo>(reply)) {
    return wrong("the rank answers what was not asked");
  } else if (is_greeting) {
    KVBM_CHECK_OK(accept(rank, std::get<RankInfo>(std::move(reply))));
  } else {
    KVBM_CHECK_OK(take_plan(rank, question, std::get<leader::PlanAnswer>(reply)));
  }
  // Only now: until then, an error tells who waits for it.
  rank.owed.pop_front();
  const bool is_late = !rank.owed.empty() && rank.owed.front().deadline <= Clock::now();
  if (rank.health.state == RankState::Stalled && !is_late) set_state(rank, RankState::Ready, "");
  return {};
}

Result<void> LeaderCore::accept(Rank& rank, RankInfo info) {
  for (const Rank& other : ranks_) {
    if (!is_accepted(other.health.state)) continue;
    if (const auto about = leader::difference(info, other.health.info); !about.empty()) {
      return Error{
          ErrorCode::InvalidConfig, 0, 0, 0,
          name_of(rank.health) + " and " + name_of(other.health) + " disagree about " + about};
    }
  }
  rank.health.info = std::move(info);
  rank.pause = config_.first_reconnect;
  ++stats_.connections;
  set_state(rank, RankState::Ready, "");
  return {};
}

Result<void> LeaderCore::take_plan(Rank& rank, Question* question,
                                   const leader::PlanAnswer& answer) {
  const RankPlan plan{.worker_id = rank.health.info.worker_id,
                      .epoch = rank.health.info.epoch,
                      .plan = answer.plan,
                      .by_tier = answer.by_tier};
  if (!question) {
    ++stats_.late_answers;
    send_release(rank, plan);
    return {};
  }
  auto& known = question->plans[rank.health.rank];
  // After a trim the same plan, of as many blocks as were asked for.
  const bool fits = known ? known->plan == plan.plan && answer.blocks == question->max_blocks
                          : answer.blocks <= question->max_blocks;
  if (!fits) return wrong("the rank answers with a plan that was not asked for");
  known = plan;
  if (--question->waiting == 0) question->changed.notify_one();
  return {};
}

// Whoever waits for the rank learns that it will not answer.
void LeaderCore::lose(Rank& rank, RankState state, std::string reason) {
  for (const Owed& owed : rank.owed) {
    if (!owed.question) continue;
    owed.question->failed = true;
    owed.question->changed.notify_one();
  }
  rank.owed.clear();
  rank.socket.reset();
  rank.retry = Clock::now() + rank.pause;
  rank.pause = std::min(rank.pause * 2, config_.longest_reconnect);
  set_state(rank, state, std::move(reason));
}

}  // namespace kvbm::detail
