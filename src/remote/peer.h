// One peer as its reader sees it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "kvbm/peers.h"
#include "kvbm/result.h"
#include "leader/frame_socket.h"
#include "remote/handshake.h"
#include "remote/peer_connection.h"
#include "remote/peer_life.h"
#include "remote/peer_session.h"

namespace kvbm::remote {

struct PeerConfig {
  std::size_t peer = 0;     // index in the list of peers
  std::string address;      // "host:port"
  std::string secret = {};  // empty: none, within the machine
  PeerTimes times = {};
  std::chrono::milliseconds handshake_timeout{5'000};
  std::size_t max_owed = 64;  // answers; one that owes more is not asked
  // Told of every change of its state, on its thread, with no lock held. Must not stop the peer.
  std::function<void(const PeerHealth&)> on_change = {};
};

// One thread connects, reads answers, and asks for signs of life; it sleeps in between.
// Thread-safe.
class Peer {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // A miss, if it has no blocks.
  using Done = std::function<void(Result<PeerPlan>)>;

  struct Question {
    std::uint64_t request;                                 // never twice; below 2^63
    std::shared_ptr<const std::vector<std::byte>> lookup;  // the frame of it
    std::size_t blocks;                                    // that it asks for
    std::chrono::milliseconds lease;
    Time deadline;
  };

  // The worker must outlive it. Errors: those of parse_host_port(); OperationFailed with errno if
  // the system gives no thread or descriptor.
  static Result<std::unique_ptr<Peer>> create(LocalWorker& self, PeerConfig config);
  ~Peer() { stop(); }

  // Ends the thread and the session; open lookups are answered with Cancelled. Idempotent.
  // Requires: not on the peer's thread.
  void stop() noexcept;

  // Asks without waiting and calls `done` once: on the peer's thread, by the deadline, or before
  // this returns if it cannot be asked. Errors: TimedOut; QueueFull{owed, most} if it owes too many
  // answers or takes no more bytes; OperationFailed if it is not up, or lost meanwhile; Cancelled;
  // the peer's own.
  void ask(Question question, Done done);

  // A connection for blocks, an idle one of the session or a new one; waits for the peer. Errors:
  // OperationFailed if the session is over, or another process answers; those of
  // connect_and_greet().
  Result<PeerConnection> connect(const std::shared_ptr<PeerSession>& session, Time deadline);

  // None while it is neither up nor suspect.
  std::shared_ptr<PeerSession> session() const;
  // How blocks come, as was found out in a session; a new one begins with Stream.
  void set_path(std::uint64_t generation, PeerPath path);
  // Its path, if it may be asked.
  std::optional<PeerPath> path_if_up() const;
  PeerHealth health() const;
  void check_invariants() const;

 private:
  // An answer that the peer owes.
  struct Owed {
    std::uint64_t request;
    Time sent;
    Time deadline = Time::max();  // a ping's is left to the peer's life
    std::size_t blocks = 0;
    std::chrono::milliseconds lease{0};
    Done done = {};  // none: a ping, or nobody waits any more
    bool is_ping = false;
  };
  struct Answer {
    Done done;
    Result<PeerPlan> plan;
  };
  // What is to be told once no lock is held.
  struct News {
    std::vector<Answer> answers = {};
    std::optional<PeerHealth> change = {};
  };

  Peer(LocalWorker& self, PeerConfig config, StopSignal stop, std::shared_ptr<const WakeUp> wake);
  std::optional<Error> try_ask(Question& question, Done& done) KVBM_EXCLUDES(mutex_);
  Error why_not_asked(std::size_t bytes) const KVBM_REQUIRES(mutex_);

  // The thread's side: peer_thread.cc.
  void run();
  bool say_goodbye_if_stopping(News& news) KVBM_EXCLUDES(mutex_);
  PeerLife::Actions step(const PeerLife::Event& event, News& news) KVBM_EXCLUDES(mutex_);
  PeerLife::Event attempt() KVBM_EXCLUDES(mutex_);
  PeerLife::Event wait(News& news) KVBM_EXCLUDES(mutex_);
  void send_ping(Time now) KVBM_REQUIRES(mutex_);
  void send_releases() KVBM_REQUIRES(mutex_);
  Result<bool> take_in(News& news) KVBM_REQUIRES(mutex_);
  Result<void> take_reply(const Frame& frame, News& news) KVBM_REQUIRES(mutex_);
  void expire(Time now, News& news) KVBM_REQUIRES(mutex_);
  void disconnect(const Error& why, News& news) KVBM_REQUIRES(mutex_);
  void tell(News& news) KVBM_EXCLUDES(mutex_);
  PeerHealth health_locked() const KVBM_REQUIRES(mutex_);

  LocalWorker& self_;
  const PeerConfig config_;
  const StopSignal stop_;
  const std::shared_ptr<const WakeUp> wake_;

  mutable Mutex mutex_;
  PeerLife life_ KVBM_GUARDED_BY(mutex_);
  std::optional<leader::FrameSocket> socket_ KVBM_GUARDED_BY(mutex_);
  std::shared_ptr<PeerSession> session_ KVBM_GUARDED_BY(mutex_);
  std::deque<Owed> owed_ KVBM_GUARDED_BY(mutex_);
  std::size_t owed_lookups_ KVBM_GUARDED_BY(mutex_) = 0;
  PeerHealth health_ KVBM_GUARDED_BY(mutex_);  // what is not asked of others
  Time sleeps_until_ KVBM_GUARDED_BY(mutex_) = Time::min();
  std::uint64_t last_ping_ KVBM_GUARDED_BY(mutex_) = 0;
  bool is_stopping_ KVBM_GUARDED_BY(mutex_) = false;

  Mutex stopping_mutex_;  // for who joins the thread
  std::jthread thread_;
};

}  // namespace kvbm::remote
