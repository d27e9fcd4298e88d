// What lasts as long as one greeting of a peer: what it said of itself, its plans, its connections.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "kvbm/result.h"
#include "platform/os/tcp.h"
#include "remote/frame_stream.h"
#include "remote/frames.h"

namespace kvbm::remote {

// An eventfd that wakes the thread which polls it; shared with whoever may outlive that thread.
class WakeUp {
 public:
  // Errors: OperationFailed with errno if the system gives no more descriptors.
  static Result<std::shared_ptr<const WakeUp>> create();
  void wake() const noexcept;
  void clear() const noexcept;
  int descriptor() const noexcept { return event_.number(); }

 private:
  explicit WakeUp(Descriptor event) noexcept : event_(std::move(event)) {}
  Descriptor event_;
};

// Thread-safe.
class PeerSession {
 public:
  PeerSession(std::size_t peer, std::uint64_t generation, Introduction introduction,
              StopSignal over, std::shared_ptr<const WakeUp> wake)
      : peer_(peer),
        generation_(generation),
        introduction_(std::move(introduction)),
        over_(std::move(over)),
        wake_(std::move(wake)) {}

  std::size_t peer() const noexcept { return peer_; }  // index in the list of peers
  std::uint64_t generation() const noexcept { return generation_; }
  const WorkerInfo& info() const noexcept { return introduction_.info; }
  std::span<const std::byte> blockset() const noexcept { return introduction_.blockset; }
  // Stopped when the peer was lost or greeted again: who waits for it need not wait any longer.
  const StopSignal& over() const noexcept { return over_; }

  // Has the peer's plan released, soon and without waiting. Nothing once the session is over, nor
  // if too many wait: then its lease ends.
  void release(std::uint64_t plan) noexcept;

  // For the peer's thread.
  std::vector<std::uint64_t> take_releases();
  void end() noexcept;
  // Connections that nobody uses now. One that the peer has closed meanwhile is not given out.
  std::optional<FrameStream> take_idle();
  void give_back(FrameStream connection);

 private:
  const std::size_t peer_;
  const std::uint64_t generation_;
  const Introduction introduction_;
  const StopSignal over_;
  const std::shared_ptr<const WakeUp> wake_;
  Mutex mutex_;
  bool is_over_ KVBM_GUARDED_BY(mutex_) = false;
  std::vector<std::uint64_t> releases_ KVBM_GUARDED_BY(mutex_);
  std::vector<FrameStream> idle_ KVBM_GUARDED_BY(mutex_);
};

// Blocks that a peer keeps for this worker until the lease ends. Copies share it; with the last one
// the peer is told to release it. A plan of no blocks is a miss, and of no peer. Thread-safe, like
// a shared_ptr.
class PeerPlan {
 public:
  PeerPlan() = default;
  // Requires: an answer of at least one block.
  PeerPlan(std::shared_ptr<PeerSession> session, const PlanAnswer& answer,
           std::chrono::steady_clock::time_point lease_end)
      : held_(std::make_shared<Held>(std::move(session), answer, lease_end)) {}

  std::size_t blocks() const noexcept { return held_ ? held_->answer.blocks : 0; }
  // The rest requires: blocks() > 0.
  std::uint64_t id() const noexcept { return held_->answer.plan; }
  const std::array<std::uint32_t, kTierCount>& by_tier() const noexcept {
    return held_->answer.by_tier;
  }
  // When the peer keeps it no longer, or sooner: counted from when it was asked.
  std::chrono::steady_clock::time_point lease_end() const noexcept { return held_->lease_end; }
  const PeerSession& session() const noexcept { return *held_->session; }
  const std::shared_ptr<PeerSession>& shared_session() const noexcept { return held_->session; }

 private:
  struct Held {
    Held(std::shared_ptr<PeerSession> of, const PlanAnswer& plan,
         std::chrono::steady_clock::time_point end)
        : session(std::move(of)), answer(plan), lease_end(end) {}
    ~Held() { session->release(answer.plan); }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    const std::shared_ptr<PeerSession> session;
    const PlanAnswer answer;
    const std::chrono::steady_clock::time_point lease_end;
  };
  std::shared_ptr<const Held> held_;
};

}  // namespace kvbm::remote
