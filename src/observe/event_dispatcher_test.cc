#include "observe/event_dispatcher.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <latch>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace kvbm {
namespace {

// Long enough never to be reached where the test passes.
constexpr std::chrono::seconds kPatience{30};

BlockEvent event(BlockId id, std::uint64_t hash = 0) {
  return {BlockEvent::Kind::Registered, Tier::Device, id, SequenceHash(hash)};
}

std::vector<BlockEvent> events(BlockId first, BlockId count, std::uint64_t hash = 0) {
  std::vector<BlockEvent> made;
  for (BlockId i = 0; i < count; ++i) made.push_back(event(first + i, hash));
  return made;
}

// Keeps what it was told; calls `during` inside the first event.
class Listener final : public EventManager {
 public:
  explicit Listener(std::function<void(const BlockEvent&)> during = {})
      : during_(std::move(during)) {}
  ~Listener() override {
    if (gone) gone->count_down();
  }
  void block_allocated(BlockId) override {}
  void block_registered(BlockId, SequenceHash) override {}
  void block_matched(BlockId, SequenceHash) override {}
  void block_evicted(BlockId) override {}
  void on_event(const BlockEvent& event) override {
    {
      const std::lock_guard lock(mutex_);
      heard_.push_back(event);
    }
    if (during_) during_(event);
  }
  std::vector<BlockId> ids() const {
    const std::lock_guard lock(mutex_);
    std::vector<BlockId> ids;
    for (const BlockEvent& event : heard_) ids.push_back(event.block_id);
    return ids;
  }
  std::vector<BlockEvent> heard() const {
    const std::lock_guard lock(mutex_);
    return heard_;
  }

  std::shared_ptr<std::latch> gone;  // counted down by the destructor

 private:
  std::function<void(const BlockEvent&)> during_;
  mutable std::mutex mutex_;
  std::vector<BlockEvent> heard_;
};

TEST(EventDispatcherTest, DeliversInOrderAndCloseWaitsForIt) {
  const auto listener = std::make_shared<Listener>();
  EventDispatcher dispatcher(listener);
  dispatcher.put(events(0, 3));
  dispatcher.put({});
  dispatcher.put(events(3, 2));
  dispatcher.close(kPatience);
  EXPECT_EQ(listener->ids(), (std::vector<BlockId>{0, 1, 2, 3, 4}));
  EXPECT_EQ(dispatcher.stats().delivered, 5u);
  EXPECT_EQ(dispatcher.stats().dropped, 0u);
  EXPECT_EQ(dispatcher.stats().exceptions, 0u);
  dispatcher.close(kPatience);  // twice is once
}

TEST(EventDispatcherTest, DeliversOnAThreadOfItsOwn) {
  std::thread::id where;
  const auto listener =
      std::make_shared<Listener>([&](const BlockEvent&) { where = std::this_thread::get_id(); });
  EventDispatcher dispatcher(listener);
  dispatcher.put(events(0, 1));
  dispatcher.close(kPatience);
  EXPECT_NE(where, std::thread::id());
  EXPECT_NE(where, std::this_thread::get_id());
}

TEST(EventDispatcherTest, TheFourCallsAreTheDefaultOfOnEvent) {
  class Four final : public EventManager {
   public:
    void block_allocated(BlockId id) override { log += "a" + std::to_string(id); }
    void block_registered(BlockId id, SequenceHash hash) override { add("r", id, hash); }
    void block_matched(BlockId id, SequenceHash hash) override { add("m", id, hash); }
    void block_evicted(BlockId id) override { log += "e" + std::to_string(id); }
    void add(const char* what, BlockId id, SequenceHash hash) {
      log += what + std::to_string(id) + "=" + std::to_string(hash.value());
    }
    std::string log;
  };
  const auto four = std::make_shared<Four>();
  EventDispatcher dispatcher(four);
  using Kind = BlockEvent::Kind;
  const std::array all = {BlockEvent{Kind::Allocated, Tier::Host, 1, SequenceHash()},
                          BlockEvent{Kind::Registered, Tier::Host, 1, SequenceHash(9)},
                          BlockEvent{Kind::Matched, Tier::Host, 1, SequenceHash(9)},
                          BlockEvent{Kind::Evicted, Tier::Host, 1, SequenceHash(9)}};
  dispatcher.put(all);
  dispatcher.close(kPatience);
  EXPECT_EQ(four->log, "a1r1=9m1=9e1");
}

// Each thread stands for a pool: its events keep their order, and those of one call stay together.
TEST(EventDispatcherTest, ThreadsDoNotMixUpTheirBatches) {
  constexpr std::uint64_t kThreads = 4;
  constexpr BlockId kBatches = 200;
  constexpr BlockId kBatch = 3;
  const auto listener = std::make_shared<Listener>();
  EventDispatcher dispatcher(listener);
  std::latch start(kThreads);
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        start.arrive_and_wait();
        for (BlockId b = 0; b < kBatches; ++b) dispatcher.put(events(b * kBatch, kBatch, t));
      });
    }
  }
  dispatcher.close(kPatience);
  const auto heard = listener->heard();
  ASSERT_EQ(heard.size(), kThreads * kBatches * kBatch);
  std::array<BlockId, kThreads> next{};
  for (std::size_t i = 0; i < heard.size(); ++i) {
    const std::uint64_t thread = heard[i].sequence_hash.value();
    ASSERT_EQ(heard[i].block_id, next[thread]++) << "event " << i;
    if (i % kBatch == 0) continue;
    ASSERT_EQ(thread, heard[i - 1].sequence_hash.value()) << "event " << i;
  }
}

// A manager that stops in its first event until the test lets it go on.
struct Gate {
  std::latch entered{1};
  std::latch open{1};
  std::shared_ptr<Listener> listener = std::make_shared<Listener>([this](const BlockEvent& event) {
    if (event.block_id != 0) return;
    entered.count_down();
    open.wait();
  });
};

TEST(EventDispatcherTest, ASlowManagerCostsTheNewestEventsBeyondTheQueue) {
  Gate gate;
  EventDispatcher dispatcher(gate.listener, 4);
  dispatcher.put(events(0, 1));
  gate.entered.wait();  // the queue is empty now
  dispatcher.put(events(1, 3));
  dispatcher.put(events(4, 3));  // one fits
  dispatcher.put(events(7, 1));
  EXPECT_EQ(dispatcher.stats().dropped, 3u);
  gate.open.count_down();
  dispatcher.close(kPatience);
  EXPECT_EQ(gate.listener->ids(), (std::vector<BlockId>{0, 1, 2, 3, 4}));
  EXPECT_EQ(dispatcher.stats().delivered, 5u);
  EXPECT_EQ(dispatcher.stats().dropped, 3u);
}

TEST(EventDispatcherTest, AThrowingManagerIsCaughtAndCounted) {
  const auto listener = std::make_shared<Listener>([](const BlockEvent& event) {
    if (event.block_id % 2 == 1) throw std::runtime_error("no");
    if (event.block_id == 4) throw 4;
  });
  EventDispatcher dispatcher(listener);
  dispatcher.put(events(0, 6));
  dispatcher.close(kPatience);
  EXPECT_EQ(listener->ids().size(), 6u) << "the later ones are delivered all the same";
  EXPECT_EQ(dispatcher.stats().exceptions, 4u);
  EXPECT_EQ(dispatcher.stats().delivered, 2u);
}

TEST(EventDispatcherTest, EventsAfterCloseAreDropped) {
  const auto listener = std::make_shared<Listener>();
  EventDispatcher dispatcher(listener);
  dispatcher.close(kPatience);
  dispatcher.put(events(0, 2));
  EXPECT_EQ(dispatcher.stats().dropped, 2u);
  EXPECT_TRUE(listener->ids().empty());
}

// A manager that is stuck is left alone; when it comes back, nothing more is told to it, whether
// the events were queued or already taken out of the queue together with the one it was stuck in.
TEST(EventDispatcherTest, AStuckManagerIsLeftBehindAndHearsNoMore) {
  const auto gone = std::make_shared<std::latch>(1);
  const auto entered = std::make_shared<std::latch>(1);
  const auto open = std::make_shared<std::latch>(1);
  const auto heard = std::make_shared<std::vector<BlockId>>();
  auto listener = std::make_shared<Listener>([=](const BlockEvent& event) {
    heard->push_back(event.block_id);
    if (heard->size() > 1) return;
    entered->count_down();
    open->wait();
  });
  listener->gone = gone;
  {
    EventDispatcher dispatcher(std::move(listener));
    dispatcher.put(events(0, 3));  // leaves the queue as one
    entered->wait();
    dispatcher.put(events(3, 2));
    dispatcher.close(std::chrono::nanoseconds(0));
    dispatcher.put(events(5, 1));
    EXPECT_EQ(dispatcher.stats().delivered, 0u);
    EXPECT_EQ(dispatcher.stats().dropped, 3u) << "two in the queue, one too late";
  }
  open->count_down();
  gone->wait();  // the thread, which uses its state after the dispatcher, has let go of the manager
  EXPECT_EQ(*heard, std::vector<BlockId>{0});
}

TEST(EventDispatcherTest, NobodyListensToNoManagerOrTheNullOne) {
  EXPECT_EQ(make_dispatcher(nullptr).value(), nullptr);
  EXPECT_EQ(make_dispatcher(std::make_shared<NullEventManager>()).value(), nullptr);
  EXPECT_NE(make_dispatcher(std::make_shared<Listener>()).value(), nullptr);
}

}  // namespace
}  // namespace kvbm
