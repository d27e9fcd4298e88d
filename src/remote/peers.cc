#include "remote/peers.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <utility>

namespace kvbm::remote {
namespace {

constexpr std::size_t kMaxPeers = 1024;

Result<void> check(const PeersConfig& config) {
  const auto wrong = [](std::string what, std::uint64_t given, std::uint64_t allowed) {
    return Error{ErrorCode::InvalidConfig, 0, given, allowed, std::move(what)};
  };
  const std::size_t count = config.addresses.size();
  if (count == 0 || count > kMaxPeers)
    return wrong("there must be 1 to 1024 peers", count, kMaxPeers);
  std::set<std::string> seen;
  for (const std::string& address : config.addresses) {
    if (!seen.insert(address).second) return wrong("'" + address + "' is there twice", 2, 1);
  }
  if (config.max_open_lookups == 0) return wrong("max_open_lookups must be at least 1", 0, 1);
  const PeerTimes& times = config.times;
  const std::pair<const char*, std::chrono::milliseconds> all[] = {
      {"heartbeat", times.heartbeat},         {"suspect_after", times.suspect_after},
      {"lost_after", times.lost_after},       {"first_retry", times.first_retry},
      {"longest_retry", times.longest_retry}, {"handshake_timeout", config.handshake_timeout}};
  for (const auto& [name, time] : all) {
    if (time.count() < 1) return wrong(std::string(name) + " must be at least 1 ms", 0, 1);
  }
  if (times.suspect_after >= times.lost_after) {
    return wrong("lost_after must be more than suspect_after",
                 static_cast<std::uint64_t>(times.lost_after.count()),
                 static_cast<std::uint64_t>(times.suspect_after.count()) + 1);
  }
  if (times.first_retry > times.longest_retry) {
    return wrong("first_retry must be at most longest_retry",
                 static_cast<std::uint64_t>(times.first_retry.count()),
                 static_cast<std::uint64_t>(times.longest_retry.count()));
  }
  return {};
}

}  // namespace

// One lookup: takes in the answers, and answers once.
class Peers::Gathering {
 public:
  Gathering(std::shared_ptr<Counters> counters, std::size_t blocks, std::size_t waiting, Done done)
      : counters_(std::move(counters)),
        blocks_(blocks),
        waiting_(waiting),
        done_(std::move(done)) {}

  // One of those that are waited for.
  void add(Result<PeerPlan> answer, PeerPath path) {
    count(answer);
    PeerPlan plan = answer ? *std::move(answer) : PeerPlan();
    Done done;
    PeerPlan best;
    {
      MutexLock lock(mutex_);
      --waiting_;
      if (is_better(plan, path)) {
        std::swap(best_, plan);
        best_path_ = path;
      }
      // Nobody can have more, nor a cheaper path.
      const bool is_best = best_.blocks() == blocks_ && best_path_ == PeerPath::Cma;
      if (waiting_ > 0 && !is_best) return;
      if (!done_) return;
      done = std::exchange(done_, {});
      best = std::exchange(best_, {});
    }
    {
      MutexLock lock(counters_->mutex);
      ++(best.blocks() > 0 ? counters_->stats.hits : counters_->stats.misses);
      --counters_->stats.open;
    }
    done(std::move(best));
  }

 private:
  void count(const Result<PeerPlan>& answer) {
    if (answer) return;
    MutexLock lock(counters_->mutex);
    ++(answer.error().code == ErrorCode::TimedOut ? counters_->stats.timeouts
                                                  : counters_->stats.failures);
  }
  bool is_better(const PeerPlan& plan, PeerPath path) const KVBM_REQUIRES(mutex_) {
    if (!done_) return false;
    if (plan.blocks() != best_.blocks()) return plan.blocks() > best_.blocks();
    return plan.blocks() > 0 && path < best_path_;
  }

  const std::shared_ptr<Counters> counters_;
  const std::size_t blocks_;
  Mutex mutex_;
  std::size_t waiting_ KVBM_GUARDED_BY(mutex_);
  PeerPlan best_ KVBM_GUARDED_BY(mutex_);
  PeerPath best_path_ KVBM_GUARDED_BY(mutex_) = PeerPath::Stream;
  Done done_ KVBM_GUARDED_BY(mutex_);  // none once it was called
};

Result<std::unique_ptr<Peers>> Peers::create(LocalWorker& self, PeersConfig config) {
  KVBM_CHECK_OK(check(config));
  std::unique_ptr<Peers> peers(new Peers(std::move(config)));
  const PeersConfig& all = peers->config_;
  for (const std::string& address : all.addresses) {
    KVBM_TRY(auto peer, Peer::create(self, {.peer = peers->peers_.size(),
                                            .address = address,
                                            .secret = all.secret,
                                            .times = all.times,
                                            .handshake_timeout = all.handshake_timeout,
                                            .max_owed = all.max_open_lookups,
                                            .on_change = all.on_change}));
    peers->peers_.push_back(std::move(peer));
  }
  return peers;
}

void Peers::stop() noexcept {
  for (const auto& peer : peers_) peer->stop();
}

// False if too many are.
bool Peers::open_one() {
  MutexLock lock(counters_->mutex);
  PeersStats& stats = counters_->stats;
  ++stats.lookups;
  if (stats.open >= config_.max_open_lookups) {
    ++stats.dropped;
    return false;
  }
  ++stats.open;
  return true;
}

void Peers::lookup(std::span<const SequenceHash> hashes, std::span<const std::uint64_t> digests,
                   NamespaceId name_space, std::chrono::milliseconds lease, Time deadline,
                   Done done) {
  if (!open_one()) return done(PeerPlan());
  hashes = hashes.first(std::min(
      hashes.size(), digests.empty() ? leader::kMaxHashes : leader::kMaxHashesWithDigests));
  digests = digests.first(std::min(digests.size(), hashes.size()));
  std::vector<std::pair<Peer*, PeerPath>> asked;
  for (const auto& peer : peers_) {
    const auto path = peer->path_if_up();
    if (path && !hashes.empty()) asked.emplace_back(peer.get(), *path);
  }
  // One more than there are peers: this call, so that it ends though nobody is asked.
  const auto gathering =
      std::make_shared<Gathering>(counters_, hashes.size(), asked.size() + 1, std::move(done));
  if (!asked.empty()) {
    const std::uint64_t request = ++last_request_;
    const auto frame = std::make_shared<const std::vector<std::byte>>(
        leader::encode_lookup(request, lease, name_space, hashes, digests));
    for (const auto& [peer, path] : asked) {
      peer->ask({.request = request,
                 .lookup = frame,
                 .blocks = hashes.size(),
                 .lease = lease,
                 .deadline = deadline},
                [gathering, path = path](Result<PeerPlan> plan) {
                  gathering->add(std::move(plan), path);
                });
    }
  }
  gathering->add(PeerPlan(), PeerPath::Stream);
}

Result<PeerConnection> Peers::connect(const PeerPlan& plan, Time deadline) {
  return peers_[plan.session().peer()]->connect(plan.shared_session(), deadline);
}

std::vector<PeerHealth> Peers::health() const {
  std::vector<PeerHealth> health;
  for (const auto& peer : peers_) health.push_back(peer->health());
  return health;
}

PeersStats Peers::stats() const {
  MutexLock lock(counters_->mutex);
  return counters_->stats;
}

void Peers::check_invariants() const {
  for (const auto& peer : peers_) peer->check_invariants();
  const PeersStats now = stats();
  if (now.hits + now.misses + now.dropped + now.open != now.lookups) {
    std::fprintf(stderr, "kvbm: peers invariant broken: a lookup has not ended once\n");
    std::abort();
  }
}

}  // namespace kvbm::remote
