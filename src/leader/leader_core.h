// What is behind a Leader: the connections to the ranks, and the questions that are open.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "kvbm/leader.h"
#include "leader/frame_socket.h"
#include "leader/protocol.h"
#include "platform/os/descriptor.h"

struct pollfd;

namespace kvbm::detail {

// A lookup writes its question to all ranks on the caller's thread and sleeps; one thread reads the
// answers, wakes the caller with the last of them, and connects ranks again. Ranks answer in order,
// so an answer must be to the oldest question that its rank owes. What nobody waits for any more
// stays owed until it comes; then its plan is released.
//
// Thread-safe.
class LeaderCore {
 public:
  static Result<std::shared_ptr<LeaderCore>> create(LeaderConfig config);
  ~LeaderCore() { stop(); }

  // Ends the thread and the connections. Requires: not on the leader's thread.
  void stop() noexcept;

  // Plans of equal length, one per rank; none for a miss. Requires: as many digests as hashes, or
  // none; within the protocol's bounds.
  std::vector<RankPlan> lookup(std::span<const SequenceHash> hashes,
                               std::span<const std::uint64_t> digests, NamespaceId name_space);
  // Does not wait; whom it does not reach lets the lease expire.
  void release(std::span<const RankPlan> plans);

  std::vector<RankHealth> health() const;
  LeaderStats stats() const;
  void check_invariants() const;

 private:
  using Clock = std::chrono::steady_clock;

  // What a caller waits for; lies on its stack.
  struct Question {
    std::vector<std::optional<RankPlan>> plans = {};  // as far as they have come
    std::size_t waiting = 0;                          // answers that are due
    std::size_t max_blocks = 0;                       // of a plan
    bool failed = false;                              // an answer will not come
    CondVar changed = {};
  };
  // Whether its process has said who it is and may be asked.
  static bool is_accepted(RankState state) noexcept {
    return state == RankState::Ready || state == RankState::Stalled;
  }

  // An answer that a rank owes.
  struct Owed {
    enum class Kind : std::uint8_t { Greeting, Plan };
    Kind kind = Kind::Plan;
    std::uint64_t request = 0;
    Clock::time_point deadline = {};  // after that the rank is stalled
    Clock::time_point overdue = {};   // after that it is connected anew
    Question* question = nullptr;     // none: nobody waits
  };
  struct Rank {
    RankHealth health = {};
    std::optional<leader::FrameSocket> socket = {};
    std::deque<Owed> owed = {};
    Clock::time_point retry = {};  // without a socket: when to try again
    std::chrono::milliseconds pause{0};
  };

  LeaderCore(LeaderConfig config, Descriptor wake);
  Result<void> start_thread();
  Result<void> wait_for_greetings() KVBM_EXCLUDES(mutex_);

  // The caller's side: leader_core.cc.
  bool all_can_be_asked() const KVBM_REQUIRES(mutex_);
  void ask(Question& question, Rank& rank, std::span<const std::byte> frame, std::uint64_t request,
           Clock::time_point deadline) KVBM_REQUIRES(mutex_);
  bool wait_for(Question& question, Clock::time_point deadline) KVBM_REQUIRES(mutex_);
  void trim(Question& question, Clock::time_point deadline) KVBM_REQUIRES(mutex_);
  void fail(Question& question) KVBM_REQUIRES(mutex_);
  void abandon(Question& question) KVBM_REQUIRES(mutex_);
  void send_release(Rank& rank, const RankPlan& plan) KVBM_REQUIRES(mutex_);
  bool send(Rank& rank, std::span<const std::byte> frame) KVBM_REQUIRES(mutex_);

  // The thread's side: leader_ranks.cc.
  void run();
  void look_after(Clock::time_point now) KVBM_REQUIRES(mutex_);
  void connect(Rank& rank, Clock::time_point now) KVBM_REQUIRES(mutex_);
  int prepare(std::vector<pollfd>& polled, Clock::time_point now) const KVBM_REQUIRES(mutex_);
  void tell_changes() KVBM_EXCLUDES(mutex_);
  Result<void> take_in(Rank& rank) KVBM_REQUIRES(mutex_);
  Result<void> take_answer(Rank& rank, const leader::Frame& frame) KVBM_REQUIRES(mutex_);
  Result<void> accept(Rank& rank, RankInfo info) KVBM_REQUIRES(mutex_);
  Result<void> take_plan(Rank& rank, Question* question, const leader::PlanAnswer& answer)
      KVBM_REQUIRES(mutex_);
  void lose(Rank& rank, RankState state, std::string reason) KVBM_REQUIRES(mutex_);

  void set_state(Rank& rank, RankState state, std::string reason) KVBM_REQUIRES(mutex_);
  void wake() const noexcept;

  const LeaderConfig config_;
  const Descriptor wake_;  // an eventfd

  std::atomic<std::uint64_t> last_request_{0};  // 0 is no request

  mutable Mutex mutex_;
  std::vector<Rank> ranks_ KVBM_GUARDED_BY(mutex_);
  LeaderStats stats_ KVBM_GUARDED_BY(mutex_);
  std::vector<RankHealth> changes_ KVBM_GUARDED_BY(mutex_);  // to be told
  CondVar state_changed_;                                    // of any rank
  bool stopping_ KVBM_GUARDED_BY(mutex_) = false;
  std::jthread thread_;
};

}  // namespace kvbm::detail
