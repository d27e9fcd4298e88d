#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <thread>

#include "leader/rank_server.h"
#include "leader/test_peer.h"
#include "leader/test_service.h"

namespace kvbm::leader {
namespace {

constexpr std::chrono::milliseconds kLease{1000};

class RankServerTest : public testing::Test {
 protected:
  std::unique_ptr<RankServer> start(std::size_t max_clients = 16) {
    auto server = RankServer::start(service_, {.socket = path_, .max_clients = max_clients});
    EXPECT_TRUE(server.has_value()) << server.error().to_string();
    return std::move(*server);
  }
  static std::vector<std::byte> lookup(std::uint64_t request, std::size_t blocks) {
    return encode_lookup(request, kLease, 0, prefix(blocks), {});
  }
  // The server's last word, after which it closes.
  static std::string goodbye(TestPeer& peer) {
    const auto reply = peer.read_reply();
    EXPECT_FALSE(peer.read().has_value());
    return std::get<Error>(reply).message;
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "rank0";
  TestService service_{4};
};

TEST_F(RankServerTest, AnswersEveryKindOfRequest) {
  const auto server = start();
  TestPeer peer = TestPeer::connect(path_);
  peer.send(encode_hello(1));
  EXPECT_EQ(std::get<RankInfo>(peer.read_reply()), service_.info());

  const std::vector<std::uint64_t> digests = {5, 6, 7, 8, 9};
  peer.send(encode_lookup(2, kLease, 3, prefix(5), digests));
  const auto plan = std::get<PlanAnswer>(peer.read_reply());
  EXPECT_EQ(plan, (PlanAnswer{.plan = 1001, .blocks = 4, .by_tier = {0, 3, 1}}));
  EXPECT_EQ(service_.plans()[1001].hashes, prefix(4));
  EXPECT_EQ(service_.plans()[1001].name_space, 3);
  EXPECT_EQ(service_.plans()[1001].expires, kLease);
  EXPECT_EQ(service_.last_digests(), digests);

  peer.send(encode_trim(3, {.plan = 1001, .blocks = 2}));
  const auto frame = peer.read().value();
  EXPECT_EQ(frame.request, 3u);
  EXPECT_EQ(std::get<PlanAnswer>(decode_reply(frame).value()).blocks, 2u);
  EXPECT_EQ(service_.plans()[1001].hashes, prefix(2));

  peer.send(encode_release(0, 1001));
  service_.wait_for_plans(0);
  peer.send(encode_trim(4, {.plan = 1001, .blocks = 2}));
  EXPECT_EQ(std::get<Error>(peer.read_reply()).code, ErrorCode::HandleNotFound);
  peer.send(encode_lookup(5, kLease, 0, std::vector<SequenceHash>(1), {}));
  EXPECT_EQ(std::get<PlanAnswer>(peer.read_reply()), PlanAnswer()) << "an error ends nothing";
}

TEST_F(RankServerTest, AnotherVersionGetsOneErrorAndIsDisconnected) {
  const auto server = start();
  TestPeer peer = TestPeer::connect(path_);
  auto hello = encode_hello(1);
  hello[0] = std::byte{9};
  peer.send(hello);
  EXPECT_EQ(goodbye(peer), "protocol version 9 is not known, only 1");
}

TEST_F(RankServerTest, GarbageGetsOneErrorAndOthersAreAnswered) {
  const auto server = start();
  TestPeer other = TestPeer::connect(path_);
  const auto whole = lookup(1, 2);
  other.send(std::span(whole).first(20));  // and the rest later
  for (const auto& garbage :
       {encode_reply(1, PlanAnswer()), encode_trim(1, {.plan = 1, .blocks = 0}),
        encode_lookup(1, kLease, 0, {}, {})}) {
    TestPeer peer = TestPeer::connect(path_);
    peer.send(garbage);
    EXPECT_FALSE(goodbye(peer).empty());
  }
  other.send(std::span(whole).subspan(20));
  EXPECT_EQ(std::get<PlanAnswer>(other.read_reply()).blocks, 2u);
}

TEST_F(RankServerTest, OneClientTooManyIsToldSo) {
  const auto server = start(2);
  std::vector<TestPeer> peers;
  for (int i = 0; i < 2; ++i) {
    peers.push_back(TestPeer::connect(path_));
    peers.back().send(encode_hello(1));
    ASSERT_TRUE(peers.back().read().has_value());
  }
  TestPeer third = TestPeer::connect(path_);
  EXPECT_EQ(goodbye(third), "the rank has too many clients");
  // One that leaves makes room; the server has seen it go when it accepts the next.
  peers.pop_back();
  for (;;) {
    TestPeer next = TestPeer::connect(path_);
    next.send(encode_hello(1));
    if (std::holds_alternative<RankInfo>(next.read_reply())) break;
  }
}

TEST_F(RankServerTest, WhoDoesNotReadIsNotReadUntilItDoes) {
  const auto server = start();
  TestPeer slow = TestPeer::connect(path_);
  TestPeer other = TestPeer::connect(path_);
  // Whose second answer shows that the server has been round all its clients.
  const auto go_round = [&] {
    for (int i = 0; i < 2; ++i) {
      other.send(encode_hello(1));
      ASSERT_TRUE(other.read().has_value()) << "others are answered meanwhile";
    }
  };
  // Many in one piece: the server has more to answer than the socket takes.
  std::uint64_t sent = 0;
  const auto send_many = [&] {
    std::vector<std::byte> hellos;
    for (int i = 0; i < 4000; ++i) {
      const auto hello = encode_hello(++sent);
      hellos.insert(hellos.end(), hello.begin(), hello.end());
    }
    slow.socket().send(hellos).value();
  };
  while (slow.socket().unsent() == 0) {
    ASSERT_LT(sent, 1'000'000u) << "the server keeps answers without end";
    send_many();
    if (slow.socket().unsent() == 0) continue;
    go_round();
    slow.socket().flush().value();
  }
  std::uint64_t read = 0;
  while (read < sent) {
    ASSERT_EQ(slow.read().value().request, ++read);
    slow.socket().flush().value();
  }
  // Now nothing else comes that would remind the server of what it has not sent.
  send_many();
  go_round();
  while (read < sent) ASSERT_EQ(slow.read().value().request, ++read);
}

TEST_F(RankServerTest, PlansOfAClientThatIsGoneAreLeftToTheirLeases) {
  const auto server = start();
  {
    TestPeer peer = TestPeer::connect(path_);
    peer.send(lookup(1, 4));
    ASSERT_TRUE(peer.read().has_value());
  }
  TestPeer next = TestPeer::connect(path_);
  next.send(encode_hello(1));
  ASSERT_TRUE(next.read().has_value());
  EXPECT_EQ(service_.plans().size(), 1u);
  service_.advance(kLease);
  EXPECT_EQ(service_.plans().size(), 0u);
}

TEST_F(RankServerTest, AClientThatLeavesBeforeItsAnswerBreaksNothing) {
  const auto server = start();
  service_.hold(true);
  {
    TestPeer peer = TestPeer::connect(path_);
    peer.send(lookup(1, 4));
    service_.wait_for_lookups(1);
  }
  service_.hold(false);
  TestPeer next = TestPeer::connect(path_);
  next.send(encode_hello(1));
  EXPECT_TRUE(next.read().has_value());
}

TEST_F(RankServerTest, StopDisconnectsAllAndRemovesTheSocket) {
  const auto server = start();
  TestPeer idle = TestPeer::connect(path_);
  idle.send(encode_hello(1));
  ASSERT_TRUE(idle.read().has_value());
  TestPeer half = TestPeer::connect(path_);
  const auto whole = lookup(1, 2);
  half.send(std::span(whole).first(20));
  {
    const std::jthread another([&] { server->stop(); });
    server->stop();
  }
  EXPECT_FALSE(idle.read().has_value());
  EXPECT_FALSE(half.read().has_value());
  EXPECT_FALSE(std::filesystem::exists(path_));
  server->stop();
}

TEST_F(RankServerTest, StopWaitsForTheCallThatRuns) {
  auto server = start();
  service_.hold(true);
  TestPeer peer = TestPeer::connect(path_);
  peer.send(lookup(1, 4));
  peer.send(lookup(2, 4));
  service_.wait_for_lookups(1);
  std::jthread stops([&] { server.reset(); });
  service_.hold(false);
  stops.join();
  EXPECT_GE(service_.lookups(), 1u);
}

TEST_F(RankServerTest, TheNextServerTakesTheSamePath) {
  start()->stop();
  const auto server = start();
  TestPeer peer = TestPeer::connect(path_);
  peer.send(encode_hello(1));
  EXPECT_TRUE(peer.read().has_value());
}

TEST_F(RankServerTest, RefusesWhatItCannotServe) {
  const auto none = RankServer::start(service_, {.socket = path_, .max_clients = 0});
  EXPECT_EQ(none.error().code, ErrorCode::InvalidConfig);
  const auto server = start();
  const auto second = RankServer::start(service_, {.socket = path_});
  EXPECT_EQ(second.error().native, EADDRINUSE);
}

}  // namespace
}  // namespace kvbm::leader
