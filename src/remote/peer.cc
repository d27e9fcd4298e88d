#include "remote/peer.h"

#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <utility>

namespace kvbm {

const char* to_string(PeerState state) noexcept {
  switch (state) {
    case PeerState::Connecting: return "connecting";
    case PeerState::Up: return "up";
    case PeerState::Suspect: return "suspect";
    case PeerState::Lost: return "lost";
    case PeerState::Refused: return "refused";
  }
  return "unknown";
}

const char* to_string(PeerPath path) noexcept {
  switch (path) {
    case PeerPath::Cma: return "cma";
    case PeerPath::Nixl: return "nixl";
    case PeerPath::Stream: return "stream";
  }
  return "unknown";
}

namespace remote {
namespace {

// What is kept for a peer that does not read: two of the longest lookups.
constexpr std::size_t kMaxUnsentBytes = 2 * leader::kMaxFrameBytes;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "kvbm: peer invariant broken: %s\n", what);
  std::abort();
}

}  // namespace

Peer::Peer(LocalWorker& self, PeerConfig config, StopSignal stop,
           std::shared_ptr<const WakeUp> wake)
    : self_(self),
      config_(std::move(config)),
      stop_(std::move(stop)),
      wake_(std::move(wake)),
      life_(config_.times) {
  health_.peer = config_.peer;
  health_.address = config_.address;
}

Result<std::unique_ptr<Peer>> Peer::create(LocalWorker& self, PeerConfig config) {
  KVBM_TRY(const HostPort there, parse_host_port(config.address));
  if (there.port == 0) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 1, "'" + config.address + "' has no port"};
  }
  KVBM_TRY(StopSignal stop, StopSignal::create());
  KVBM_TRY(auto wake, WakeUp::create());
  std::unique_ptr<Peer> peer(new Peer(self, std::move(config), std::move(stop), std::move(wake)));
  try {
    peer->thread_ = std::jthread([raw = peer.get()] { raw->run(); });
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), 1, 0,
                 "the system gives no more threads"};
  }
  return peer;
}

void Peer::stop() noexcept {
  {
    MutexLock lock(mutex_);
    is_stopping_ = true;
  }
  stop_.stop();
  wake_->wake();
  MutexLock joining(stopping_mutex_);
  if (thread_.joinable()) thread_.join();
}

void Peer::ask(Question question, Done done) {
  if (auto error = try_ask(question, done)) done(std::move(*error));
}

// Why it cannot be asked; then `done` is the caller's still.
std::optional<Error> Peer::try_ask(Question& question, Done& done) {
  MutexLock lock(mutex_);
  const std::size_t bytes = question.lookup->size();
  if (is_stopping_ || life_.state() != PeerState::Up || owed_lookups_ >= config_.max_owed ||
      socket_->unsent() + bytes > kMaxUnsentBytes) {
    return why_not_asked(bytes);
  }
  // A connection that is broken is taken down by the thread, which polls it.
  if (auto sent = socket_->send(*question.lookup); !sent) return std::move(sent).error();
  owed_.push_back({.request = question.request,
                   .sent = std::chrono::steady_clock::now(),
                   .deadline = question.deadline,
                   .blocks = question.blocks,
                   .lease = question.lease,
                   .done = std::move(done)});
  ++owed_lookups_;
  ++health_.lookups;
  if (question.deadline < sleeps_until_ || socket_->unsent() > 0) wake_->wake();
  return std::nullopt;
}

Error Peer::why_not_asked(std::size_t bytes) const {
  if (is_stopping_) return Error{ErrorCode::Cancelled, 0, 0, 0, "the peer is stopped"};
  if (life_.state() != PeerState::Up) {
    return Error{ErrorCode::OperationFailed, 0, 0, 0,
                 "the peer is " + std::string(to_string(life_.state())) + ": " + life_.reason()};
  }
  if (owed_lookups_ >= config_.max_owed) {
    return Error{ErrorCode::QueueFull, 0, owed_lookups_ + 1, config_.max_owed,
                 "the peer owes too many answers"};
  }
  return Error{ErrorCode::QueueFull, 0, socket_->unsent() + bytes, kMaxUnsentBytes,
               "the peer does not read what it is sent"};
}

Result<PeerConnection> Peer::connect(const std::shared_ptr<PeerSession>& session, Time deadline) {
  const auto over = [] {
    return Error{ErrorCode::OperationFailed, 0, 0, 0, "the peer was lost since, or greeted again"};
  };
  if (session->over().is_stopped()) return over();
  if (auto idle = session->take_idle()) return PeerConnection(session, *std::move(idle));
  const Until until{.deadline = deadline, .stop = &session->over()};
  KVBM_TRY(GreetedPeer greeted,
           connect_and_greet(config_.address, {.worker = self_, .secret = config_.secret}, until));
  const std::uint64_t incarnation = greeted.peer.info.rank.epoch;
  if (incarnation != session->info().rank.epoch ||
      greeted.peer.info.rank.worker_id != session->info().rank.worker_id) {
    return Error{ErrorCode::OperationFailed, 0, session->info().rank.epoch, incarnation,
                 "another process than before answers at " + config_.address};
  }
  if (session->over().is_stopped()) return over();
  return PeerConnection(session, std::move(greeted.stream));
}

std::shared_ptr<PeerSession> Peer::session() const {
  MutexLock lock(mutex_);
  return session_;
}

void Peer::set_path(std::uint64_t generation, PeerPath path) {
  MutexLock lock(mutex_);
  if (life_.generation() == generation) health_.path = path;
}

std::optional<PeerPath> Peer::path_if_up() const {
  MutexLock lock(mutex_);
  if (life_.state() != PeerState::Up) return std::nullopt;
  return health_.path;
}

PeerHealth Peer::health() const {
  MutexLock lock(mutex_);
  return health_locked();
}

PeerHealth Peer::health_locked() const {
  PeerHealth health = health_;
  health.state = life_.state();
  health.reason = life_.reason();
  health.generation = life_.generation();
  health.restarts = life_.restarts();
  health.owed = owed_lookups_;
  return health;
}

void Peer::check_invariants() const {
  MutexLock lock(mutex_);
  life_.check_invariants();
  std::size_t lookups = 0;
  std::size_t pings = 0;
  for (const Owed& owed : owed_) ++(owed.is_ping ? pings : lookups);
  require(lookups == owed_lookups_, "a wrong number of lookups that are owed");
  require(lookups <= config_.max_owed && pings <= 1, "a peer owes too much");
  require(socket_.has_value() == (session_ != nullptr), "a session without a connection");
  require(socket_ || owed_.empty(), "a peer without a connection owes an answer");
  require(life_.state() != PeerState::Up || socket_ || is_stopping_, "up without a connection");
}

}  // namespace remote
}  // namespace kvbm
