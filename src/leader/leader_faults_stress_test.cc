// Leaders of ranks that are slow, or not what they should be.
#include <gtest/gtest.h>

#include "leader/test_leader.h"

namespace kvbm::leader {
namespace {

class LeaderTest : public testing::Test, protected LeaderWorld {};

TEST_F(LeaderTest, AMuteRankCostsTheTimeoutOnceAndIsAskedAgainWhenItHasAnswered) {
  auto [leader, peer] = play(config(2, kShort));
  EXPECT_TRUE(misses(leader));
  EXPECT_EQ(leader.stats().timeouts, 1u);
  EXPECT_EQ(states_.wait_for(1, RankState::Stalled), "no answer within 20 ms");
  services_[0]->wait_for_releases(1);
  EXPECT_TRUE(services_[0]->plans().empty());
  // While it owes an answer nobody is asked, so nobody waits.
  EXPECT_TRUE(misses(leader));
  EXPECT_EQ(leader.stats().unavailable, 1u);
  EXPECT_EQ(services_[0]->lookups(), 1u);

  const auto request = peer.read()->request;
  peer.send(encode_reply(request, PlanAnswer{.plan = 77, .blocks = 1, .by_tier = {1, 0, 0}}));
  EXPECT_EQ(std::get<ReleaseRequest>(peer.read_request()).plan, 77u);
  states_.wait_for(1, RankState::Ready);
  EXPECT_EQ(leader.stats().late_answers, 1u);
  leader.check_invariants();
}

TEST_F(LeaderTest, ALateAnswerIsNotTakenForThatOfTheNextQuestion) {
  auto [leader, peer] = play(config(2));
  services_[0]->set_fails(true, false);
  EXPECT_TRUE(misses(leader));  // rank 0 ends it; what rank 1 says comes too late
  services_[0]->set_fails(false, false);
  auto next = ask(leader);
  const auto first = peer.read()->request;
  const auto second = peer.read()->request;
  peer.send(encode_reply(first, PlanAnswer{.plan = 77, .blocks = 1, .by_tier = {1, 0, 0}}));
  EXPECT_EQ(std::get<ReleaseRequest>(peer.read_request()).plan, 77u);
  peer.send(encode_reply(second, PlanAnswer{.plan = 78, .blocks = 4, .by_tier = {4, 0, 0}}));
  EXPECT_EQ(next.get().plan_ids(), (std::vector<std::uint64_t>{1001, 78}));
}

TEST_F(LeaderTest, ARankThatOwesAnAnswerForLongerThanTheLeaseIsConnectedAnew) {
  auto with_short_lease = config(2, kShort);
  with_short_lease.lease = milliseconds(1);
  auto [leader, peer] = play(with_short_lease);
  EXPECT_TRUE(misses(leader));
  EXPECT_EQ(states_.wait_for(1, RankState::Down),
            "owed an answer for longer than the lease of 1 ms");
  while (peer.read()) {
  }
  TestPeer again = TestPeer::accept(*listener_, services_[0]->info());
  states_.wait_for(1, RankState::Ready);
}

TEST_F(LeaderTest, ARankThatOwesManyAnswersIsNotAskedForMore) {
  auto [leader, peer] = play(config(2));
  services_[0]->set_fails(true, false);  // so that nobody waits for rank 1
  for (int i = 0; i < 64; ++i) EXPECT_TRUE(misses(leader));
  EXPECT_EQ(leader.stats().failures, 64u);
  EXPECT_TRUE(misses(leader));
  EXPECT_EQ(leader.stats().unavailable, 1u);
  peer.send(
      encode_reply(peer.read()->request, PlanAnswer{.plan = 7, .blocks = 1, .by_tier = {1, 0, 0}}));
  for (int i = 0; i < 63; ++i) ASSERT_EQ(peer.read()->type, FrameType::Lookup);
  ASSERT_EQ(peer.read()->type, FrameType::Release);
  EXPECT_TRUE(misses(leader));
  EXPECT_EQ(leader.stats().failures, 65u);
}

TEST_F(LeaderTest, WhatIsKeptForARankThatDoesNotReadIsBounded) {
  auto [leader, peer] = play(config(2));
  services_[0]->set_fails(true, false);
  const auto hashes = prefix(kMaxHashes);  // 4 MiB
  for (int i = 0; i < 8; ++i) EXPECT_EQ(leader.lookup(hashes).value().blocks(), 0u);
  EXPECT_TRUE(misses(leader));
  std::size_t arrived = 0;
  for (; peer.read()->body.size() > 1'000'000; ++arrived) {
  }
  EXPECT_EQ(arrived, 4u);
}

// A peer that answers a lookup of 6 blocks in some wrong way, whereupon it is disconnected.
class WrongAnswerTest : public LeaderTest {
 protected:
  void expect_lost(const std::function<std::vector<std::byte>(std::uint64_t)>& answer,
                   const std::string& reason) {
    auto [leader, peer] = play(config(2));
    auto found = ask(leader);
    peer.send(answer(peer.read()->request));
    EXPECT_EQ(found.get().blocks(), 0u);
    const std::string told = states_.wait_for(1, RankState::Down);
    EXPECT_NE(told.find(reason), std::string::npos) << told;
    EXPECT_EQ(leader.stats().failures, 1u);
    services_[0]->wait_for_plans(0);
    leader.check_invariants();
    while (peer.read()) {
    }
  }
  static PlanAnswer plan_of(std::uint32_t blocks) {
    return {.plan = 7, .blocks = blocks, .by_tier = {blocks, 0, 0}};
  }
};

TEST_F(WrongAnswerTest, Garbage) {
  expect_lost([](auto) { return std::vector<std::byte>(100, std::byte{0xEE}); },
              "protocol version 238 is not known");
}
TEST_F(WrongAnswerTest, ARequest) {
  expect_lost([](auto request) { return encode_release(request, 1); },
              "a frame that ranks do not send");
}
TEST_F(WrongAnswerTest, AnswerToAnotherQuestion) {
  expect_lost([](auto request) { return encode_reply(request + 1, plan_of(4)); },
              "the rank answers what was not asked");
}
TEST_F(WrongAnswerTest, Greeting) {
  expect_lost([](auto request) { return encode_reply(request, RankInfo{.block_size = 16}); },
              "the rank answers what was not asked");
}
TEST_F(WrongAnswerTest, APlanOfMoreThanWasAskedFor) {
  expect_lost([](auto request) { return encode_reply(request, plan_of(7)); },
              "a plan that was not asked for");
}
TEST_F(WrongAnswerTest, AFailureOfTheWholeConnection) {
  expect_lost(
      [](auto) { return encode_reply(0, Error{ErrorCode::OperationFailed, 0, 0, 0, "no more"}); },
      "the rank says: OperationFailed: no more");
}
TEST_F(WrongAnswerTest, AFrameThatNeverEnds) {
  auto [leader, peer] = play(config(2, kShort));
  auto found = ask(leader);
  const auto whole = encode_reply(peer.read()->request, plan_of(4));
  peer.send(std::span(whole).first(whole.size() - 1));
  EXPECT_EQ(found.get().blocks(), 0u);
  EXPECT_EQ(leader.stats().timeouts, 1u);
}
TEST_F(WrongAnswerTest, ATrimToAnotherLength) {
  auto [leader, peer] = play(config(2));
  services_[0]->set_blocks(2);
  auto found = ask(leader);
  peer.send(encode_reply(peer.read()->request, plan_of(4)));
  const auto frame = peer.read().value();
  EXPECT_EQ(std::get<TrimRequest>(decode_request(frame).value()).blocks, 2u);
  peer.send(encode_reply(frame.request, plan_of(3)));
  EXPECT_EQ(found.get().blocks(), 0u);
  states_.wait_for(1, RankState::Down);
  services_[0]->wait_for_plans(0);
}

TEST_F(LeaderTest, ARankThatDiesMeanwhileMakesAMissAtOnce) {
  auto [leader, peer] = play(config(2));
  auto found = ask(leader);
  ASSERT_TRUE(peer.read().has_value());
  peer = TestPeer(Descriptor());
  EXPECT_EQ(found.get().blocks(), 0u);
  EXPECT_EQ(leader.stats().failures, 1u);
  states_.wait_for(1, RankState::Down);
  leader.check_invariants();
}

TEST_F(LeaderTest, NothingIsReleasedAtAProcessThatHasNotSaidWhoItIs) {
  auto [leader, peer] = play(config(2));
  auto asked = ask(leader);
  peer.send(
      encode_reply(peer.read()->request, PlanAnswer{.plan = 7, .blocks = 4, .by_tier = {4, 0, 0}}));
  auto plan = asked.get();
  ASSERT_EQ(plan.blocks(), 4u);
  peer = TestPeer(Descriptor());
  states_.wait_for(1, RankState::Down);
  TestPeer next = TestPeer::accept(*listener_);
  const auto greeting = next.read()->request;
  plan.release();
  auto info = services_[0]->info();
  info.epoch = 50;
  next.send(encode_reply(greeting, info));
  states_.wait_for(1, RankState::Ready);
  auto again = ask(leader);
  const auto frame = next.read().value();
  EXPECT_EQ(frame.type, FrameType::Lookup) << "and no release before it";
  next.send(encode_reply(frame.request, PlanAnswer()));
  EXPECT_EQ(again.get().blocks(), 0u);
}

TEST_F(LeaderTest, ARankThatDoesNotGreetDoesNotKeepTheLeaderFromComingUp) {
  serve_all({4});
  Leader leader = Leader::create(config(2, kShort)).value();
  EXPECT_EQ(leader.health()[1].state, RankState::Connecting);
  EXPECT_TRUE(misses(leader));
  TestPeer peer = TestPeer::accept(*listener_, services_[0]->info());
  states_.wait_for(1, RankState::Ready);
}

TEST_F(LeaderTest, ALeaderThatEndsWithAnswersOwedLeavesNobodyWaiting) {
  auto played = std::make_unique<Played>(play(config(2, kShort)));
  EXPECT_TRUE(misses(played->leader));
  TestPeer peer = std::move(played->peer);
  played.reset();
  ASSERT_TRUE(peer.read().has_value());
  EXPECT_FALSE(peer.read().has_value());
}

}  // namespace
}  // namespace kvbm::leader
