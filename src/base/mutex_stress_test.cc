#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/mutex.h"

namespace kvbm {
namespace {

// The mutex of production builds, whatever Mutex is in this one. TSan sees whether it orders.
TEST(InlineMutexStressTest, LetsInOneAtATimeAndForgetsNobody) {
  InlineMutex mutex;
  std::uint64_t count = 0;
  constexpr int kThreads = 4;
  constexpr int kRounds = 20'000;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kRounds; ++i) {
          mutex.lock();
          ++count;
          // Now and then whoever has it goes to sleep, so that the others must as well.
          if (i % 64 == t) std::this_thread::yield();
          mutex.unlock();
        }
      });
    }
  }
  EXPECT_EQ(count, std::uint64_t{kThreads} * kRounds);
}

TEST(InlineMutexStressTest, AConditionCanBeWaitedFor) {
  InlineMutex mutex;
  CondVar changed;
  int turn = 0;
  const auto play = [&](int mine) {
    for (int i = 0; i < 2'000; ++i) {
      mutex.lock();
      while (turn != mine) changed.wait(mutex);
      turn = 1 - mine;
      mutex.unlock();
      changed.notify_all();
    }
  };
  std::jthread other(play, 1);
  play(0);
  other.join();
  EXPECT_EQ(turn, 0);
}

}  // namespace
}  // namespace kvbm
