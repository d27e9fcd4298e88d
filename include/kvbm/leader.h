// The leader of parallel ranks: asks the managers of all of them, over unix sockets, for the
// longest prefix that every one of them has.
//
// A scheduler knows the names of blocks and has no bytes. Each rank's process has a manager and
// serves a socket. A lookup asks all ranks at once; each answers with a plan, which keeps the
// blocks that it found for the time of a lease. The shortest prefix wins and longer plans are
// trimmed to it. The scheduler hands the ids of the plans to the ranks, through a channel of its
// own, and they use them there. A plan is used, released, or expires.
//
// A rank that is down, slow or not what it should be costs a miss: an answer of 0 blocks, no later
// than the timeout. docs/leader_protocol.md has the protocol.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kvbm/result.h"
#include "kvbm/tokens.h"
#include "kvbm/types.h"

namespace kvbm {

// What a rank says of itself. All but worker_id and epoch must be the same for all ranks.
struct RankInfo {
  WorkerID worker_id = 0;
  std::uint64_t epoch = 0;            // of its process: random, so that a restart is seen
  std::uint64_t key_fingerprint = 0;  // of the key of its digests; 0: none
  std::uint32_t block_size = 0;       // tokens
  std::string model = {};             // at most 256 bytes
  std::string hash_profile = {};      // how blocks get their names; at most 256 bytes
  friend bool operator==(const RankInfo&, const RankInfo&) = default;
};

enum class RankState : std::uint8_t {
  Connecting,  // nothing is known yet
  Ready,       // is asked
  Stalled,     // did not answer in time; is asked again once it has
  Down,        // cannot be reached; is tried again
  Refused,     // disagrees with a rank that is ready; is tried again
};
const char* to_string(RankState state) noexcept;  // "connecting", "ready", ...

struct RankHealth {
  std::size_t rank = 0;  // index of its socket
  std::string socket = {};
  RankState state = RankState::Connecting;
  std::string reason = {};      // why it is not ready; empty while it is
  std::string last_error = {};  // what it answered last instead of a plan; empty: nothing yet
  RankInfo info = {};           // of the last process that was accepted
};

struct LeaderConfig {
  // Paths of the ranks' sockets, one per rank, all different; 1 .. 1024.
  std::vector<std::string> sockets;
  // How long a lookup may take, over all ranks; 1 ms .. 60 s.
  std::chrono::milliseconds lookup_timeout{100};
  // How long plans keep their blocks unless they are used before; 1 ms .. 1 h. A rank that owes an
  // answer for longer is connected anew: its plan has expired.
  std::chrono::milliseconds lease{30'000};
  // How soon a rank that is lost is tried again, then twice as long each time up to the longest;
  // 1 ms .. 1 h.
  std::chrono::milliseconds first_reconnect{50};
  std::chrono::milliseconds longest_reconnect{2'000};
  // Told of every change of a rank's state, on the leader's thread, with no lock held: the place to
  // log it. Must not destroy the leader.
  std::function<void(const RankHealth&)> on_rank_change = {};
};

// Counted since the leader was made. Each lookup that asked for blocks ends in exactly one of hits,
// empty, unavailable, timeouts and failures.
struct LeaderStats {
  std::uint64_t lookups = 0;
  std::uint64_t hits = 0;          // of at least one block
  std::uint64_t empty = 0;         // a rank has no block of the prefix
  std::uint64_t unavailable = 0;   // a rank was not ready, or owed too many answers; none was asked
  std::uint64_t timeouts = 0;      // a rank did not answer in time
  std::uint64_t failures = 0;      // a rank was lost meanwhile, or answered with an error
  std::uint64_t trims = 0;         // plans that were longer than the shortest
  std::uint64_t late_answers = 0;  // plans that nobody waited for any more; they were released
  std::uint64_t connections = 0;   // ranks that were connected and accepted, again or first
};

// A plan of one rank.
struct RankPlan {
  WorkerID worker_id = 0;
  std::uint64_t epoch = 0;  // of the rank's process; another one does not have the plan
  std::uint64_t plan = 0;
  std::array<std::uint32_t, kTierCount> by_tier{};  // blocks
};

namespace detail {
class LeaderCore;
}  // namespace detail

// What a lookup found: the same number of blocks at every rank. Released when it goes, unless it
// was handed over. May outlive its leader; then its leases expire. Not thread-safe.
class LeaderPlan {
 public:
  LeaderPlan() = default;  // of no blocks
  ~LeaderPlan() { release(); }
  LeaderPlan(LeaderPlan&& other) noexcept;
  LeaderPlan& operator=(LeaderPlan&& other) noexcept;

  // How long the prefix is that all ranks have. 0: a miss, which has no plans.
  std::size_t blocks() const noexcept { return blocks_; }
  // In the order of the sockets.
  std::span<const RankPlan> ranks() const noexcept { return ranks_; }
  std::vector<std::uint64_t> plan_ids() const;

  // Gives the blocks back at all ranks, without waiting for them, and becomes a miss. Nothing is
  // given back after keep(), nor to a rank whose process is another one by now.
  void release() noexcept;
  // The plans are the ranks' own from now on: they are used there, or expire.
  void keep() noexcept { core_.reset(); }

 private:
  friend class Leader;
  LeaderPlan(std::weak_ptr<detail::LeaderCore> core, std::vector<RankPlan> ranks,
             std::size_t blocks) noexcept;
  std::weak_ptr<detail::LeaderCore> core_;
  std::vector<RankPlan> ranks_;
  std::size_t blocks_ = 0;
};

// Thread-safe. Has one thread, which reads answers and connects ranks again.
class Leader {
 public:
  // Connects to the ranks and waits for them, for at most lookup_timeout. Ranks that are down do
  // not fail it; see health(). Errors: InvalidConfig naming the option, or two ranks that disagree
  // and what about; OperationFailed with errno if the system gives no thread or descriptor.
  static Result<Leader> create(LeaderConfig config);
  // Ends the connections; leases that are open expire. Requires: no other call is running.
  ~Leader();
  Leader(Leader&&) noexcept;
  Leader& operator=(Leader&&) noexcept;

  // The longest prefix that all ranks have. With digests, one per hash, blocks of other digests are
  // misses. Ends by lookup_timeout, whatever the ranks do. Errors: InvalidConfig {hashes, most that
  // fit} for more than 524,288 hashes, or 524,286 with digests, and for digests that are not one
  // per hash. Cost: a message to each rank and back, at once; a second one where ranks differ.
  Result<LeaderPlan> lookup(std::span<const SequenceHash> hashes,
                            std::span<const std::uint64_t> digests = {},
                            NamespaceId name_space = 0);
  Result<LeaderPlan> lookup(std::span<const TokenBlock> blocks, NamespaceId name_space = 0);

  // In the order of the sockets.
  std::vector<RankHealth> health() const;
  LeaderStats stats() const;
  // For tests: aborts with a message if the state contradicts itself.
  void check_invariants() const;

 private:
  explicit Leader(std::shared_ptr<detail::LeaderCore> core) noexcept;
  std::shared_ptr<detail::LeaderCore> core_;
};

}  // namespace kvbm
