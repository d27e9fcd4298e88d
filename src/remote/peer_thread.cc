// A peer's thread: it connects, reads answers and asks for signs of life.
#include <poll.h>

#include <algorithm>
#include <array>
#include <utility>
#include <variant>

#include "remote/peer.h"

namespace kvbm::remote {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = PeerLife::Event::Kind;

// Keeps pings apart from lookups, whose numbers are the caller's.
constexpr std::uint64_t kPingBit = std::uint64_t{1} << 63;

Error wrong(std::string what) {
  return Error{ErrorCode::OperationFailed, 0, 0, 0, std::move(what)};
}

int milliseconds_until(Peer::Time then) {
  if (then == Peer::Time::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(then - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000'000));
}

}  // namespace

void Peer::run() {
  PeerLife::Event event;
  for (;;) {
    News news;
    if (say_goodbye_if_stopping(news)) return tell(news);
    const PeerLife::Actions actions = step(event, news);
    tell(news);
    if (actions.connect) {
      event = attempt();
    } else {
      News waited;
      event = wait(waited);
      tell(waited);
    }
  }
}

bool Peer::say_goodbye_if_stopping(News& news) {
  MutexLock lock(mutex_);
  if (!is_stopping_) return false;
  // Whether it arrives is the peer's affair.
  if (socket_) (void)socket_->send(encode_peer_request(0, Goodbye()));
  disconnect(Error{ErrorCode::Cancelled, 0, 0, 0, "the peer is stopped"}, news);
  return true;
}

PeerLife::Actions Peer::step(const PeerLife::Event& event, News& news) {
  MutexLock lock(mutex_);
  const auto now = Clock::now();
  const PeerLife::Actions actions = life_.step(now, event);
  if (actions.disconnect) disconnect(wrong("the peer was lost: " + life_.reason()), news);
  if (actions.ping) send_ping(now);
  if (actions.changed && config_.on_change) news.change = health_locked();
  return actions;
}

// Connects and greets; waits for it.
PeerLife::Event Peer::attempt() {
  const Until until{.deadline = Clock::now() + config_.handshake_timeout, .stop = &stop_};
  auto greeted =
      connect_and_greet(config_.address, {.worker = self_, .secret = config_.secret}, until);
  if (!greeted) {
    const bool disagrees = greeted.error().code == ErrorCode::InvalidConfig;
    return {.kind = disagrees ? Kind::Disagreed : Kind::Failed,
            .reason = disagrees ? greeted.error().message : greeted.error().to_string()};
  }
  auto over = StopSignal::create();
  if (!over) return {.kind = Kind::Failed, .reason = over.error().to_string()};
  const std::uint64_t incarnation = greeted->peer.info.rank.epoch;
  MutexLock lock(mutex_);
  health_.info = greeted->peer.info;
  health_.path = PeerPath::Stream;
  // step() makes it the current generation before anybody is asked.
  session_ = std::make_shared<PeerSession>(config_.peer, life_.generation() + 1,
                                           std::move(greeted->peer), *std::move(over), wake_);
  socket_.emplace(std::move(greeted->stream).take_socket());
  return {.kind = Kind::Greeted, .incarnation = incarnation};
}

// Sleeps until there is something to do, and takes in what has come.
PeerLife::Event Peer::wait(News& news) {
  std::array<pollfd, 2> polled{};
  auto until = Time::max();
  {
    MutexLock lock(mutex_);
    send_releases();
    until = life_.next();
    for (const Owed& owed : owed_) {
      if (owed.done) until = std::min(until, owed.deadline);
    }
    sleeps_until_ = until;
    polled[0] = {.fd = wake_->descriptor(), .events = POLLIN, .revents = 0};
    polled[1] = {.fd = -1, .events = POLLIN, .revents = 0};
    if (socket_) {
      polled[1].fd = socket_->descriptor();
      if (socket_->unsent() > 0) polled[1].events = POLLIN | POLLOUT;
    }
  }
  const int ready = ::poll(polled.data(), polled.size(), milliseconds_until(until));
  if (ready > 0 && polled[0].revents != 0) wake_->clear();
  MutexLock lock(mutex_);
  PeerLife::Event event;
  // Before the clock is looked at: after a long sleep of this process the answers lie there.
  if (ready > 0 && polled[1].revents != 0) {
    const auto heard = take_in(news);
    if (!heard) {
      event = {.kind = Kind::Disconnected, .reason = heard.error().to_string()};
    } else if (*heard) {
      event.kind = Kind::Heard;
    }
  }
  expire(Clock::now(), news);
  return event;
}

void Peer::send_ping(Time now) {
  const std::uint64_t request = kPingBit | ++last_ping_;
  // A connection that is broken is seen by who polls it.
  if (!socket_->send(encode_peer_request(request, Ping()))) return;
  owed_.push_back({.request = request, .sent = now, .is_ping = true});
}

void Peer::send_releases() {
  if (!session_) return;
  for (const std::uint64_t plan : session_->take_releases()) {
    // Those that a peer does not read are left to their leases.
    if (socket_->unsent() > leader::kMaxFrameBytes) return;
    if (!socket_->send(encode_peer_request(0, ReleaseRequest{.plan = plan}))) return;
  }
}

// Whether a frame has come. Errors: the connection is to be taken down.
Result<bool> Peer::take_in(News& news) {
  KVBM_CHECK_OK(socket_->flush());
  KVBM_CHECK_OK(socket_->receive());
  for (bool heard = false;; heard = true) {
    KVBM_TRY(const auto frame, socket_->next());
    if (!frame) return heard;
    KVBM_CHECK_OK(take_reply(*frame, news));
  }
}

Result<void> Peer::take_reply(const Frame& frame, News& news) {
  KVBM_TRY(PeerReply reply, decode_peer_reply(frame));
  if (std::holds_alternative<Goodbye>(reply)) return wrong("the peer said goodbye");
  const bool is_owed = !owed_.empty() && owed_.front().request == frame.request;
  auto* const error = std::get_if<Error>(&reply);
  if (!is_owed) {
    return wrong(error ? "the peer says: " + error->to_string()
                       : "the peer answers what was not asked");
  }
  Owed& owed = owed_.front();
  if (owed.is_ping) {
    if (!std::holds_alternative<Pong>(reply)) return wrong("the peer answers a ping with no pong");
    health_.round_trip = Clock::now() - owed.sent;
    owed_.pop_front();
    return {};
  }
  const auto* const plan = std::get_if<PlanAnswer>(&reply);
  if (!error && (!plan || plan->blocks > owed.blocks)) {
    return wrong("the peer answers with a plan that was not asked for");
  }
  Result<PeerPlan> answer = PeerPlan();
  if (error) {
    health_.last_error = error->to_string();
    answer = std::move(*error);
  } else if (plan->blocks > 0) {
    answer = PeerPlan(session_, *plan, owed.sent + owed.lease);
  }
  if (!owed.done) ++health_.late_answers;
  // Without anybody who waits the plan is released, which only needs the session's lock.
  if (owed.done) news.answers.push_back({std::move(owed.done), std::move(answer)});
  owed_.pop_front();
  --owed_lookups_;
  return {};
}

// Nobody waits any longer for what is late; the peer owes it still.
void Peer::expire(Time now, News& news) {
  for (Owed& owed : owed_) {
    if (!owed.done || owed.deadline > now) continue;
    news.answers.push_back(
        {std::exchange(owed.done, {}),
         Error{ErrorCode::TimedOut, 0, 0, 0, "the peer has not answered in time"}});
  }
}

void Peer::disconnect(const Error& why, News& news) {
  for (Owed& owed : owed_) {
    if (owed.done) news.answers.push_back({std::move(owed.done), why});
  }
  owed_.clear();
  owed_lookups_ = 0;
  if (session_) session_->end();
  session_.reset();
  socket_.reset();
}

void Peer::tell(News& news) {
  for (Answer& answer : news.answers) answer.done(std::move(answer.plan));
  if (news.change) config_.on_change(*news.change);
}

}  // namespace kvbm::remote
