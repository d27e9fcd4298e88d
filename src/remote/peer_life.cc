#include "remote/peer_life.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace kvbm::remote {
namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "kvbm: peer life invariant broken: %s\n", what);
  std::abort();
}

}  // namespace

PeerLife::Actions PeerLife::step(Time now, const Event& event) {
  Actions actions;
  using Kind = Event::Kind;
  switch (event.kind) {
    case Kind::Tick: break;
    case Kind::Greeted:
      if (is_attempting_) greeted(now, event.incarnation, actions);
      break;
    case Kind::Failed:
      if (is_attempting_) lose(now, PeerState::Lost, event.reason, actions);
      break;
    case Kind::Disagreed:
      if (is_attempting_) lose(now, PeerState::Refused, event.reason, actions);
      break;
    case Kind::Heard:
      if (!is_connected()) break;
      asked_.reset();
      set(PeerState::Up, "", actions);
      break;
    case Kind::Disconnected:
      if (is_connected()) lose(now, PeerState::Lost, event.reason, actions);
      break;
  }
  tick(now, actions);
  return actions;
}

void PeerLife::tick(Time now, Actions& actions) {
  if (is_connected()) {
    if (asked_ && now >= *asked_ + times_.lost_after) {
      return lose(now, PeerState::Lost,
                  "no sign of life for " + std::to_string(times_.lost_after.count()) + " ms",
                  actions);
    }
    if (asked_ && now >= *asked_ + times_.suspect_after) {
      set(PeerState::Suspect,
          "no sign of life for " + std::to_string(times_.suspect_after.count()) + " ms", actions);
    }
    // One that is owed an answer gets no second question.
    if (!asked_ && now >= next_ping_) {
      actions.ping = true;
      asked_ = now;
      next_ping_ = now + times_.heartbeat;
    }
  } else if (!is_attempting_ && now >= retry_) {
    is_attempting_ = true;
    actions.connect = true;
  }
}

void PeerLife::greeted(Time now, std::uint64_t incarnation, Actions& actions) {
  is_attempting_ = false;
  if (generation_ > 0 && incarnation != incarnation_) ++restarts_;
  ++generation_;
  incarnation_ = incarnation;
  greeted_ = now;
  next_ping_ = now + times_.heartbeat;
  asked_.reset();
  set(PeerState::Up, "", actions);
}

void PeerLife::lose(Time now, PeerState state, std::string reason, Actions& actions) {
  actions.disconnect = is_connected();
  // One that was up for long is tried again soon, one that comes and goes less and less often.
  if (is_connected() && now - greeted_ >= times_.longest_retry) pause_ = times_.first_retry;
  if (state == PeerState::Refused) pause_ = times_.longest_retry;
  retry_ = now + pause_;
  pause_ = std::min(pause_ * 2, times_.longest_retry);
  is_attempting_ = false;
  asked_.reset();
  set(state, std::move(reason), actions);
}

void PeerLife::set(PeerState state, std::string reason, Actions& actions) {
  if (state_ == state && reason_ == reason) return;
  state_ = state;
  reason_ = std::move(reason);
  actions.changed = true;
}

PeerLife::Time PeerLife::next() const noexcept {
  if (is_attempting_) return Time::max();
  if (!is_connected()) return retry_;
  if (!asked_) return next_ping_;
  return *asked_ + (state_ == PeerState::Suspect ? times_.lost_after : times_.suspect_after);
}

void PeerLife::check_invariants() const {
  require(!is_attempting_ || !is_connected(), "connects while it is connected");
  require(is_connected() || !asked_, "a peer without a connection owes an answer");
  require(state_ != PeerState::Suspect || asked_, "a suspect peer owes nothing");
  require((state_ == PeerState::Up) == reason_.empty(), "up with a reason, or not up without");
  require(!is_connected() || generation_ > 0, "connected and never greeted");
  require(pause_ >= times_.first_retry && pause_ <= times_.longest_retry, "a pause out of bounds");
}

}  // namespace kvbm::remote
