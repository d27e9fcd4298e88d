#include "nixl/agent.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "nixl/test_fake_nixl.h"

namespace kvbm::nixl {
namespace {

using namespace std::chrono_literals;
using Kind = AgentEvent::Kind;

constexpr std::size_t kBytes = 64;
constexpr std::uint32_t kBlocks = 16;

// A process: its agent, and memory for blocks.
struct Side {
  Side(const NixlApi& api, const std::string& name, char fill)
      : memory(kBytes * kBlocks, std::byte(fill)) {
    AgentOptions options;
    options.name = name;
    options.overdue_limit = 10s;
    agent = Agent::create(api, options).value();
    EXPECT_TRUE(agent->register_memory(memory));
  }
  BlockArea area() const {
    return {.address = reinterpret_cast<std::uintptr_t>(memory.data()),
            .stride_bytes = kBytes,
            .block_bytes = kBytes,
            .blocks = kBlocks};
  }
  bool block_is(std::uint32_t block, char fill) const {
    const auto begin = memory.begin() + block * std::ptrdiff_t{kBytes};
    return std::all_of(begin, begin + kBytes, [&](std::byte b) { return b == std::byte(fill); });
  }
  void fill_block(std::uint32_t block, char fill) {
    std::fill_n(memory.begin() + block * std::ptrdiff_t{kBytes}, kBytes, std::byte(fill));
  }

  std::vector<std::byte> memory;
  std::unique_ptr<Agent> agent;
};

class AgentTest : public testing::Test {
 protected:
  void meet() {
    peer_ = here_.agent->load_peer(key(1), there_.agent->metadata().value()).value();
    local_ = here_.agent->prepare_local(here_.area()).value();
    remote_ = here_.agent->prepare_remote(peer_, there_.area()).value();
  }
  PeerKey key(std::uint64_t generation) const { return {there_.agent->name(), 7, generation}; }

  Result<TransferId> start(std::vector<BlockPair> blocks, Operation operation = Operation::Read) {
    return here_.agent->start({.operation = operation,
                               .local = local_,
                               .remote = remote_,
                               .blocks = blocks,
                               .deadline = now_ + 1s},
                              now_);
  }
  std::vector<AgentEvent> poll() {
    std::vector<AgentEvent> events;
    here_.agent->poll(now_, events);
    here_.agent->check_invariants();
    return events;
  }
  // What a poll says, as one line: kinds, and the codes of their errors.
  std::string told() {
    std::string line;
    for (const AgentEvent& event : poll()) {
      constexpr const char* kNames[] = {"overdue", "ended", "lost", "rebuilt"};
      line += std::string(line.empty() ? "" : ", ") + kNames[static_cast<int>(event.kind)];
      if (!event.result) line += std::string(" ") + to_string(event.result.error().code);
    }
    return line;
  }

  Agent::Time now_ = Agent::Time(1h);
  FakeNixl nixl_;
  Side here_{nixl_.api(), "here", 'h'};
  Side there_{nixl_.api(), "there", 't'};
  PeerId peer_{};
  LocalListId local_{};
  RemoteListId remote_{};
};

TEST_F(AgentTest, ReadsAndWritesTheBlocksThatWereAskedForAndNoOthers) {
  meet();
  ASSERT_TRUE(start({{.local = 3, .remote = 5}}));
  EXPECT_EQ(told(), "ended");
  for (std::uint32_t i = 0; i < kBlocks; ++i) EXPECT_TRUE(here_.block_is(i, i == 3 ? 't' : 'h'));

  here_.fill_block(0, 'w');
  ASSERT_TRUE(start({{.local = 0, .remote = 1}}, Operation::Write));
  EXPECT_EQ(told(), "ended");
  for (std::uint32_t i = 0; i < kBlocks; ++i) EXPECT_TRUE(there_.block_is(i, i == 1 ? 'w' : 't'));
  EXPECT_EQ(told(), "");
  EXPECT_EQ(here_.agent->unfinished(), 0u);
}

TEST_F(AgentTest, NeighboursMoveAsOneInWhateverOrderTheyAreGiven) {
  meet();
  std::vector<BlockPair> blocks;
  for (std::uint32_t i = 0; i < 8; ++i) blocks.push_back({.local = 2 + i, .remote = 5 + i});
  std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
  for (std::uint32_t i = 0; i < 8; ++i) there_.fill_block(5 + i, static_cast<char>('A' + i));
  ASSERT_TRUE(start(blocks));
  EXPECT_EQ(nixl_.last_pieces(), 1u);
  EXPECT_EQ(told(), "ended");
  for (std::uint32_t i = 0; i < 8; ++i) {
    EXPECT_TRUE(here_.block_is(2 + i, static_cast<char>('A' + i)));
  }
}

TEST_F(AgentTest, TellsNixlToNoticeDeathsAndNotToSpin) {
  EXPECT_EQ(nixl_.params().at("ucx_error_handling_mode"), "peer");
  EXPECT_TRUE(nixl_.last_config().progress_thread);
  EXPECT_GE(nixl_.last_config().progress_interval_us, 1000u);
  EXPECT_FALSE(nixl_.last_config().listen_thread);
}

TEST_F(AgentTest, RefusesWhatCannotBeAndBeginsNothing) {
  meet();
  EXPECT_EQ(start({}).error().code, ErrorCode::InvalidConfig);
  const auto far = start({{.local = 0, .remote = 0}, {.local = 1, .remote = kBlocks}});
  EXPECT_EQ(far.error().code, ErrorCode::InvalidBlockIndex);
  EXPECT_EQ(far.error().requested, kBlocks);
  EXPECT_EQ(far.error().available, kBlocks);

  Agent& agent = *here_.agent;
  for (const auto& [stride, bytes, blocks] : {std::tuple{kBytes, kBytes, 0u},
                                              {kBytes, std::size_t{0}, 1u},
                                              {kBytes / 2, kBytes, 2u},
                                              {std::size_t{1} << 62, kBytes, 16u}}) {
    const BlockArea bad{.address = here_.area().address,
                        .stride_bytes = stride,
                        .block_bytes = bytes,
                        .blocks = blocks};
    EXPECT_EQ(agent.prepare_local(bad).error().code, ErrorCode::InvalidConfig);
    EXPECT_EQ(agent.prepare_remote(peer_, bad).error().code, ErrorCode::InvalidConfig);
  }
  BlockArea foreign = here_.area();
  foreign.blocks += 1;
  EXPECT_EQ(agent.prepare_local(foreign).error().code, ErrorCode::NixlError);
  EXPECT_EQ(agent.prepare_remote(PeerId{99}, there_.area()).error().code,
            ErrorCode::HandleNotFound);
  EXPECT_EQ(agent.register_memory({}).error().code, ErrorCode::InvalidConfig);

  BlockArea small = here_.area();
  small.block_bytes /= 2;
  local_ = agent.prepare_local(small).value();
  const auto unequal = start({{.local = 0, .remote = 0}});
  EXPECT_EQ(unequal.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(unequal.error().requested, kBytes);
  EXPECT_EQ(unequal.error().available, kBytes / 2);
  EXPECT_EQ(Agent::create(nixl_.api(), {}).error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(told(), "");
}

TEST_F(AgentTest, ACreationThatFailsLeavesNothing) {
  for (const char* function : {"create_configured_agent", "create_backend"}) {
    nixl_.fail(function, kBackend);
    AgentOptions options;
    options.name = "other";
    const auto refused = Agent::create(nixl_.api(), options);
    EXPECT_EQ(refused.error().code, ErrorCode::NixlError);
    EXPECT_EQ(refused.error().native, kBackend);
    EXPECT_NE(refused.error().message.find(function), std::string::npos);
  }
  EXPECT_EQ(nixl_.agents(), 2u);
}

// The owner of a block that was read into, as it must behave: the block is somebody else's once the
// transfer has ended, and not before.
TEST_F(AgentTest, NothingIsWrittenIntoABlockAfterItsTransferHasEnded) {
  meet();
  nixl_.stop("there");
  const TransferId transfer = start({{.local = 0, .remote = 0}}).value();
  bool ours = false;
  const auto reuse_what_has_ended = [&] {
    for (const AgentEvent& event : poll()) {
      if (event.kind == Kind::Ended && event.transfer == transfer) {
        here_.fill_block(0, 'n');
        ours = true;
      }
    }
  };
  now_ += 2s;
  reuse_what_has_ended();
  EXPECT_EQ(here_.agent->overdue(), 1u);
  nixl_.resume("there");
  reuse_what_has_ended();
  EXPECT_TRUE(ours);
  EXPECT_TRUE(here_.block_is(0, 'n'));
}

TEST_F(AgentTest, APeerGetsWhatABlockHeldWhenItsWriteWasAskedFor) {
  meet();
  nixl_.stop("there");
  const TransferId transfer = start({{.local = 0, .remote = 0}}, Operation::Write).value();
  here_.agent->cancel(transfer, now_);
  EXPECT_EQ(told(), "overdue Cancelled");
  nixl_.resume("there");
  EXPECT_EQ(told(), "ended Cancelled");
  here_.fill_block(0, 'n');
  EXPECT_TRUE(there_.block_is(0, 'h'));
}

TEST_F(AgentTest, ATransferThatIsLateIsToldOnceAndEndsOnce) {
  meet();
  nixl_.stop("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  now_ += 999ms;
  EXPECT_EQ(told(), "");
  now_ += 1ms;
  EXPECT_EQ(told(), "overdue TimedOut");
  now_ += 1s;
  EXPECT_EQ(told(), "");
  nixl_.resume("there");
  EXPECT_EQ(told(), "ended TimedOut");
  EXPECT_EQ(told(), "");
  EXPECT_EQ(here_.agent->overdue(), 0u);
}

TEST_F(AgentTest, CancellingWhatHasEndedOrNeverWasChangesNothing) {
  meet();
  const TransferId over = start({{.local = 0, .remote = 0}}).value();
  here_.agent->cancel(over, now_);
  EXPECT_EQ(told(), "ended");
  here_.agent->cancel(over, now_);
  here_.agent->cancel(TransferId{77}, now_);
  EXPECT_EQ(told(), "");

  // Its place is another transfer's now.
  nixl_.stop("there");
  const TransferId next = start({{.local = 0, .remote = 0}}).value();
  EXPECT_NE(next, over);
  here_.agent->cancel(over, now_);
  EXPECT_EQ(told(), "");
  here_.agent->cancel(next, now_);
  here_.agent->cancel(next, now_);
  EXPECT_EQ(told(), "overdue Cancelled");
}

TEST_F(AgentTest, AnAgentWithATransferThatDoesNotEndIsRebuiltAndThenNothingArrives) {
  meet();
  nixl_.stop("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  now_ += 1s;
  EXPECT_EQ(told(), "overdue TimedOut");
  now_ += 9999ms;
  ASSERT_TRUE(start({{.local = 1, .remote = 1}}));
  EXPECT_EQ(told(), "");
  now_ += 1ms;
  const std::string all = told();
  EXPECT_NE(all.find("ended TimedOut"), std::string::npos) << all;
  EXPECT_NE(all.find("ended NixlError"), std::string::npos) << all;
  EXPECT_TRUE(all.ends_with("rebuilt")) << all;
  EXPECT_EQ(here_.agent->name(), "here-1");
  EXPECT_EQ(here_.agent->unfinished(), 0u);

  here_.fill_block(0, 'n');
  here_.fill_block(1, 'n');
  nixl_.resume("there");
  EXPECT_TRUE(here_.block_is(0, 'n'));
  EXPECT_TRUE(here_.block_is(1, 'n'));

  // Peers must be met again; memory and local lists are as they were.
  EXPECT_EQ(start({{.local = 0, .remote = 0}}).error().code, ErrorCode::HandleNotFound);
  peer_ = here_.agent->load_peer(key(2), there_.agent->metadata().value()).value();
  remote_ = here_.agent->prepare_remote(peer_, there_.area()).value();
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  EXPECT_EQ(told(), "ended");
  EXPECT_TRUE(here_.block_is(0, 't'));
}

TEST_F(AgentTest, RebuildingTheAgentThatIsWrittenToKeepsWritersOut) {
  meet();
  nixl_.stop("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}, Operation::Write));
  ASSERT_TRUE(there_.agent->rebuild(now_));
  there_.fill_block(0, 'n');
  nixl_.resume("there");
  EXPECT_EQ(told(), "lost NixlError, ended NixlError");
  EXPECT_TRUE(there_.block_is(0, 'n'));
}

TEST_F(AgentTest, AnAgentThatCannotBeDestroyedNeverGivesItsBlocksBack) {
  meet();
  nixl_.stop("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  ASSERT_TRUE(start({{.local = 1, .remote = 1}}));
  now_ += 1s;
  EXPECT_EQ(told(), "overdue TimedOut, overdue TimedOut");
  ASSERT_TRUE(start({{.local = 2, .remote = 2}}));
  nixl_.fail("destroy_agent", kBackend);
  ASSERT_TRUE(here_.agent->rebuild(now_));
  EXPECT_EQ(told(), "overdue NixlError, rebuilt");
  now_ += 100s;
  EXPECT_EQ(told(), "");
  ASSERT_TRUE(here_.agent->rebuild(now_));
  EXPECT_EQ(told(), "rebuilt");
  EXPECT_EQ(here_.agent->overdue(), 3u);
}

TEST_F(AgentTest, AnAgentThatCannotBeMadeAgainRefusesEverythingUntilItCan) {
  meet();
  nixl_.stop("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  now_ += 1s;
  told();
  now_ += 10s;
  nixl_.fail("create_configured_agent", kBackend);
  EXPECT_EQ(told(), "ended TimedOut, rebuilt NixlError");
  EXPECT_EQ(start({{.local = 0, .remote = 0}}).error().code, ErrorCode::NixlError);
  EXPECT_EQ(here_.agent->metadata().error().code, ErrorCode::NixlError);
  EXPECT_EQ(here_.agent->load_peer(key(9), {}).error().code, ErrorCode::NixlError);
  EXPECT_EQ(told(), "");
  EXPECT_TRUE(here_.agent->rebuild(now_));
  EXPECT_EQ(told(), "rebuilt");
  EXPECT_TRUE(here_.agent->metadata());
}

TEST_F(AgentTest, APeerThatDiesEndsItsTransfersAndIsLostOnce) {
  meet();
  nixl_.stop("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  ASSERT_TRUE(start({{.local = 1, .remote = 1}}));
  nixl_.kill("there");
  const std::string all = told();
  EXPECT_NE(all.find("lost NixlError"), std::string::npos) << all;
  EXPECT_EQ(all.find("lost"), all.rfind("lost")) << all;
  EXPECT_EQ(here_.agent->unfinished(), 0u);
  EXPECT_EQ(start({{.local = 0, .remote = 0}}).error().code, ErrorCode::HandleNotFound);
}

TEST_F(AgentTest, APostToADeadPeerEndsWithItsLoss) {
  meet();
  nixl_.kill("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  EXPECT_EQ(told(), "lost NixlError, ended NixlError");
  EXPECT_EQ(told(), "");
}

TEST_F(AgentTest, AFailureOfAPeerThatAnswersIsNoLoss) {
  meet();
  nixl_.fail("post_xfer_req", kBackend);
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  EXPECT_EQ(told(), "ended NixlError");
  EXPECT_EQ(nixl_.messages("there"), 1u);
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  EXPECT_EQ(told(), "ended");
  // What it was asked is taken out when somebody is met.
  ASSERT_TRUE(there_.agent->load_peer({"here", 1, 1}, here_.agent->metadata().value()));
  EXPECT_EQ(nixl_.messages("there"), 0u);
}

TEST_F(AgentTest, APeerWhoseConnectionBrokeIsLoadedAgainAsOfANewGeneration) {
  meet();
  nixl_.cut("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  EXPECT_EQ(told(), "lost NixlError, ended NixlError");
  peer_ = here_.agent->load_peer(key(2), there_.agent->metadata().value()).value();
  remote_ = here_.agent->prepare_remote(peer_, there_.area()).value();
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  EXPECT_EQ(told(), "ended");
}

TEST_F(AgentTest, AStatusThatTellsNothingLeavesTheBlocksTakenUntilTheAgentIsRebuilt) {
  meet();
  nixl_.stop("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  nixl_.fail("get_xfer_status", kNotFound);
  EXPECT_EQ(told(), "overdue NixlError");
  const std::size_t polls = nixl_.polls();
  now_ += 9s;
  EXPECT_EQ(told(), "");
  EXPECT_EQ(nixl_.polls(), polls);
  now_ += 1s;
  EXPECT_EQ(told(), "ended NixlError, rebuilt");
}

TEST_F(AgentTest, APeerIsForgottenOnlyWhenItsTransfersHaveEnded) {
  meet();
  nixl_.stop("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  here_.agent->forget_peer(peer_);
  EXPECT_EQ(start({{.local = 1, .remote = 1}}).error().code, ErrorCode::HandleNotFound);
  const auto early = here_.agent->load_peer(key(2), there_.agent->metadata().value());
  EXPECT_EQ(early.error().code, ErrorCode::QueueFull);
  EXPECT_EQ(early.error().requested, 1u);
  nixl_.resume("there");
  EXPECT_EQ(told(), "ended");
  EXPECT_TRUE(here_.block_is(0, 't'));
  EXPECT_TRUE(here_.agent->load_peer(key(2), there_.agent->metadata().value()));
  here_.agent->forget_peer(peer_);
}

TEST_F(AgentTest, MetadataOfAnotherAgentOrAnEarlierGenerationIsRefused) {
  meet();
  const auto metadata = there_.agent->metadata().value();
  EXPECT_EQ(here_.agent->load_peer({"somebody", 1, 1}, metadata).error().code,
            ErrorCode::InvalidConfig);
  EXPECT_EQ(here_.agent->load_peer(key(1), metadata).error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(here_.agent->load_peer({"x", 1, 1}, std::vector<std::byte>(3)).error().code,
            ErrorCode::NixlError);
  // What it knows is as before.
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  EXPECT_EQ(told(), "ended");
}

TEST_F(AgentTest, ANewProcessWithAnOldNameReplacesIt) {
  meet();
  there_.agent.reset();
  AgentOptions options;
  options.name = "there";
  there_.agent = Agent::create(nixl_.api(), options).value();
  ASSERT_TRUE(there_.agent->register_memory(there_.memory));
  peer_ = here_.agent->load_peer({"there", 8, 1}, there_.agent->metadata().value()).value();
  EXPECT_EQ(start({{.local = 0, .remote = 0}}).error().code, ErrorCode::HandleNotFound);
  remote_ = here_.agent->prepare_remote(peer_, there_.area()).value();
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  EXPECT_EQ(told(), "ended");
}

TEST_F(AgentTest, AnAgentMayGoWhileTransfersRun) {
  meet();
  nixl_.stop("there");
  ASSERT_TRUE(start({{.local = 0, .remote = 0}}));
  here_.agent.reset();
  here_.fill_block(0, 'n');
  nixl_.resume("there");
  EXPECT_TRUE(here_.block_is(0, 'n'));
}

TEST_F(AgentTest, PollsComeRarerWhileATransferTakesLonger) {
  meet();
  EXPECT_EQ(here_.agent->next_poll(now_), Agent::Time::max());
  nixl_.stop("there");
  const TransferId transfer = start({{.local = 0, .remote = 0}}).value();
  EXPECT_EQ(here_.agent->next_poll(now_), now_ + 10us);
  now_ += 1600us;
  EXPECT_EQ(here_.agent->next_poll(now_), now_ + 100us);
  now_ += 500ms;
  EXPECT_EQ(here_.agent->next_poll(now_), now_ + 250us);
  here_.agent->cancel(transfer, now_);
  EXPECT_EQ(here_.agent->next_poll(now_), now_);
  told();
  EXPECT_EQ(here_.agent->next_poll(now_), now_ + 20ms);
}

// Transfers begin, are given up and end while peers stop, die and come back: every one ends once,
// and no block changes after that.
TEST_F(AgentTest, RandomHistoriesEndEveryTransferOnceAndWriteNothingLate) {
  const char* told_seed = std::getenv("KVBM_SEED");
  const unsigned seed = told_seed ? static_cast<unsigned>(std::atoi(told_seed)) : 1;
  SCOPED_TRACE("KVBM_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  meet();
  std::uint64_t generation = 1;
  std::map<TransferId, std::uint32_t> running;  // its block
  std::vector<bool> taken(kBlocks);
  const auto take_events = [&] {
    for (const AgentEvent& event : poll()) {
      if (event.kind != Kind::Ended) continue;
      const auto found = running.find(event.transfer);
      ASSERT_NE(found, running.end()) << "ended twice";
      taken[found->second] = false;
      here_.fill_block(found->second, 'n');
      running.erase(found);
    }
  };
  for (int step = 0; step < 20'000; ++step) {
    switch (random() % 8) {
      case 0: nixl_.stop("there"); break;
      case 1: nixl_.resume("there"); break;
      case 2:
        if (random() % 20 == 0) nixl_.cut("there");
        break;
      case 3: now_ += std::chrono::milliseconds(random() % 700); break;
      case 4:
        if (!running.empty()) here_.agent->cancel(running.begin()->first, now_);
        break;
      case 5: take_events(); break;
      default: {
        const auto block = static_cast<std::uint32_t>(random() % kBlocks);
        if (taken[block]) break;
        auto started = start({{.local = block, .remote = block}});
        if (started) {
          taken[block] = true;
          running[*started] = block;
          break;
        }
        auto loaded = here_.agent->load_peer(key(generation + 1), there_.agent->metadata().value());
        if (!loaded) break;
        ++generation;
        remote_ = here_.agent->prepare_remote(*loaded, there_.area()).value();
      }
    }
    for (std::uint32_t i = 0; i < kBlocks; ++i) {
      ASSERT_TRUE(taken[i] || here_.block_is(i, 'n') || here_.block_is(i, 'h')) << "step " << step;
    }
  }
  nixl_.resume("there");
  take_events();
  EXPECT_TRUE(running.empty());
}

}  // namespace
}  // namespace kvbm::nixl
