#include "tiers/governor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

namespace kvbm::detail {
namespace {

using namespace std::chrono_literals;
using Check = Governor::Check;
using Decision = Governor::Decision;
using LoadStep = Governor::LoadStep;
using TimePoint = Governor::TimePoint;

constexpr std::uint64_t kBlock = 1'000'000;
constexpr std::uint32_t kTokens = 10;
constexpr LoadStep kOnDisk{.bytes_from_disk = kBlock, .tokens = kTokens};
constexpr LoadStep kInHost{.bytes_from_host = kBlock, .tokens = kTokens};
constexpr TimePoint kStart{1000s};

std::vector<LoadStep> steps(std::size_t in_host, std::size_t on_disk) {
  std::vector<LoadStep> prefix(in_host, kInHost);
  prefix.insert(prefix.end(), on_disk, kOnDisk);
  return prefix;
}

class GovernorTest : public testing::Test {
 protected:
  // So many transfers of a block that take so long each.
  void measure(Edge edge, std::chrono::nanoseconds busy, int transfers = 1) {
    for (int i = 0; i < transfers; ++i) governor_.observe(edge, kBlock, busy, 1);
  }
  double speed(Edge edge) const { return governor_.bytes_per_second(edge); }

  Governor governor_;
};

TEST_F(GovernorTest, ASpeedIsKnownFromTheFirstTransferOn) {
  EXPECT_EQ(speed(Edge::DiskToHost), 0);
  measure(Edge::DiskToHost, 1ms);
  EXPECT_NEAR(speed(Edge::DiskToHost), 1e9, 1);
  EXPECT_EQ(speed(Edge::HostToDevice), 0);
}

TEST_F(GovernorTest, TransfersThatShareAPathAddUp) {
  governor_.observe(Edge::DiskToHost, kBlock, 4ms, 4);
  EXPECT_NEAR(speed(Edge::DiskToHost), 1e9, 1);
}

TEST_F(GovernorTest, WhatSaysNothingIsIgnored) {
  governor_.observe(Edge::DiskToHost, 0, 1ms, 1);
  governor_.observe(Edge::DiskToHost, kBlock, 0ms, 1);
  governor_.observe(Edge::DiskToHost, kBlock, -1ms, 1);
  governor_.observe(Edge::DiskToHost, kBlock, 1ms, 0);
  EXPECT_EQ(speed(Edge::DiskToHost), 0);
}

TEST_F(GovernorTest, TinyTransfersChangeLittle) {
  measure(Edge::DiskToHost, 1ms, 10);
  for (int i = 0; i < 100; ++i) governor_.observe(Edge::DiskToHost, 1000, 100us, 1);
  EXPECT_GT(speed(Edge::DiskToHost), 0.95e9);
}

TEST_F(GovernorTest, TinyTransfersThatCameFirstAreOutweighed) {
  for (int i = 0; i < 100; ++i) governor_.observe(Edge::DiskToHost, 1000, 100us, 1);
  EXPECT_NEAR(speed(Edge::DiskToHost), 1e7, 1);
  measure(Edge::DiskToHost, 1ms);
  EXPECT_GT(speed(Edge::DiskToHost), 0.7e9);
}

TEST_F(GovernorTest, OneLateTransferChangesLittle) {
  measure(Edge::DiskToHost, 1ms, 64);
  measure(Edge::DiskToHost, 10ms);
  measure(Edge::DiskToHost, 1ms, 3);
  EXPECT_GT(speed(Edge::DiskToHost), 0.9e9);
}

TEST_F(GovernorTest, AChangeIsNoticedWithinAFewTransfers) {
  measure(Edge::DiskToHost, 1ms, 1000);
  measure(Edge::DiskToHost, 100ms, 20);
  EXPECT_NEAR(speed(Edge::DiskToHost), 1e7, 0.05e7);
  measure(Edge::DiskToHost, 1ms, 20);
  EXPECT_NEAR(speed(Edge::DiskToHost), 1e9, 0.05e9);
}

TEST_F(GovernorTest, EverythingIsLoadedWhileTheRateIsUnknown) {
  measure(Edge::DiskToHost, 10s);
  measure(Edge::HostToDevice, 10s);
  const auto prefix = steps(2, 3);
  for (const double rate : {0.0, -1.0, std::nan("")}) {
    const Decision decision = governor_.decide(prefix, rate);
    EXPECT_EQ(decision.blocks, 5u);
    EXPECT_FALSE(decision.is_trial);
    EXPECT_EQ(decision.recompute_time, 0ns);
  }
}

TEST_F(GovernorTest, EverythingIsLoadedThatNeedsAPathThatWasNeverMeasured) {
  measure(Edge::HostToDevice, 1s);
  EXPECT_EQ(governor_.decide(steps(3, 1), 1e6).blocks, 4u);
  EXPECT_EQ(governor_.decide(steps(3, 0), 1e6).blocks, 0u);
}

TEST_F(GovernorTest, AnEmptyPrefixIsNothing) {
  EXPECT_EQ(governor_.decide({}, 1e6).blocks, 0u);
  measure(Edge::HostToDevice, 1s);
  EXPECT_EQ(governor_.decide({}, 1e6).blocks, 0u);
}

TEST_F(GovernorTest, TheSlowerOfDiskAndHostDecides) {
  measure(Edge::DiskToHost, 2ms);
  measure(Edge::HostToDevice, 1ms);
  // 10 tokens take 10 ms to compute.
  const Decision fast = governor_.decide(steps(2, 3), 1000);
  EXPECT_EQ(fast.blocks, 5u);
  EXPECT_NEAR(static_cast<double>(fast.load_time.count()), 6e6, 10);
  EXPECT_EQ(fast.recompute_time, 0ns);
  const Decision many_in_host = governor_.decide(steps(7, 1), 1000);
  EXPECT_NEAR(static_cast<double>(many_in_host.load_time.count()), 8e6, 10);
}

TEST_F(GovernorTest, APrefixIsSplitWhereItsBlocksBecomeTooSlow) {
  measure(Edge::DiskToHost, 20ms);
  measure(Edge::HostToDevice, 1ms);
  const Decision decision = governor_.decide(steps(4, 4), 1000);
  EXPECT_EQ(decision.blocks, 4u);
  EXPECT_NEAR(static_cast<double>(decision.load_time.count()), 4e6, 10);
  EXPECT_NEAR(static_cast<double>(decision.recompute_time.count()), 40e6, 10);
}

TEST_F(GovernorTest, BlocksBehindSlowOnesAreLoadedWhereThatPaysInTheEnd) {
  measure(Edge::DiskToHost, 20ms);
  measure(Edge::HostToDevice, 1ms);
  std::vector<LoadStep> prefix(1, kOnDisk);
  prefix.insert(prefix.end(), 4, kInHost);
  EXPECT_EQ(governor_.decide(prefix, 1000).blocks, 5u);
}

TEST_F(GovernorTest, OfEqualsTheMostBlocksAreLoaded) {
  measure(Edge::HostToDevice, 0ms);
  governor_.observe(Edge::HostToDevice, 1, 1s, 1);  // a byte a second
  const std::vector<LoadStep> prefix(3, {.bytes_from_host = 1, .tokens = 1});
  EXPECT_EQ(governor_.decide(prefix, 1).blocks, 3u);
}

TEST_F(GovernorTest, WhatWaitsInTheQueueIsWaitedFor) {
  measure(Edge::DiskToHost, 2ms);
  measure(Edge::HostToDevice, 1ms);
  governor_.queue(Edge::DiskToHost, 40 * kBlock);  // 80 ms
  EXPECT_EQ(governor_.decide(steps(2, 5), 1000).blocks, 2u);
  EXPECT_EQ(governor_.decide(steps(0, 20), 1000).blocks, 20u) << "120 ms instead of 200";
  governor_.queue(Edge::DiskToHost, 0);
  EXPECT_EQ(governor_.decide(steps(2, 5), 1000).blocks, 7u);
  governor_.queue(Edge::DeviceToHost, 1000 * kBlock);
  governor_.queue(Edge::HostToDisk, 1000 * kBlock);
  EXPECT_EQ(governor_.decide(steps(2, 5), 1000).blocks, 7u);
}

// Decisions until one of them is a trial, and that.
std::pair<int, Decision> until_trial(Governor& governor, const std::vector<LoadStep>& prefix) {
  for (int refused = 0; refused < 100'000; ++refused) {
    const Decision decision = governor.decide(prefix, 1000);
    if (decision.is_trial) return {refused, decision};
  }
  return {-1, {}};
}

TEST_F(GovernorTest, RefusedBlocksAreTriedForASmallShareOfTheTime) {
  measure(Edge::HostToDevice, 20ms);
  const auto [refused, trial] = until_trial(governor_, steps(10, 0));
  EXPECT_EQ(refused, 51) << "80 ms of 52 times 100";
  EXPECT_EQ(trial.blocks, 4u);
  EXPECT_NEAR(static_cast<double>(trial.load_time.count()), 80e6, 10);
  EXPECT_NEAR(static_cast<double>(trial.recompute_time.count()), 60e6, 10);
  EXPECT_EQ(until_trial(governor_, steps(10, 0)).first, 51);
}

TEST_F(GovernorTest, DiskAndHostAreTriedEachForItself) {
  measure(Edge::DiskToHost, 20ms);
  measure(Edge::HostToDevice, 1ms);
  const auto [refused, trial] = until_trial(governor_, steps(4, 2));
  EXPECT_EQ(trial.blocks, 6u) << "blocks that are left";
  EXPECT_GT(refused, 50);

  measure(Edge::HostToDevice, 20ms, 20);
  for (int i = 0; i < 60; ++i) ASSERT_FALSE(governor_.decide(steps(0, 2), 1000).is_trial);
  ASSERT_FALSE(governor_.decide(steps(10, 0), 1000).is_trial)
      << "what was saved for the disk is not the host's";
}

TEST_F(GovernorTest, ADiskThatHasRecoveredIsFoundByTrials) {
  measure(Edge::HostToDevice, 1ms, 64);
  measure(Edge::DiskToHost, 1ms, 64);
  measure(Edge::DiskToHost, 300ms, 16);
  int decisions = 0;
  std::size_t loaded = 0;
  for (; decisions < 1000; ++decisions) {
    const Decision decision = governor_.decide(steps(0, 100), 1000);
    if (decision.blocks == 100) break;
    loaded += decision.blocks;
    measure(Edge::DiskToHost, 1ms, static_cast<int>(decision.blocks));
  }
  EXPECT_LT(decisions, 150);
  EXPECT_LE(loaded, 12u);
}

TEST_F(GovernorTest, ALoadAtTheExpectedSpeedIsNeverBehind) {
  measure(Edge::HostToDevice, 9ms);
  const Decision decision = governor_.decide(steps(10, 0), 1000);
  ASSERT_EQ(decision.blocks, 10u);
  TimePoint now = kStart;
  for (std::uint32_t left = 10; left > 0; --left) {
    const LoadStep rest{.bytes_from_host = left * kBlock, .tokens = left * kTokens};
    const Check check = governor_.check(decision, rest, 1000, now, now);
    EXPECT_FALSE(check.is_behind);
    EXPECT_EQ(check.next_check, now + left * 10ms);
    now += 9ms;
  }
}

TEST_F(GovernorTest, ALoadIsBehindWhenItsPathHasBecomeTooSlow) {
  measure(Edge::HostToDevice, 9ms);
  const Decision decision = governor_.decide(steps(10, 0), 1000);
  measure(Edge::HostToDevice, 30ms, 4);
  const LoadStep rest{.bytes_from_host = 6 * kBlock, .tokens = 6 * kTokens};
  EXPECT_TRUE(governor_.check(decision, rest, 1000, kStart, kStart).is_behind);
}

TEST_F(GovernorTest, ALoadIsBehindWhenNothingArrivesForAsLongAsComputingTakes) {
  const LoadStep rest{.bytes_from_disk = 5 * kBlock, .tokens = 5 * kTokens};
  const auto at = [&](TimePoint now) { return governor_.check({}, rest, 1000, kStart, now); };
  const TimePoint end = kStart + 50ms;
  EXPECT_EQ(at(kStart).next_check, end);
  EXPECT_FALSE(at(end - 1ns).is_behind);
  EXPECT_TRUE(at(end).is_behind) << "the check that was named is the last one";
}

TEST_F(GovernorTest, ATrialMayTakeAsLongAsItWasThoughtTo) {
  measure(Edge::HostToDevice, 20ms);
  const Decision trial = until_trial(governor_, steps(10, 0)).second;
  const LoadStep rest{.bytes_from_host = 4 * kBlock, .tokens = 4 * kTokens};
  const auto at = [&](TimePoint now) { return governor_.check(trial, rest, 1000, kStart, now); };
  EXPECT_FALSE(at(kStart + 79ms).is_behind);
  EXPECT_TRUE(at(kStart + 80ms).is_behind);
  measure(Edge::HostToDevice, 100ms, 20);
  EXPECT_TRUE(at(kStart).is_behind);
}

TEST_F(GovernorTest, NothingIsBehindWhereTheRateIsUnknownOrAllHasArrived) {
  measure(Edge::HostToDevice, 20ms);
  const TimePoint late = kStart + 10h;
  const Check unknown = governor_.check({}, kInHost, 0, kStart, late);
  EXPECT_FALSE(unknown.is_behind);
  EXPECT_EQ(unknown.next_check, TimePoint::max());
  EXPECT_FALSE(governor_.check({}, {}, 1000, kStart, late).is_behind);
}

TEST_F(GovernorTest, TimesWithoutEndAreCutOff) {
  governor_.observe(Edge::HostToDevice, 1, std::chrono::hours(24 * 365), 1);
  const std::vector<LoadStep> prefix(1, {.bytes_from_host = ~std::uint64_t{0}, .tokens = ~0u});
  const Decision decision = governor_.decide(prefix, 1e-12);
  EXPECT_EQ(decision.blocks, 0u);
  EXPECT_EQ(decision.recompute_time, Governor::Nanoseconds::max());
  EXPECT_EQ(governor_.check(decision, prefix[0], 1e-12, kStart, kStart).next_check,
            TimePoint::max());
}

}  // namespace
}  // namespace kvbm::detail
