#include "kvbm/completion.h"

#include <gtest/gtest.h>

#include <latch>
#include <string>
#include <thread>
#include <type_traits>

#include "base/test_allocations.h"

namespace kvbm {
namespace {

using State = detail::CompletionState<std::string>;

static_assert(!std::is_copy_constructible_v<Completion<int>>);
static_assert(std::is_move_constructible_v<Completion<std::unique_ptr<int>>>);

// A coroutine that runs until it waits and cleans up after itself.
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

Detached await(Completion<std::string> completion, std::string& answer,
               std::thread::id* where = nullptr) {
  std::string value = co_await completion;
  if (where) *where = std::this_thread::get_id();
  answer = std::move(value);
}

TEST(CompletionTest, AReadyOneIsDoneAndGivesItsValueAway) {
  Completion<std::unique_ptr<int>> completion(std::make_unique<int>(7));
  EXPECT_TRUE(completion.done());
  EXPECT_TRUE(completion.wait_for(std::chrono::nanoseconds(0)));
  completion.wait();
  completion.cancel();  // too late: nothing happens
  EXPECT_EQ(*std::move(completion).get(), 7);
}

TEST(CompletionTest, AReadyOneAllocatesNothing) {
  const std::size_t before = allocations;
  Completion<int> completion(7);
  bool done = completion.done();
  completion.wait();
  done &= completion.wait_for(std::chrono::hours(1));
  Completion<int> moved = std::move(completion);
  const int value = std::move(moved).get();
  EXPECT_EQ(allocations, before);
  EXPECT_TRUE(done);
  EXPECT_EQ(value, 7);
}

TEST(CompletionTest, WaitsUntilAMomentOrForEver) {
  const auto state = std::make_shared<State>();
  Completion<std::string> completion(state);
  const auto now = std::chrono::steady_clock::now();
  EXPECT_FALSE(completion.wait_until(now - std::chrono::hours(1)));
  EXPECT_FALSE(completion.wait_until(now + std::chrono::microseconds(1)));
  const std::jthread other([&] { state->finish("late"); });
  EXPECT_TRUE(completion.wait_for(std::chrono::nanoseconds::max()));
  EXPECT_TRUE(completion.wait_until(std::chrono::steady_clock::time_point::max()));
}

TEST(CompletionTest, ARunningOneIsPolled) {
  const auto state = std::make_shared<State>();
  Completion<std::string> completion(state);
  EXPECT_FALSE(completion.done());
  EXPECT_FALSE(completion.wait_for(std::chrono::nanoseconds(0)));
  EXPECT_FALSE(completion.wait_for(std::chrono::microseconds(1)));
  state->finish("yes");
  EXPECT_TRUE(completion.done());
  EXPECT_TRUE(completion.wait_for(std::chrono::nanoseconds(0)));
  EXPECT_EQ(std::move(completion).get(), "yes");
}

TEST(CompletionTest, GetWaitsForAnotherThread) {
  const auto state = std::make_shared<State>();
  Completion<std::string> completion(state);
  std::latch asked(1);
  const std::jthread other([&] {
    asked.wait();
    state->finish("late");
  });
  asked.count_down();
  EXPECT_EQ(std::move(completion).get(), "late");
}

TEST(CompletionTest, EveryWaiterWakes) {
  const auto state = std::make_shared<State>();
  const Completion<std::string> completion(state);
  std::latch ready(3);
  std::atomic<int> woken{0};
  {
    std::vector<std::jthread> waiters;
    for (int i = 0; i < 3; ++i) {
      waiters.emplace_back([&] {
        ready.count_down();
        completion.wait();
        ++woken;
      });
    }
    ready.wait();
    state->finish("go");
  }
  EXPECT_EQ(woken, 3);
}

TEST(CompletionTest, CoAwaitOnAReadyOneDoesNotSuspend) {
  std::string answer;
  std::thread::id where;
  await(Completion<std::string>("now"), answer, &where);
  EXPECT_EQ(answer, "now");
  EXPECT_EQ(where, std::this_thread::get_id());
}

TEST(CompletionTest, CoAwaitGoesOnWhereTheRequestEnds) {
  const auto state = std::make_shared<State>();
  std::string answer;
  std::thread::id where;
  await(Completion<std::string>(state), answer, &where);
  EXPECT_EQ(answer, "") << "suspended";
  std::thread::id finisher;
  std::jthread([&] {
    finisher = std::this_thread::get_id();
    state->finish("later");
  }).join();
  EXPECT_EQ(answer, "later");
  EXPECT_EQ(where, finisher);
}

// await_ready() said no, and the request ended before await_suspend(): the coroutine goes on.
TEST(CompletionTest, ARequestThatEndsWhileTheCoroutineSuspendsIsNotMissed) {
  const auto state = std::make_shared<State>();
  Completion<std::string> completion(state);
  EXPECT_FALSE(completion.await_ready());
  state->finish("between");
  EXPECT_FALSE(completion.await_suspend(std::noop_coroutine()));
  EXPECT_EQ(completion.await_resume(), "between");
}

TEST(CompletionTest, CancelAsksOnceAndNotAfterwards) {
  const auto state = std::make_shared<State>();
  int asked = 0;
  state->cancel = [&] {
    ++asked;
    if (!state->done()) state->finish("cancelled");
  };
  Completion<std::string> completion(state);
  completion.cancel();
  EXPECT_EQ(asked, 1);
  EXPECT_TRUE(completion.done());
  completion.cancel();  // after the end: whoever is asked sees that it is done
  EXPECT_EQ(std::move(completion).get(), "cancelled");
  state->cancel = nullptr;  // the test's own cycle
}

TEST(CompletionTest, CancelWithoutSomebodyToAskIsNothing) {
  const auto state = std::make_shared<State>();
  Completion<std::string> completion(state);
  completion.cancel();
  EXPECT_FALSE(completion.done());
}

TEST(CompletionTest, TheAttachmentLivesAsLongAsTheRequest) {
  const auto attached = std::make_shared<int>(1);
  auto state = std::make_shared<State>();
  state->attachment = attached;
  {
    const Completion<std::string> completion(state);
    state->finish("done");
    state.reset();
    EXPECT_EQ(attached.use_count(), 2);
  }
  EXPECT_EQ(attached.use_count(), 1);
}

}  // namespace
}  // namespace kvbm
