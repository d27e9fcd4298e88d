// What the real NIXL does: what the agent relies on, and what it must work around.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <stdexcept>

#include "child.h"
#include "need_nixl.h"
#include "nixl/agent_thread.h"
#include "raw_agent.h"
#include "worker.h"

namespace kvbm::nixl {
namespace {

using namespace std::chrono_literals;
using leader::Child;
using Kind = AgentEvent::Kind;

constexpr const char* kTcp = "tcp,self";
constexpr const char* kCma = "cma,tcp,self";
constexpr std::uint32_t kFew = 4;    // blocks that move at once
constexpr std::uint32_t kMany = 64;  // that fill all buffers on the way

// A worker of another process.
class Peer {
 public:
  explicit Peer(std::uint32_t blocks, const std::string& name = "peer")
      : child_({KVBM_NIXL_PROCESS, name, std::to_string(blocks)}),
        address_(Address::parse(child_.read_line())) {}

  const Address& address() const noexcept { return address_; }
  std::uint64_t tell(const std::string& line) { return child_.tell(line); }
  // Whether it could answer: a target that was paused may abort when it goes on.
  bool lives() {
    try {
      child_.tell("sum");
      return true;
    } catch (const std::runtime_error&) {
      return false;
    }
  }
  void kill() { child_.kill(); }
  void stop() { child_.stop(); }
  void resume() { child_.resume(); }

 private:
  Child child_;
  Address address_;
};

class NixlWheelTest : public testing::Test {
 protected:
  void SetUp() override {
    KVBM_NEED_NIXL();
    // Peers may be gone when they are told something, and some are known to abort.
    std::signal(SIGPIPE, SIG_IGN);
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    transports(kTcp);
  }
  // For this process and those that it starts from now on.
  static void transports(const char* transports) {
    ::setenv("UCX_TLS", transports, 1);
    ::setenv("UCX_NET_DEVICES", "lo", 1);
  }
  static void meet(Worker& worker, const Peer& peer, std::uint64_t generation = 1) {
    worker.meet("peer", 1, generation, peer.address());
  }
  // Whatever the peer had sent before has arrived, or will never.
  static void settle(Peer& peer) {
    if (!peer.lives()) return;
    Worker other("tester-2", kFew, 'o');
    Address few = peer.address();
    few.area.blocks = kFew;
    other.meet("peer", 1, 1, few);
    other.start(Operation::Read, 10s);
    other.wait_for(Kind::Ended);
  }
};

TEST_F(NixlWheelTest, IsTheVersionThatWasTried) {
  EXPECT_EQ(library().version, "1.5.1");
  EXPECT_EQ(library().path.find(KVBM_NIXL_WHEEL), 0u);
}

TEST_F(NixlWheelTest, ALibraryThatItNeedsIsNamed) {
  const std::string folder = testing::TempDir() + "kvbm-nixl-" + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  const std::string copy = folder + "/libnixl_capi.so";
  std::filesystem::copy_file(kLibrary, copy);
  // Without those that it finds by their places, next to it.
  const auto refused = load_library(copy);
  std::filesystem::remove_all(folder);
  EXPECT_NE(refused.error().message.find(copy + " needs libnixl"), std::string::npos)
      << refused.error().message;
}

TEST_F(NixlWheelTest, ASecondUcxIsRefused) {
  ASSERT_TRUE(::dlopen(KVBM_OTHER_UCX, RTLD_NOW | RTLD_LOCAL));
  const auto refused = load_library(kLibrary);
  EXPECT_NE(refused.error().message.find(KVBM_OTHER_UCX), std::string::npos)
      << refused.error().message;
}

TEST_F(NixlWheelTest, ItsOwnUcxIsNoSecondOne) {
  const Worker worker("tester", kFew, 't');
  EXPECT_TRUE(load_library(library().path));
}

TEST_F(NixlWheelTest, LeavesWhatIsAppendedToItsConfigurationAlone) {
  const NixlApi& api = library().api;
  AgentConfig config;
  config.appended.fill(std::byte{0xA5});
  config.progress_interval_us = 10'000;
  const AgentConfig before = config;
  AgentHandle* agent = nullptr;
  ASSERT_EQ(api.create_configured_agent("canary", &config, &agent), kSuccess);
  EXPECT_EQ(config.appended, before.appended);
  EXPECT_EQ(api.destroy_agent(agent), kSuccess);
}

TEST_F(NixlWheelTest, MovesBytesThroughTheKernelWithCma) {
  transports(kCma);
  Peer peer(kFew);
  Worker worker("tester", kFew, 't');
  meet(worker, peer);
  const std::uint64_t theirs = peer.tell("pattern 1");
  worker.start(Operation::Read, 10s);
  EXPECT_TRUE(worker.wait_for(Kind::Ended).result);
  EXPECT_EQ(worker.sum(), theirs);
  worker.fill_with_pattern(2);
  worker.start(Operation::Write, 10s);
  EXPECT_TRUE(worker.wait_for(Kind::Ended).result);
  EXPECT_EQ(peer.tell("sum"), worker.sum());
  // The process that is copied from or to need not run.
  peer.stop();
  worker.fill('x');
  worker.start(Operation::Read, 10s);
  EXPECT_TRUE(worker.wait_for(Kind::Ended).result);
  peer.resume();
  EXPECT_EQ(worker.sum(), peer.tell("sum"));
}

TEST_F(NixlWheelTest, MovesBytesOverTcp) {
  Peer peer(kFew);
  Worker worker("tester", kFew, 't');
  meet(worker, peer);
  const std::uint64_t theirs = peer.tell("pattern 1");
  worker.start(Operation::Read, 10s);
  EXPECT_TRUE(worker.wait_for(Kind::Ended).result);
  EXPECT_EQ(worker.sum(), theirs);
  worker.fill_with_pattern(2);
  worker.start(Operation::Write, 10s);
  EXPECT_TRUE(worker.wait_for(Kind::Ended).result);
  EXPECT_EQ(peer.tell("sum"), worker.sum());
}

TEST_F(NixlWheelTest, AKilledPeerIsLostOverTcp) {
  Peer peer(kMany);
  Worker worker("tester", kMany, 't');
  meet(worker, peer);
  peer.stop();
  worker.start(Operation::Write, 10min);
  peer.kill();
  const AgentEvent ended = worker.wait_for(Kind::Ended);
  EXPECT_EQ(ended.result.error().native, kBackend);
  EXPECT_EQ(worker.wait_for(Kind::PeerLost).peer, worker.peer());
}

TEST_F(NixlWheelTest, AKilledPeerIsLostAtTheNextTransferWithCma) {
  transports(kCma);
  Peer peer(kFew);
  Worker worker("tester", kFew, 't');
  meet(worker, peer);
  worker.start(Operation::Read, 10s);
  EXPECT_TRUE(worker.wait_for(Kind::Ended).result);
  peer.kill();
  worker.start(Operation::Read, 10s);
  EXPECT_EQ(worker.wait_for(Kind::Ended).result.error().native, kBackend);
  EXPECT_EQ(worker.wait_for(Kind::PeerLost).peer, worker.peer());
}

TEST_F(NixlWheelTest, AWriteToAPausedPeerIsOverdueAndEndsWhenItGoesOn) {
  Peer peer(kMany);
  Worker worker("tester", kMany, 't');
  meet(worker, peer);
  peer.stop();
  worker.start(Operation::Write, 100ms);
  EXPECT_EQ(worker.wait_for(Kind::Overdue).result.error().code, ErrorCode::TimedOut);
  EXPECT_EQ(worker.agent().unfinished(), 1u);
  peer.resume();
  worker.wait_for(Kind::Ended);
  worker.fill('n');
  EXPECT_EQ(peer.tell("count " + std::to_string('t')), kMany * kBlockBytes);
}

TEST_F(NixlWheelTest, AReadFromAPausedPeerIsOverdueAndEndsWhenItGoesOn) {
  Peer peer(kMany);
  Worker worker("tester", kMany, 't');
  meet(worker, peer);
  peer.stop();
  worker.start(Operation::Read, 100ms);
  EXPECT_EQ(worker.wait_for(Kind::Overdue).result.error().code, ErrorCode::TimedOut);
  peer.resume();
  worker.wait_for(Kind::Ended);
  EXPECT_EQ(bytes_other_than(worker.memory(), 'p'), 0u);
  worker.fill('n');
  settle(peer);
  EXPECT_EQ(bytes_other_than(worker.memory(), 'n'), 0u);
}

// Why a transfer that is given up keeps its blocks.
TEST_F(NixlWheelTest, AReleasedRequestStillWritesUntilTheAgentIsDestroyed) {
  Peer peer(kMany);
  std::size_t changed = 0;
  {
    RawAgent agent("raw", kMany * kBlockBytes);
    ASSERT_EQ(agent.load(peer.address().metadata), kSuccess);
    PreparedListHandle* const theirs = agent.prepare("peer", peer.address().area.address);
    RequestHandle* request = nullptr;
    ASSERT_EQ(agent.make(Operation::Read, theirs, &request), kSuccess);
    peer.stop();
    ASSERT_EQ(agent.api.post_xfer_req(agent.handle, request, nullptr), kInProgress);
    ASSERT_EQ(agent.api.release_xfer_req(agent.handle, request), kSuccess);
    agent.api.destroy_xfer_req(request);
    std::fill(agent.memory.begin(), agent.memory.end(), std::byte{'n'});
    peer.resume();
    while (changed == 0) changed = bytes_other_than(agent.memory, 'n');
  }
  EXPECT_GT(changed, 0u);
}

TEST_F(NixlWheelTest, AfterARebuildNothingOfAReadArrives) {
  Peer peer(kMany);
  Worker worker("tester", kMany, 't', 50ms);
  meet(worker, peer);
  peer.stop();
  worker.start(Operation::Read, 100ms);
  EXPECT_EQ(worker.wait_for(Kind::Overdue).result.error().code, ErrorCode::TimedOut);
  EXPECT_EQ(worker.wait_for(Kind::Ended).result.error().code, ErrorCode::TimedOut);
  EXPECT_TRUE(worker.wait_for(Kind::Rebuilt).result);
  worker.fill('n');
  peer.resume();
  settle(peer);
  EXPECT_EQ(bytes_other_than(worker.memory(), 'n'), 0u);
}

TEST_F(NixlWheelTest, AfterARebuildNothingOfAWriteLeaves) {
  Peer peer(kMany);
  Worker worker("tester", kMany, 't', 50ms);
  meet(worker, peer);
  peer.stop();
  worker.start(Operation::Write, 100ms);
  EXPECT_EQ(worker.wait_for(Kind::Ended).result.error().code, ErrorCode::TimedOut);
  EXPECT_TRUE(worker.wait_for(Kind::Rebuilt).result);
  worker.fill('n');
  peer.resume();
  settle(peer);
  ASSERT_TRUE(peer.lives());
  EXPECT_EQ(peer.tell("count " + std::to_string('n')), 0u);
  // A rebuilt agent reaches it as before.
  meet(worker, peer);
  worker.start(Operation::Write, 10s);
  EXPECT_TRUE(worker.wait_for(Kind::Ended).result);
}

TEST_F(NixlWheelTest, AWriterThatWasPausedDoesNotReachARebuiltAgent) {
  Peer peer(kMany);
  Worker worker("tester", kMany, 't');
  ASSERT_EQ(peer.tell("load " + worker.address().to_line()), 1u);
  ASSERT_EQ(peer.tell("write"), 1u);
  peer.stop();
  ASSERT_TRUE(worker.agent().rebuild(std::chrono::steady_clock::now()));
  worker.fill('n');
  peer.resume();
  EXPECT_EQ(peer.tell("wait"), 0u);
  settle(peer);
  EXPECT_EQ(bytes_other_than(worker.memory(), 'n'), 0u);
}

TEST_F(NixlWheelTest, ANewProcessUnderAnOldNameIsAnotherPeer) {
  auto peer = std::make_unique<Peer>(kFew);
  Worker worker("tester", kFew, 't');
  meet(worker, *peer);
  peer->kill();
  peer = std::make_unique<Peer>(kFew);
  const std::uint64_t theirs = peer->tell("pattern 3");
  worker.meet("peer", 2, 1, peer->address());
  worker.start(Operation::Read, 10s);
  EXPECT_TRUE(worker.wait_for(Kind::Ended).result);
  EXPECT_EQ(worker.sum(), theirs);
}

// What the agent does before it loads a peer's metadata again is needed.
TEST_F(NixlWheelTest, ListsEndWithTheMetadataThatTheyWereMadeFrom) {
  auto peer = std::make_unique<Peer>(kFew);
  RawAgent agent("raw");
  EXPECT_EQ(agent.load(agent.metadata()), -1) << "its own";
  EXPECT_EQ(agent.load(std::vector<std::byte>(100)), kBackend);
  EXPECT_EQ(agent.load(peer->address().metadata), kSuccess);
  PreparedListHandle* const list = agent.prepare("peer", peer->address().area.address);
  EXPECT_EQ(agent.try_to_make(list), kSuccess);
  EXPECT_EQ(agent.load(peer->address().metadata), kSuccess);
  EXPECT_EQ(agent.try_to_make(list), kSuccess) << "the same once more changes nothing";

  peer = std::make_unique<Peer>(kFew);
  EXPECT_EQ(agent.load(peer->address().metadata), kBackend) << "another connection, the same name";
  EXPECT_EQ(agent.api.invalidate_remote_md(agent.handle, "peer"), kSuccess);
  EXPECT_EQ(agent.try_to_make(list), kNotFound);
  EXPECT_EQ(agent.load(peer->address().metadata), kSuccess);
  EXPECT_EQ(agent.try_to_make(list), kNotFound) << "not of the new process";
}

TEST_F(NixlWheelTest, NotificationsArrive) {
  RawAgent one("one");
  RawAgent two("two");
  ASSERT_EQ(one.load(two.metadata()), kSuccess);
  EXPECT_EQ(one.api.gen_notif(one.handle, "nobody", "hello", 5, nullptr), kNotFound);
  ASSERT_EQ(one.api.gen_notif(one.handle, "two", "hello", 5, nullptr), kSuccess);
  auto messages =
      Notifications::make(two.api, "create_notif_map", &NixlApi::create_notif_map).value();
  std::size_t senders = 0;
  while (senders == 0) {
    ASSERT_EQ(two.api.get_notifs(two.handle, messages.get(), nullptr), kSuccess);
    ASSERT_EQ(two.api.notif_map_size(messages.get(), &senders), kSuccess);
  }
  EXPECT_EQ(senders, 1u);
}

double cpu_seconds() {
  rusage used;
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

TEST_F(NixlWheelTest, AnIdleAgentTakesHardlyAnyTime) {
  for (const auto& [interval, percent] :
       {std::pair{AgentOptions().progress_interval, 0.5}, {1'000us, 4.0}}) {
    AgentOptions options;
    options.name = "idle";
    options.progress_interval = interval;
    const auto thread = AgentThread::start(library().api, options, [](Agent&, auto) {}).value();
    const double before = cpu_seconds();
    std::promise<void> never;
    never.get_future().wait_for(4s);
    EXPECT_LE((cpu_seconds() - before) / 4 * 100, percent) << interval.count() << " us";
  }
}

TEST_F(NixlWheelTest, AProcessThatHasUsedItEndsAsOthersDo) {
  EXPECT_EQ(std::system("echo quit | " KVBM_NIXL_PROCESS " leaver 4 >/dev/null"), 0);
}

}  // namespace
}  // namespace kvbm::nixl
