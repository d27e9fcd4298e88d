// All peers of a worker: finds who has the longest prefix.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "kvbm/result.h"
#include "remote/peer.h"

namespace kvbm::remote {

struct PeersConfig {
  // "host:port" of each, all different; 1 .. 1024.
  std::vector<std::string> addresses;
  std::string secret = {};  // empty: none, which only peers within the machine may have
  PeerTimes times = {};     // each at least 1 ms; suspect_after < lost_after
  std::chrono::milliseconds handshake_timeout{5'000};
  std::size_t max_open_lookups = 64;  // at least 1; what comes then is a miss
  // Told of every change of a peer's state, on the peer's thread, with no lock held. Must not stop
  // the peers.
  std::function<void(const PeerHealth&)> on_change = {};
};

// Thread-safe.
class Peers {
 public:
  using Time = Peer::Time;
  using Done = std::function<void(PeerPlan)>;

  // Connects to all in the background. The worker must outlive it. Errors: InvalidConfig naming the
  // option; those of Peer::create().
  static Result<std::unique_ptr<Peers>> create(LocalWorker& self, PeersConfig config);
  ~Peers() { stop(); }

  // Ends all threads and connections; open lookups are misses. Idempotent. Requires: not on the
  // thread of a peer.
  void stop() noexcept;

  // Asks all peers that are up at once, without waiting for them, and calls `done` once with the
  // longest prefix; of equal ones that with the cheapest path. The others are released. It is
  // called by the deadline, on a peer's thread, or before this returns. No plan: a miss. Asks for
  // as many names as fit into a frame. Requires: no digests, or one per hash; a lease of 1 ms to 1
  // h.
  void lookup(std::span<const SequenceHash> hashes, std::span<const std::uint64_t> digests,
              NamespaceId name_space, std::chrono::milliseconds lease, Time deadline, Done done);

  // As Peer::connect(), to the peer of a plan. Requires: a plan with blocks, of these peers.
  Result<PeerConnection> connect(const PeerPlan& plan, Time deadline);

  std::size_t size() const noexcept { return peers_.size(); }
  // In the order of the addresses.
  Peer& operator[](std::size_t peer) noexcept { return *peers_[peer]; }
  std::vector<PeerHealth> health() const;
  PeersStats stats() const;
  void check_invariants() const;

 private:
  // Shared with lookups that are open.
  struct Counters {
    Mutex mutex;
    PeersStats stats KVBM_GUARDED_BY(mutex) = {};
  };
  class Gathering;

  explicit Peers(PeersConfig config) : config_(std::move(config)) {}
  bool open_one();

  const PeersConfig config_;
  const std::shared_ptr<Counters> counters_ = std::make_shared<Counters>();
  std::atomic<std::uint64_t> last_request_{0};
  std::vector<std::unique_ptr<Peer>> peers_;
};

}  // namespace kvbm::remote
