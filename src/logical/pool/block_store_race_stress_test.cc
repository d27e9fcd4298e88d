// The windows in which threads meet in a store, held open by a hook until the other thread has done
// the worst it can. TSan and check_invariants() are the judges, besides what each test says.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <future>
#include <random>
#include <thread>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;
using detail::RunHold;

// Runs a body once, on another thread, while a call stands in a window.
class Meeting final : public RaceHook {
 public:
  void at(RaceWindow window) noexcept override {
    if (window != window_.load() || !armed_.exchange(false)) return;
    std::jthread other(std::move(body_));  // joined before the call goes on
  }
  template <class Body>
  void in(RaceWindow window, Body body) {
    body_ = std::packaged_task<void()>(std::move(body));
    window_ = window;
    armed_ = true;
  }
  bool has_met() const { return !armed_; }

 private:
  std::packaged_task<void()> body_;
  std::atomic<RaceWindow> window_{};
  std::atomic<bool> armed_{false};
};

class RaceStressTest : public testing::Test {
 protected:
  BlockStore::Owner make(std::size_t blocks, EvictionPolicy policy = EvictionPolicy::Lru) {
    return BlockStore::create({.capacity = blocks, .policy = policy, .race_hook = &meeting_})
        .value();
  }
  Meeting meeting_;
};

TEST_F(RaceStressTest, AMatchComesBetweenTheLastLookAndTheLastRelease) {
  const auto store = make(4);
  ImmutableHold last = put(*store, 1, 0);
  std::vector<ImmutableHold> matched;
  meeting_.in(RaceWindow::LastRelease, [&] { matched = detail::match(*store, chain(1, 1)); });
  last = {};
  ASSERT_TRUE(meeting_.has_met());
  ASSERT_EQ(matched.size(), 1u);
  EXPECT_EQ(store->available_blocks(), 3u) << "the match's hold is the last one now";
  store->check_invariants();
}

TEST_F(RaceStressTest, AnAllocationOfEverythingComesBeforeTheLastRelease) {
  const auto store = make(3);
  auto held = put_chain(*store, 1, 2);
  put(*store, 2, 0);
  meeting_.in(RaceWindow::LastRelease, [&] {
    EXPECT_FALSE(detail::allocate(*store, 2).has_value()) << "the chain is held still";
    EXPECT_TRUE(detail::allocate(*store, 1).has_value());
  });
  held.pop_back();
  held.clear();
  EXPECT_EQ(detail::allocate(*store, 3).value().size(), 3u);
  store->check_invariants();
}

TEST_F(RaceStressTest, AResetComesBeforeTheLastRelease) {
  for (const EvictionPolicy policy :
       {EvictionPolicy::Lru, EvictionPolicy::AgeIndex, EvictionPolicy::Fifo}) {
    const auto store = make(3, policy);
    ImmutableHold last = put(*store, 1, 0);
    meeting_.in(RaceWindow::LastRelease, [&] { EXPECT_EQ(store->reset().still_held, 1u); });
    last = {};
    EXPECT_FALSE(store->contains(name(1, 0)));
    EXPECT_EQ(store->available_blocks(), 3u);
    store->check_invariants();
  }
}

TEST_F(RaceStressTest, TheOwnerClosesBeforeTheLastRelease) {
  auto store = make(3);
  const auto backing = std::make_shared<int>(0);
  store = BlockStore::create({.capacity = 3, .race_hook = &meeting_}, backing).value();
  ImmutableHold last = put(*store, 1, 0);
  meeting_.in(RaceWindow::LastRelease, [&] { store.reset(); });
  last = {};
  EXPECT_TRUE(meeting_.has_met());
  EXPECT_EQ(backing.use_count(), 1) << "the last hold has deleted the store";
}

TEST_F(RaceStressTest, ARunEndsWhileAMemberOfItIsShared) {
  const auto store = make(4);
  put_chain(*store, 1, 3);
  RunHold run = detail::match_run(*store, chain(1, 3));
  RunHold other = detail::match_run(*store, chain(1, 3));
  std::vector<ImmutableHold> split;
  meeting_.in(RaceWindow::FirstHold, [&] { other = {}; });
  split = detail::split(run);
  ASSERT_TRUE(meeting_.has_met());
  run = {};
  EXPECT_EQ(store->available_blocks(), 1u);
  split.clear();
  EXPECT_EQ(store->available_blocks(), 4u);
  store->check_invariants();
}

TEST_F(RaceStressTest, AResetComesBetweenTheEpochAndTheName) {
  const auto store = make(2);
  MutableHold block = allocate_one(*store);
  meeting_.in(RaceWindow::Naming, [&] { store->reset(); });
  std::vector<CompleteHold> named;
  named.push_back(detail::complete(std::move(block), identity(1, 0)));
  ASSERT_TRUE(meeting_.has_met());
  const auto registered = detail::register_blocks(*store, std::move(named)).value();
  EXPECT_FALSE(store->contains(name(1, 0))) << "what it holds is of the time before";
  store->check_invariants();
}

TEST_F(RaceStressTest, AnotherRegistersTheSameNameOrForgetsItFirst) {
  for (const bool forgets : {false, true}) {
    const auto store = make(4);
    std::vector<CompleteHold> named;
    for (std::uint32_t i = 0; i < 2; ++i) {
      named.push_back(detail::complete(allocate_one(*store), identity(1, i)));
    }
    std::vector<ImmutableHold> first;
    meeting_.in(RaceWindow::Registration, [&] {
      if (forgets) {
        store->reset();
      } else {
        first.push_back(put(*store, 1, 1));
      }
    });
    const auto registered = detail::register_blocks(*store, std::move(named)).value();
    ASSERT_TRUE(meeting_.has_met());
    if (forgets) {
      EXPECT_EQ(resident(*store, 1, 2), "--");
    } else {
      EXPECT_EQ(registered[1].id(), first[0].id()) << "who came first stays";
      EXPECT_EQ(resident(*store, 1, 2), "01");
    }
    store->check_invariants();
  }
}

// Everything at once, with the windows held open by yielding in them now and then.
class Yielding final : public RaceHook {
 public:
  void at(RaceWindow) noexcept override {
    if (count_.fetch_add(1, std::memory_order_relaxed) % 3 == 0) std::this_thread::yield();
  }

 private:
  std::atomic<unsigned> count_{0};
};

// What one thread does: a random call of any kind, again and again.
template <class Random>
void act(BlockStore& store, Random random) {
  std::vector<ImmutableHold> kept;
  for (int i = 0; i < 4000; ++i) {
    const std::uint64_t conversation = random() % 5;
    const auto hashes = chain(conversation, 1 + random() % 6);
    switch (random() % 9) {
      case 0:
        if (auto block = detail::allocate(store, 1)) {
          std::vector<CompleteHold> named;
          named.push_back(
              detail::complete(std::move(block->front()), identity(conversation, random() % 6)));
          kept = detail::register_blocks(store, std::move(named)).value();
        }
        break;
      case 1: detail::match_run(store, hashes); break;
      case 2: kept = detail::match(store, hashes); break;
      case 3: detail::allocate(store, random() % 12).has_value(); break;
      case 4: store.touch(hashes); break;
      case 5: store.protect(hashes); break;
      case 6:
        if (!kept.empty()) store.set_priority(kept[0].id(), random() % 101).value();
        break;
      case 7:
        if (random() % 50 == 0) store.reset();
        if (random() % 50 == 0 && !kept.empty()) store.detach(kept[0].id());
        break;
      default: {
        const RunHold run = detail::match_run(store, hashes);
        if (!run) break;
        const auto until = TimePoint(std::chrono::hours(1) + std::chrono::seconds(i));
        const auto lease = store.lease(run.id(), until);
        if (lease && random() % 2 == 0) store.release_lease(*lease);
        if (random() % 8 == 0) store.advance(TimePoint(std::chrono::seconds(i)));
      }
    }
  }
}

TEST_F(RaceStressTest, AllCallsOfAllThreadsTogether) {
  for (const EvictionPolicy policy :
       {EvictionPolicy::Lru, EvictionPolicy::AgeIndex, EvictionPolicy::Fifo}) {
    Yielding yielding;
    auto store =
        BlockStore::create({.capacity = 40, .policy = policy, .race_hook = &yielding}).value();
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < 4; ++t) {
      threads.emplace_back([&store = *store, t] {
        const auto random = [engine = std::minstd_rand(t + 1)]() mutable {
          return static_cast<std::uint32_t>(engine());
        };
        act(store, random);
      });
    }
    threads.clear();
    store->advance(TimePoint(std::chrono::hours(3)));
    EXPECT_EQ(store->available_blocks(), 40u) << to_string(policy);
    store->check_invariants();
  }
}

// A block that its child pins: one thread gives back its only hold while another, who needs no lock
// for one more, takes one.
TEST_F(RaceStressTest, AHoldIsTakenWhileTheOnlyOtherOneIsGivenBack) {
  auto store = BlockStore::create({.capacity = 2}).value();
  put_chain(*store, 1, 2);
  const detail::RunHold pins = detail::match_run(*store, chain(1, 2));
  std::vector<BlockId> ids(2);
  store->run_ids(pins.id(), ids);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 50'000; ++i) {
          store->add_hold(ids[0]);
          store->release(ids[0]);
        }
      });
    }
  }
  store->check_invariants();
  EXPECT_EQ(store->available_blocks(), 0u);
}

}  // namespace
}  // namespace kvbm
