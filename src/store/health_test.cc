#include "store/health.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace kvbm::store {
namespace {

using namespace std::chrono_literals;

Error error_of(int number) { return Error{ErrorCode::OperationFailed, number, 0, 0, "write"}; }

class HealthTest : public testing::Test {
 protected:
  void fail(Health::Op op, int number) {
    health_.began(now_);
    health_.ended(op, error_of(number), now_);
  }
  void succeed(Health::Op op) {
    health_.began(now_);
    health_.ended(op, {}, now_);
  }

  Clock::time_point now_ = Clock::time_point(1000s);
  std::vector<DiskHealth> told_;
  Health health_{10000ms, [this](DiskHealth state, const std::string& reason) {
                   EXPECT_EQ(reason.empty(), state == DiskHealth::Healthy);
                   told_.push_back(state);
                 }};
};

TEST_F(HealthTest, WriteErrorsInARowMakeItReadOnly) {
  fail(Health::Op::Write, EIO);
  fail(Health::Op::Write, EIO);
  succeed(Health::Op::Write);
  fail(Health::Op::Write, EIO);
  fail(Health::Op::Write, EIO);
  succeed(Health::Op::Read);
  EXPECT_EQ(health_.state(), DiskHealth::Healthy);
  EXPECT_FALSE(health_.wants_probe(now_ + 1h));
  fail(Health::Op::Write, EIO);
  EXPECT_EQ(health_.state(), DiskHealth::ReadOnly);
  EXPECT_EQ(health_.errors(Health::Op::Write), 5u);
  EXPECT_NE(health_.reason().find("Input/output error"), std::string::npos) << health_.reason();
}

TEST_F(HealthTest, AFullOrReadOnlyDiskIsReadOnlyAtOnce) {
  for (const int number : {ENOSPC, EROFS, EDQUOT}) {
    fail(Health::Op::Write, number);
    EXPECT_EQ(health_.state(), DiskHealth::ReadOnly);
    health_.probed({}, {}, now_);
    EXPECT_EQ(health_.state(), DiskHealth::Healthy);
  }
}

TEST_F(HealthTest, ReadErrorsInARowTurnItOff) {
  for (std::size_t i = 1; i < Health::kReadErrorsInARow; ++i) fail(Health::Op::Read, EIO);
  EXPECT_EQ(health_.state(), DiskHealth::Healthy);
  fail(Health::Op::Read, EIO);
  EXPECT_EQ(health_.state(), DiskHealth::Off);
}

TEST_F(HealthTest, ProbesAreFewerAndFewerUntilOneSucceeds) {
  fail(Health::Op::Write, ENOSPC);
  EXPECT_FALSE(health_.wants_probe(now_));
  for (const auto pause : {1s, 2s, 4s, 8s, 16s, 32s, 60s, 60s}) {
    EXPECT_FALSE(health_.wants_probe(now_ + pause - 1ms));
    now_ += pause;
    EXPECT_TRUE(health_.wants_probe(now_));
    health_.probed({}, error_of(ENOSPC), now_);
    EXPECT_EQ(health_.state(), DiskHealth::ReadOnly);
  }
  health_.probed({}, {}, now_);
  EXPECT_EQ(health_.state(), DiskHealth::Healthy);
  EXPECT_FALSE(health_.wants_probe(now_ + 1h));
  EXPECT_EQ(told_, (std::vector{DiskHealth::ReadOnly, DiskHealth::Healthy}));
}

TEST_F(HealthTest, ADiskThatPassesItsProbesAndFailsIsProbedLessAndLess) {
  for (const auto pause : {1s, 2s, 4s, 8s}) {
    fail(Health::Op::Write, ENOSPC);
    EXPECT_FALSE(health_.wants_probe(now_ + pause - 1ms));
    now_ += pause;
    ASSERT_TRUE(health_.wants_probe(now_));
    health_.probed({}, {}, now_);
    EXPECT_EQ(health_.state(), DiskHealth::Healthy);
    succeed(Health::Op::Write);
  }
  for (std::size_t i = 0; i < Health::kGoodInARow; ++i) succeed(Health::Op::Write);
  fail(Health::Op::Write, ENOSPC);
  EXPECT_TRUE(health_.wants_probe(now_ + 1s)) << "it was good for long enough";
}

TEST_F(HealthTest, ADiskThatReadsAgainIsReadOnlyWhileItRefusesWrites) {
  for (std::size_t i = 0; i < Health::kReadErrorsInARow; ++i) fail(Health::Op::Read, EIO);
  fail(Health::Op::Write, EROFS);
  EXPECT_EQ(health_.state(), DiskHealth::Off);
  health_.probed({}, error_of(EROFS), now_);
  EXPECT_EQ(health_.state(), DiskHealth::ReadOnly);
}

TEST_F(HealthTest, ADiskThatAnswersNothingIsOffUntilItDoes) {
  health_.began(now_);
  health_.check(now_ + 9999ms, false);
  EXPECT_EQ(health_.state(), DiskHealth::Healthy);
  health_.check(now_ + 10000ms, false);
  EXPECT_EQ(health_.state(), DiskHealth::Off);
  EXPECT_FALSE(health_.wants_probe(now_ + 1h)) << "a probe would hang as well";
  health_.ended(Health::Op::Read, {}, now_ + 20s);
  EXPECT_EQ(health_.state(), DiskHealth::Healthy);
  EXPECT_EQ(told_, (std::vector{DiskHealth::Off, DiskHealth::Healthy}));
}

TEST_F(HealthTest, AnIdleDiskDoesNotHang) {
  succeed(Health::Op::Read);
  health_.check(now_ + 1h, false);
  EXPECT_EQ(health_.state(), DiskHealth::Healthy);
  now_ += 1h;
  health_.began(now_);
  health_.check(now_ + 1s, false);
  EXPECT_EQ(health_.state(), DiskHealth::Healthy) << "the pause before does not count";
}

TEST_F(HealthTest, RemovedFilesAreServedButNotWritten) {
  health_.check(now_, true);
  EXPECT_EQ(health_.state(), DiskHealth::ReadOnly);
  EXPECT_NE(health_.reason().find("removed"), std::string::npos);
  health_.check(now_, false);
  EXPECT_EQ(health_.state(), DiskHealth::Healthy);
}

}  // namespace
}  // namespace kvbm::store
