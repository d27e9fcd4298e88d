#include "remote/peer_life.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <random>

namespace kvbm::remote {
namespace {

using std::chrono::milliseconds;
using Kind = PeerLife::Event::Kind;

class PeerLifeTest : public testing::Test {
 protected:
  PeerLife::Actions step(Kind kind, std::string reason = "", std::uint64_t incarnation = 1) {
    const auto actions =
        life_.step(now_, {.kind = kind, .incarnation = incarnation, .reason = std::move(reason)});
    life_.check_invariants();
    return actions;
  }
  PeerLife::Actions after(milliseconds time) {
    now_ += time;
    return step(Kind::Tick);
  }
  // The next Tick that has something to do.
  PeerLife::Actions at_next() {
    now_ = life_.next();
    return step(Kind::Tick);
  }
  milliseconds until_next() const {
    return std::chrono::duration_cast<milliseconds>(life_.next() - now_);
  }
  void come_up() {
    EXPECT_TRUE(step(Kind::Tick).connect);
    EXPECT_TRUE(step(Kind::Greeted).changed);
  }

  PeerLife::Time now_ = PeerLife::Time(std::chrono::hours(1));
  PeerTimes times_;
  PeerLife life_{times_};
};

TEST_F(PeerLifeTest, ConnectsAtOnceAndOnce) {
  EXPECT_EQ(life_.state(), PeerState::Connecting);
  EXPECT_TRUE(step(Kind::Tick).connect);
  EXPECT_FALSE(after(milliseconds(1'000'000)).connect) << "one attempt at a time";
  const auto actions = step(Kind::Greeted, "", 42);
  EXPECT_TRUE(actions.changed);
  EXPECT_EQ(life_.state(), PeerState::Up);
  EXPECT_EQ(life_.generation(), 1u);
  EXPECT_EQ(life_.incarnation(), 42u);
  EXPECT_EQ(life_.restarts(), 0u);
}

TEST_F(PeerLifeTest, PingsOnceAHeartbeatWhileItIsAnswered) {
  come_up();
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(after(times_.heartbeat - milliseconds(1)).ping);
    EXPECT_TRUE(after(milliseconds(1)).ping);
    EXPECT_FALSE(step(Kind::Heard).changed);
    EXPECT_EQ(until_next(), times_.heartbeat);
  }
}

TEST_F(PeerLifeTest, SilenceMakesItSuspectThenLost) {
  come_up();
  EXPECT_TRUE(at_next().ping);
  EXPECT_EQ(until_next(), times_.suspect_after);
  EXPECT_TRUE(at_next().changed);
  EXPECT_EQ(life_.state(), PeerState::Suspect);
  EXPECT_EQ(life_.reason(), "no sign of life for 2000 ms");
  const auto lost = at_next();
  EXPECT_TRUE(lost.disconnect && lost.changed);
  EXPECT_EQ(life_.state(), PeerState::Lost);
  EXPECT_TRUE(at_next().connect);
}

TEST_F(PeerLifeTest, SilenceIsOneQuestionHoweverOftenTheClockIsLookedAt) {
  come_up();
  ASSERT_TRUE(at_next().ping);
  for (milliseconds silent(100); silent < times_.lost_after; silent += milliseconds(100)) {
    EXPECT_FALSE(after(milliseconds(100)).ping);
    EXPECT_EQ(life_.state(), silent < times_.suspect_after ? PeerState::Up : PeerState::Suspect);
  }
  EXPECT_TRUE(after(milliseconds(100)).disconnect);
}

TEST_F(PeerLifeTest, ASignOfLifeClearsTheSuspicion) {
  come_up();
  at_next();
  at_next();
  ASSERT_EQ(life_.state(), PeerState::Suspect);
  EXPECT_TRUE(step(Kind::Heard).changed);
  EXPECT_EQ(life_.state(), PeerState::Up);
  EXPECT_EQ(life_.generation(), 1u) << "it is the same connection";
}

TEST_F(PeerLifeTest, SilenceCountsFromTheQuestionNotFromTheLastAnswer) {
  come_up();
  // This process did not run for long; the peer has not been asked meanwhile.
  const auto actions = after(times_.lost_after * 10);
  EXPECT_FALSE(actions.disconnect);
  EXPECT_TRUE(actions.ping);
  EXPECT_EQ(life_.state(), PeerState::Up);
}

TEST_F(PeerLifeTest, AttemptsGetRarerUpToACap) {
  milliseconds expected = times_.first_retry;
  step(Kind::Tick);
  for (int i = 0; i < 20; ++i) {
    step(Kind::Failed, "nobody there");
    EXPECT_EQ(life_.state(), PeerState::Lost);
    EXPECT_EQ(life_.reason(), "nobody there");
    EXPECT_EQ(until_next(), expected);
    EXPECT_TRUE(at_next().connect);
    expected = std::min(expected * 2, times_.longest_retry);
  }
  EXPECT_EQ(expected, times_.longest_retry);
}

TEST_F(PeerLifeTest, OnlyWhoWasUpForLongIsTriedAgainSoon) {
  come_up();
  step(Kind::Disconnected, "gone");
  EXPECT_EQ(until_next(), times_.first_retry);
  at_next();
  step(Kind::Greeted);
  step(Kind::Disconnected, "gone");
  EXPECT_EQ(until_next(), times_.first_retry * 2) << "it comes and goes";
  at_next();
  step(Kind::Greeted);
  now_ += times_.longest_retry;
  step(Kind::Disconnected, "gone");
  EXPECT_EQ(until_next(), times_.first_retry);
}

TEST_F(PeerLifeTest, WhoDisagreesIsTriedAgainRarely) {
  step(Kind::Tick);
  step(Kind::Disagreed, "the model: 'a' and 'b'");
  EXPECT_EQ(life_.state(), PeerState::Refused);
  EXPECT_EQ(life_.reason(), "the model: 'a' and 'b'");
  EXPECT_EQ(until_next(), times_.longest_retry);
  EXPECT_TRUE(at_next().connect);
  step(Kind::Greeted);
  EXPECT_EQ(life_.state(), PeerState::Up);
}

TEST_F(PeerLifeTest, EachGreetingIsAGenerationAndEachProcessAnIncarnation) {
  come_up();
  for (const std::uint64_t incarnation : {1u, 2u, 2u, 3u}) {
    step(Kind::Disconnected, "gone");
    at_next();
    step(Kind::Greeted, "", incarnation);
  }
  EXPECT_EQ(life_.generation(), 5u);
  EXPECT_EQ(life_.incarnation(), 3u);
  EXPECT_EQ(life_.restarts(), 2u);
}

TEST_F(PeerLifeTest, WhatComesTooLateChangesNothing) {
  for (const Kind kind :
       {Kind::Greeted, Kind::Failed, Kind::Disagreed, Kind::Heard, Kind::Disconnected}) {
    PeerLife life(times_);
    life.step(now_, {.kind = kind, .incarnation = 5, .reason = "late"});
    EXPECT_EQ(life.state(), PeerState::Connecting);
    EXPECT_EQ(life.generation(), 0u);
  }
  come_up();
  step(Kind::Failed, "late");
  step(Kind::Greeted, "", 9);
  EXPECT_EQ(life_.state(), PeerState::Up);
  EXPECT_EQ(life_.generation(), 1u);
}

// Any events at any times: it keeps its promises and never falls asleep.
TEST_F(PeerLifeTest, RandomLives) {
  const char* const given = std::getenv("KVBM_SEED");
  const std::uint64_t seed =
      given ? std::strtoull(given, nullptr, 10) : std::uint64_t{std::random_device{}()};
  SCOPED_TRACE(testing::Message() << "KVBM_SEED=" << seed);
  std::mt19937_64 random(seed);
  bool is_connected = false, is_attempting = false;
  for (int i = 0; i < 200'000; ++i) {
    const auto kind = static_cast<Kind>(random() % 6);
    now_ += milliseconds(random() % 4 == 0 ? random() % 12'000 : random() % 300);
    const std::uint64_t generation = life_.generation();
    if (is_attempting &&
        (kind == Kind::Greeted || kind == Kind::Failed || kind == Kind::Disagreed)) {
      is_attempting = false;
      is_connected = kind == Kind::Greeted;
    } else if (is_connected && kind == Kind::Disconnected) {
      is_connected = false;
    }
    const auto actions = step(kind, "why", random() % 3);
    if (actions.disconnect) is_connected = false;
    ASSERT_FALSE(actions.connect && (is_connected || is_attempting));
    ASSERT_FALSE(actions.ping && !is_connected);
    is_attempting = is_attempting || actions.connect;
    ASSERT_EQ(life_.state() == PeerState::Up || life_.state() == PeerState::Suspect, is_connected);
    ASSERT_GE(life_.generation(), generation);
    ASSERT_TRUE(is_attempting || life_.next() > now_);
    ASSERT_TRUE(is_attempting || life_.next() <= now_ + times_.longest_retry);
  }
}

}  // namespace
}  // namespace kvbm::remote
