// What becomes of the connection to one peer, as a state machine without thread, clock or socket.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "kvbm/peers.h"

namespace kvbm::remote {

struct PeerTimes {
  std::chrono::milliseconds heartbeat{1'000};       // how often it is asked for a sign of life
  std::chrono::milliseconds suspect_after{2'000};   // of silence since it was asked
  std::chrono::milliseconds lost_after{5'000};      // the same; more than suspect_after
  std::chrono::milliseconds first_retry{50};        // then twice as long each time
  std::chrono::milliseconds longest_retry{10'000};  // who disagrees is tried again after it
};

// A pure value. Who drives it calls step() with what has happened, and with Tick when next() has
// come, and does what it is told before the next step. Not thread-safe.
class PeerLife {
 public:
  using Time = std::chrono::steady_clock::time_point;

  struct Event {
    enum class Kind : std::uint8_t {
      Tick,
      Greeted,       // a connection attempt ended well; `incarnation` is that of the process
      Failed,        // it did not
      Disagreed,     // the two ends do not fit together
      Heard,         // a valid frame of the peer has come
      Disconnected,  // by the peer or by an error
    };
    Kind kind = Kind::Tick;
    std::uint64_t incarnation = 0;
    std::string reason = {};  // of Failed, Disagreed and Disconnected
  };
  // In this order.
  struct Actions {
    bool disconnect = false;  // the connection is of no use any more
    bool connect = false;     // begin an attempt, which ends in Greeted, Failed or Disagreed
    bool ping = false;
    bool changed = false;  // the state or its reason is another one
  };

  explicit PeerLife(const PeerTimes& times) : times_(times), pause_(times.first_retry) {}

  Actions step(Time now, const Event& event);
  // When a Tick has something to do.
  Time next() const noexcept;

  PeerState state() const noexcept { return state_; }
  const std::string& reason() const noexcept { return reason_; }  // why it is not up
  // How often it was greeted. What belongs to an earlier one is void.
  std::uint64_t generation() const noexcept { return generation_; }
  std::uint64_t incarnation() const noexcept { return incarnation_; }  // of the last process
  // How often another process answered than the one before.
  std::uint64_t restarts() const noexcept { return restarts_; }
  // For tests: aborts with a message if the state contradicts itself.
  void check_invariants() const;

 private:
  bool is_connected() const noexcept {
    return state_ == PeerState::Up || state_ == PeerState::Suspect;
  }
  void set(PeerState state, std::string reason, Actions& actions);
  void tick(Time now, Actions& actions);
  void greeted(Time now, std::uint64_t incarnation, Actions& actions);
  void lose(Time now, PeerState state, std::string reason, Actions& actions);

  PeerTimes times_;
  PeerState state_ = PeerState::Connecting;
  std::string reason_ = "not connected yet";
  bool is_attempting_ = false;
  Time retry_ = Time::min();  // without connection and attempt
  std::chrono::milliseconds pause_;
  Time greeted_ = {};    // while connected
  Time next_ping_ = {};  // while connected
  std::optional<Time> asked_ =
      std::nullopt;  // when the first ping after the last sign of life went
  std::uint64_t generation_ = 0;
  std::uint64_t incarnation_ = 0;
  std::uint64_t restarts_ = 0;
};

}  // namespace kvbm::remote
