// Other workers whose blocks may be loaded here, as they are seen from this one.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "kvbm/leader.h"

namespace kvbm {

// What a worker says of itself.
struct WorkerInfo {
  RankInfo rank;                     // its epoch is the incarnation of the process
  std::uint64_t content_digest = 0;  // equal where blocks hold the same data in the same order
  friend bool operator==(const WorkerInfo&, const WorkerInfo&) = default;
};

enum class PeerState : std::uint8_t {
  Connecting,  // nothing is known yet
  Up,          // is asked
  Suspect,     // has not answered for a while; is not asked until it has
  Lost,        // cannot be reached, or was silent for too long; is tried again
  Refused,     // disagrees, or does not know the secret; is tried again
};
const char* to_string(PeerState state) noexcept;  // "connecting", "up", ...

// How blocks come from a peer, the cheapest first.
enum class PeerPath : std::uint8_t {
  Cma,     // read out of its memory, within the machine
  Nixl,    // moved by NIXL
  Stream,  // sent by it over TCP
};
const char* to_string(PeerPath path) noexcept;  // "cma", "nixl", "stream"

struct PeerHealth {
  std::size_t peer = 0;  // index in the list of peers
  std::string address = {};
  PeerState state = PeerState::Connecting;
  std::string reason = {};      // why it is not up; empty while it is
  std::string last_error = {};  // what it answered last instead of a plan; empty: nothing yet
  WorkerInfo info = {};         // of the last process that was greeted
  std::uint64_t generation = 0;
  std::uint64_t restarts = 0;
  PeerPath path = PeerPath::Stream;
  std::chrono::nanoseconds round_trip{0};  // of the last ping
  std::size_t owed = 0;                    // answers to lookups
  std::uint64_t lookups = 0;               // that it was asked
  std::uint64_t late_answers = 0;          // that nobody waited for any more
};

// Counted since they were made. Each lookup ends in exactly one of hits, misses, and dropped.
struct PeersStats {
  std::uint64_t lookups = 0;
  std::uint64_t hits = 0;      // of at least one block
  std::uint64_t misses = 0;    // also because nobody is up, or has answered in time
  std::uint64_t dropped = 0;   // too many were open
  std::uint64_t timeouts = 0;  // peers that did not answer in time
  std::uint64_t failures = 0;  // peers that were lost meanwhile, owed too much, or failed
  std::size_t open = 0;        // lookups that are not answered yet
};

}  // namespace kvbm
