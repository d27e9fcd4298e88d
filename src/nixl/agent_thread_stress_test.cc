#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <random>

#include "nixl/agent_thread.h"
#include "nixl/test_fake_nixl.h"

namespace kvbm::nixl {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kBytes = 64;
constexpr std::uint32_t kBlocks = 64;

AgentOptions named(const char* name) {
  AgentOptions options;
  options.name = name;
  options.overdue_limit = 5ms;
  return options;
}

// Runs a task on the agent's thread and waits for its answer.
template <class Task>
auto ask(AgentThread& thread, Task task) {
  std::promise<decltype(task(std::declval<Agent&>()))> answer;
  auto result = answer.get_future();
  thread.post([&](Agent& agent) { answer.set_value(task(agent)); });
  return result.get();
}

class AgentThreadStressTest : public testing::Test {
 protected:
  static BlockArea area(std::vector<std::byte>& memory) {
    return {.address = reinterpret_cast<std::uintptr_t>(memory.data()),
            .stride_bytes = kBytes,
            .block_bytes = kBytes,
            .blocks = kBlocks};
  }
  static void ignore(Agent&, std::span<const AgentEvent>) {}

  FakeNixl nixl_;
  std::vector<std::byte> here_ = std::vector<std::byte>(kBytes * kBlocks);
  std::vector<std::byte> there_ = std::vector<std::byte>(kBytes * kBlocks, std::byte{'t'});
};

TEST_F(AgentThreadStressTest, AnAgentThatCannotBeMadeIsAnError) {
  nixl_.fail("create_backend", kBackend);
  const auto refused = AgentThread::start(nixl_.api(), named("here"), ignore);
  EXPECT_EQ(refused.error().native, kBackend);
}

TEST_F(AgentThreadStressTest, WhatWasPostedBeforeTheEndIsDone) {
  std::atomic<int> done{0};
  {
    auto thread = AgentThread::start(nixl_.api(), named("here"), ignore).value();
    for (int i = 0; i < 1000; ++i) {
      thread->post([&](Agent&) { ++done; });
    }
  }
  EXPECT_EQ(done, 1000);
}

// Threads that ask for blocks of a peer, each block for one of them at a time.
class Readers {
 public:
  Readers(const NixlApi& api, std::vector<std::byte>& memory, BlockArea area, BlockArea theirs,
          std::vector<std::byte> metadata)
      : memory_(memory), theirs_(theirs), metadata_(std::move(metadata)) {
    agent_ = AgentThread::start(api, named("here"), [this](Agent& agent, auto events) {
               for (const AgentEvent& event : events) take(event);
               agent.check_invariants();
             }).value();
    ask(*agent_, [&](Agent& agent) {
      EXPECT_TRUE(agent.register_memory(memory_));
      local_ = agent.prepare_local(area).value();
      meet(agent);
      return true;
    });
  }
  ~Readers() { agent_.reset(); }

  void demand(unsigned seed) {
    std::mt19937 random(seed);
    while (!stopping_) {
      const auto i = static_cast<std::uint32_t>(random() % kBlocks);
      const bool give_up = random() % 4 == 0;
      if (blocks_[i].taken.exchange(true)) continue;
      ask(*agent_, [&](Agent& agent) {
        begin(agent, i, give_up);
        return true;
      });
    }
  }
  void stop() { stopping_ = true; }
  std::size_t ended() const { return ended_; }
  std::size_t unfinished() {
    return ask(*agent_, [](Agent& agent) { return agent.unfinished(); });
  }

 private:
  static constexpr TransferId kNone{~std::uint64_t{0}};
  struct Block {
    std::atomic<bool> taken{false};  // perhaps by a demand that has not begun yet
    TransferId transfer = kNone;
  };

  // These run on the agent's thread.
  void meet(Agent& agent) {
    const auto peer = agent.load_peer({"there", 1, ++generation_}, metadata_);
    if (peer) remote_ = agent.prepare_remote(*peer, theirs_).value();
  }
  void begin(Agent& agent, std::uint32_t block, bool give_up) {
    const auto now = std::chrono::steady_clock::now();
    const BlockPair pair{.local = block, .remote = block};
    const auto started = agent.start(
        {.local = local_, .remote = remote_, .blocks = {&pair, 1}, .deadline = now + 1ms}, now);
    if (!started) {
      blocks_[block].taken = false;
      meet(agent);
      return;
    }
    blocks_[block].transfer = *started;
    if (give_up) agent.cancel(*started, now);
  }
  void take(const AgentEvent& event) {
    if (event.kind != AgentEvent::Kind::Ended) return;
    const auto found = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& block) {
      return block.taken && block.transfer == event.transfer;
    });
    ASSERT_NE(found, blocks_.end()) << "ended twice";
    std::fill_n(memory_.begin() + (found - blocks_.begin()) * std::ptrdiff_t{kBytes}, kBytes,
                std::byte{'n'});
    found->transfer = kNone;
    found->taken = false;
    ++ended_;
  }

  std::vector<std::byte>& memory_;
  const BlockArea theirs_;
  const std::vector<std::byte> metadata_;
  std::vector<Block> blocks_ = std::vector<Block>(kBlocks);
  std::uint64_t generation_ = 0;
  LocalListId local_{};
  RemoteListId remote_{};
  std::atomic<std::size_t> ended_{0};
  std::atomic<bool> stopping_{false};
  std::unique_ptr<AgentThread> agent_;
};

// The peer stops, goes on and breaks off, and the agent is rebuilt under its transfers: every one
// of them ends once, and afterwards its block is its owner's.
TEST_F(AgentThreadStressTest, EveryTransferEndsOnceWhateverThePeerDoes) {
  auto owner = AgentThread::start(nixl_.api(), named("there"), ignore).value();
  auto metadata = ask(*owner, [&](Agent& agent) {
    EXPECT_TRUE(agent.register_memory(there_));
    return agent.metadata().value();
  });
  {
    Readers readers(nixl_.api(), here_, area(here_), area(there_), std::move(metadata));
    std::vector<std::thread> threads;
    for (unsigned i = 1; i <= 3; ++i) threads.emplace_back([&, i] { readers.demand(i); });
    std::mt19937 random(9);
    while (readers.ended() < 3000) {
      switch (random() % 4) {
        case 0: nixl_.stop("there"); break;
        case 1: nixl_.cut("there"); break;
        default: nixl_.resume("there"); break;
      }
      std::this_thread::yield();
    }
    readers.stop();
    for (std::thread& thread : threads) thread.join();
    nixl_.resume("there");
    while (readers.unfinished() > 0) std::this_thread::yield();
  }
  for (const std::byte byte : here_) EXPECT_TRUE(byte == std::byte{'n'} || byte == std::byte{0});
}

}  // namespace
}  // namespace kvbm::nixl
