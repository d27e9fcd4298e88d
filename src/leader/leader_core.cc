#include "leader/leader_core.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <system_error>
#include <utility>

namespace kvbm::detail {
namespace {

// A rank that owes more is asked nothing until it has answered.
constexpr std::size_t kMaxOwed = 64;
// What is kept for a rank that does not read: two of the longest lookups.
constexpr std::size_t kMaxUnsentBytes = 2 * leader::kMaxFrameBytes;

std::size_t blocks_of(const RankPlan& plan) noexcept {
  return std::accumulate(plan.by_tier.begin(), plan.by_tier.end(), std::size_t{0});
}

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "kvbm: leader invariant broken: %s\n", what);
  std::abort();
}

}  // namespace

LeaderCore::LeaderCore(LeaderConfig config, Descriptor wake)
    : config_(std::move(config)), wake_(std::move(wake)) {
  for (const std::string& socket : config_.sockets) {
    Rank rank;
    rank.health.rank = ranks_.size();
    rank.health.socket = socket;
    rank.pause = config_.first_reconnect;
    ranks_.push_back(std::move(rank));
  }
}

Result<std::shared_ptr<LeaderCore>> LeaderCore::create(LeaderConfig config) {
  Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.number() < 0) {
    return Error{ErrorCode::OperationFailed, errno, 1, 0, "the system gives no more descriptors"};
  }
  std::shared_ptr<LeaderCore> core(new LeaderCore(std::move(config), std::move(wake)));
  KVBM_CHECK_OK(core->start_thread());
  KVBM_CHECK_OK(core->wait_for_greetings());
  return core;
}

Result<void> LeaderCore::start_thread() {
  try {
    thread_ = std::jthread([this] { run(); });
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), 1, 0,
                 "the system gives no more threads"};
  }
  return {};
}

Result<void> LeaderCore::wait_for_greetings() {
  const auto deadline = Clock::now() + config_.lookup_timeout;
  const auto is_connecting = [](const Rank& rank) {
    return rank.health.state == RankState::Connecting;
  };
  MutexLock lock(mutex_);
  while (std::ranges::any_of(ranks_, is_connecting)) {
    if (state_changed_.wait_until(mutex_, deadline) == std::cv_status::timeout) break;
  }
  for (const Rank& rank : ranks_) {
    if (rank.health.state == RankState::Refused) {
      return Error{ErrorCode::InvalidConfig, 0, 0, 0, rank.health.reason};
    }
  }
  return {};
}

void LeaderCore::stop() noexcept {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake();
  if (thread_.joinable()) thread_.join();
  MutexLock lock(mutex_);
  for (Rank& rank : ranks_) {
    rank.socket.reset();
    rank.owed.clear();
    rank.health.state = RankState::Down;
  }
}

void LeaderCore::wake() const noexcept { ::eventfd_write(wake_.number(), 1); }

// --- a lookup --------------------------------------------------------------------------------

std::vector<RankPlan> LeaderCore::lookup(std::span<const SequenceHash> hashes,
                                         std::span<const std::uint64_t> digests,
                                         NamespaceId name_space) {
  const auto deadline = Clock::now() + config_.lookup_timeout;
  const std::uint64_t request = ++last_request_;
  const auto frame = leader::encode_lookup(request, config_.lease, name_space, hashes, digests);

  MutexLock lock(mutex_);
  ++stats_.lookups;
  if (!all_can_be_asked()) {
    ++stats_.unavailable;
    return {};
  }
  Question question;
  question.plans.resize(ranks_.size());
  question.max_blocks = hashes.size();
  for (Rank& rank : ranks_) ask(question, rank, frame, request, deadline);
  if (!wait_for(question, deadline)) {
    fail(question);
    return {};
  }
  for (const auto& plan : question.plans) {
    question.max_blocks = std::min(question.max_blocks, blocks_of(*plan));
  }
  if (question.max_blocks == 0) {
    ++stats_.empty;
    abandon(question);
    return {};
  }
  trim(question, deadline);
  if (!wait_for(question, deadline)) {
    fail(question);
    return {};
  }
  ++stats_.hits;
  std::vector<RankPlan> plans;
  for (const auto& plan : question.plans) plans.push_back(*plan);
  return plans;
}

bool LeaderCore::all_can_be_asked() const {
  return std::ranges::all_of(ranks_, [](const Rank& rank) {
    return rank.health.state == RankState::Ready && rank.owed.size() < kMaxOwed;
  });
}

void LeaderCore::ask(Question& question, Rank& rank, std::span<const std::byte> frame,
                     std::uint64_t request, Clock::time_point deadline) {
  question.failed = question.failed || !send(rank, frame);
  if (question.failed) return;
  ++question.waiting;
  rank.owed.push_back({.request = request,
                       .deadline = deadline,
                       .overdue = deadline + config_.lease,
                       .question = &question});
}

// False if an answer will not come, or has not come in time.
bool LeaderCore::wait_for(Question& question, Clock::time_point deadline) {
  while (question.waiting > 0 && !question.failed) {
    if (question.changed.wait_until(mutex_, deadline) == std::cv_status::timeout) break;
  }
  return question.waiting == 0 && !question.failed;
}

// Asks those whose plans are longer than the shortest.
void LeaderCore::trim(Question& question, Clock::time_point deadline) {
  for (Rank& rank : ranks_) {
    const RankPlan& plan = *question.plans[rank.health.rank];
    if (blocks_of(plan) == question.max_blocks) continue;
    ++stats_.trims;
    const std::uint64_t request = ++last_request_;
    const auto frame = leader::encode_trim(
        request, {.plan = plan.plan, .blocks = static_cast<std::uint32_t>(question.max_blocks)});
    ask(question, rank, frame, request, deadline);
  }
}

void LeaderCore::fail(Question& question) {
  if (question.failed) {
    ++stats_.failures;
  } else {
    ++stats_.timeouts;
    for (Rank& rank : ranks_) {
      const bool owes = std::ranges::any_of(
          rank.owed, [&](const Owed& owed) { return owed.question == &question; });
      if (!owes) continue;
      set_state(rank, RankState::Stalled,
                "no answer within " + std::to_string(config_.lookup_timeout.count()) + " ms");
    }
  }
  abandon(question);
}

// Nobody waits for the rest of the answers; the plans that have come are released.
void LeaderCore::abandon(Question& question) {
  for (Rank& rank : ranks_) {
    for (Owed& owed : rank.owed) {
      if (owed.question == &question) owed.question = nullptr;
    }
    const auto& plan = question.plans[rank.health.rank];
    if (plan) send_release(rank, *plan);
  }
}

void LeaderCore::release(std::span<const RankPlan> plans) {
  MutexLock lock(mutex_);
  for (std::size_t i = 0; i < plans.size(); ++i) send_release(ranks_[i], plans[i]);
}

// Another process, or one that has not said yet who it is, may have given the id to another plan.
void LeaderCore::send_release(Rank& rank, const RankPlan& plan) {
  if (!is_accepted(rank.health.state)) return;
  if (plan.plan == 0 || plan.epoch != rank.health.info.epoch) return;
  send(rank, leader::encode_release(0, plan.plan));
}

// False if it cannot be sent. A connection that is broken is taken down by the thread, which polls
// it.
bool LeaderCore::send(Rank& rank, std::span<const std::byte> frame) {
  if (!rank.socket || rank.socket->unsent() + frame.size() > kMaxUnsentBytes) return false;
  const bool sent = rank.socket->send(frame).has_value();
  if (rank.socket->unsent() > 0) wake();
  return sent;
}

// --- what is known of the ranks --------------------------------------------------------------

void LeaderCore::set_state(Rank& rank, RankState state, std::string reason) {
  if (rank.health.state == state && rank.health.reason == reason) return;
  rank.health.state = state;
  rank.health.reason = std::move(reason);
  state_changed_.notify_all();
  if (!config_.on_rank_change) return;
  changes_.push_back(rank.health);
  wake();
}

std::vector<RankHealth> LeaderCore::health() const {
  std::vector<RankHealth> health;
  MutexLock lock(mutex_);
  for (const Rank& rank : ranks_) health.push_back(rank.health);
  return health;
}

LeaderStats LeaderCore::stats() const {
  MutexLock lock(mutex_);
  return stats_;
}

void LeaderCore::check_invariants() const {
  MutexLock lock(mutex_);
  std::map<const Question*, std::size_t> due;
  for (const Rank& rank : ranks_) {
    const RankState state = rank.health.state;
    const bool is_asked = is_accepted(state);
    require(rank.socket || rank.owed.empty(), "a rank without a connection owes an answer");
    require(rank.socket || !is_asked, "a rank that is asked has no connection");
    require(is_asked || rank.owed.size() <= 1, "a rank owes more than its greeting");
    require(state != RankState::Stalled || !rank.owed.empty(), "a stalled rank owes nothing");
    require((state == RankState::Ready) <= rank.health.reason.empty(), "ready, with a reason");
    for (const Owed& owed : rank.owed) {
      require((owed.kind == Owed::Kind::Greeting) != is_asked, "greeted twice, or not at all");
      if (owed.question && !owed.question->failed) ++due[owed.question];
    }
  }
  for (const auto& [question, count] : due) {
    require(question->waiting == count, "a question waits for another number of answers");
  }
  const std::uint64_t ended =
      stats_.hits + stats_.empty + stats_.unavailable + stats_.timeouts + stats_.failures;
  require(ended <= stats_.lookups, "more lookups ended than began");
}

}  // namespace kvbm::detail
