#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "remote/peers.h"
#include "remote/test_peers.h"

namespace kvbm::remote {
namespace {

class PeersTest : public testing::Test, protected PeersWorld {
 protected:
  static std::unique_ptr<PeerServer> serve(SharingService& service,
                                           std::string listen = "127.0.0.1:0") {
    auto server = PeerServer::start(service, {.listen = std::move(listen)});
    EXPECT_TRUE(server.has_value()) << server.error().to_string();
    return std::move(*server);
  }
};

TEST_F(PeersTest, TheLongestPrefixWinsAndOthersAreReleased) {
  TestSharing two(2, 1, 1), four(4, 2, 2), three(3, 3, 3);
  const auto a = serve(two), b = serve(four), c = serve(three);
  const auto peers = connect(config({a->address(), b->address(), c->address()}));
  {
    const auto before = std::chrono::steady_clock::now();
    const PeerPlan plan = ask(*peers).get();
    ASSERT_EQ(plan.blocks(), 4u);
    EXPECT_EQ(plan.id(), 2001u);
    EXPECT_EQ(plan.by_tier(), (std::array<std::uint32_t, kTierCount>{0, 3, 1}));
    EXPECT_EQ(plan.session().peer(), 1u);
    EXPECT_EQ(plan.session().info(), four.info());
    EXPECT_GE(plan.lease_end(), before + milliseconds(30'000));
    EXPECT_LE(plan.lease_end(), in(milliseconds(30'000)));
    two.plans().wait_for_releases(1);
    three.plans().wait_for_releases(1);
    const PeerPlan copy = plan;
    EXPECT_EQ(four.plans().plans().size(), 1u);
  }
  four.plans().wait_for_releases(1);
  EXPECT_EQ(four.plans().plans().size(), 0u);
  EXPECT_EQ(peers->stats().hits, 1u);
  peers->check_invariants();
}

TEST_F(PeersTest, OfEqualPrefixesTheCheaperPathWins) {
  std::array<std::unique_ptr<TestSharing>, 3> services;
  std::array<std::unique_ptr<PeerServer>, 3> servers;
  std::vector<std::string> addresses;
  for (std::size_t i = 0; i < 3; ++i) {
    services[i] = std::make_unique<TestSharing>(4, i + 1, i + 1);
    servers[i] = serve(*services[i]);
    addresses.push_back(servers[i]->address());
  }
  const auto peers = connect(config(addresses));
  (*peers)[1].set_path(1, PeerPath::Nixl);
  EXPECT_EQ(ask(*peers).get().session().peer(), 1u);
  (*peers)[2].set_path(1, PeerPath::Cma);
  (*peers)[0].set_path(7, PeerPath::Cma);  // of a generation that is not there
  EXPECT_EQ(ask(*peers).get().session().peer(), 2u);
  EXPECT_EQ(peers->health()[2].path, PeerPath::Cma);
  // One that has all that was asked for, by the cheapest path: nobody else is waited for.
  services[0]->plans().hold(true);
  EXPECT_EQ(ask(*peers, 4).get().session().peer(), 2u);
  services[0]->plans().hold(false);
  services[0]->plans().wait_for_releases(3);
}

TEST_F(PeersTest, NobodyUpIsAMissAtOnce) {
  PlayedPeer silent;
  const auto peers = Peers::create(self_, config({silent.address()})).value();
  EXPECT_EQ(ask(*peers).get().blocks(), 0u);
  EXPECT_EQ(peers->stats().misses, 1u);
  // Nor is anybody asked for nothing.
  EXPECT_EQ(ask(*peers, 0).get().blocks(), 0u);
}

TEST_F(PeersTest, WhoHasNothingIsAMiss) {
  TestSharing none(0);
  const auto server = serve(none);
  const auto peers = connect(config({server->address()}));
  EXPECT_EQ(ask(*peers).get().blocks(), 0u);
  EXPECT_EQ(peers->stats().failures, 0u);
}

TEST_F(PeersTest, AnErrorIsAMissAndEndsNothing) {
  TestSharing service(4);
  const auto server = serve(service);
  const auto peers = connect(config({server->address()}));
  service.plans().set_fails(true, false);
  EXPECT_EQ(ask(*peers).get().blocks(), 0u);
  EXPECT_NE(peers->health()[0].last_error.find("out of sorts"), std::string::npos);
  service.plans().set_fails(false, false);
  EXPECT_EQ(ask(*peers).get().blocks(), 4u);
  EXPECT_EQ(peers->health()[0].generation, 1u);
}

TEST_F(PeersTest, ARestartedPeerIsAnotherProcess) {
  TestSharing first(4, 1, 1), second(4, 1, 2);
  auto server = serve(first);
  const std::string address = server->address();
  const auto peers = connect(config({address}));
  PeerPlan old = ask(*peers).get();
  ASSERT_EQ(old.blocks(), 4u);
  server.reset();
  EXPECT_EQ(states_.wait_for(0, PeerState::Lost).reason, "OperationFailed: the peer said goodbye");
  EXPECT_EQ(ask(*peers).get().blocks(), 0u);

  server = serve(second, address);
  const PeerHealth health = states_.wait_for(0, PeerState::Up, 2);
  EXPECT_EQ(health.restarts, 1u);
  EXPECT_EQ(health.info, second.info());
  EXPECT_TRUE(old.session().over().is_stopped());
  EXPECT_FALSE(peers->connect(old, in(kLong)).has_value()) << "its plan is the old process's";
  // What is released is not released at the new process, whose ids may be the same.
  const PeerPlan next = ask(*peers).get();
  old = PeerPlan();
  EXPECT_EQ(next.blocks(), 4u);
  EXPECT_EQ(ask(*peers).get().blocks(), 4u);
  second.plans().wait_for_releases(1);  // of the plan of the line above
  EXPECT_EQ(second.plans().plans().count(next.id()), 1u);
}

TEST_F(PeersTest, AStalledPeerCostsADeadlineThenNothing) {
  TestSharing service(4);
  const auto server = serve(service);
  PeersConfig slow = config({server->address()});
  slow.times.heartbeat = milliseconds(1);
  slow.times.suspect_after = milliseconds(30);
  slow.times.lost_after = milliseconds(3'600'000);
  const auto peers = connect(std::move(slow));
  service.plans().hold(true);
  EXPECT_EQ(ask(*peers, 6, kShort).get().blocks(), 0u);
  EXPECT_EQ(peers->stats().timeouts, 1u);
  states_.wait_for(0, PeerState::Suspect);
  EXPECT_EQ(ask(*peers).get().blocks(), 0u) << "is not asked, and so not waited for";
  peers->check_invariants();
  // It was only slow: what it found is released, and it is asked again.
  service.plans().hold(false);
  service.plans().wait_for_releases(1);
  while (ask(*peers).get().blocks() == 0) {
  }
  EXPECT_EQ(peers->health()[0].generation, 1u);
  EXPECT_EQ(peers->health()[0].late_answers, 1u);
}

TEST_F(PeersTest, ASilentPeerIsLostAndGreetedAgain) {
  TestSharing service(4);
  const auto server = serve(service);
  PeersConfig impatient = config({server->address()});
  impatient.times.heartbeat = milliseconds(1);
  impatient.times.suspect_after = milliseconds(10);
  impatient.times.lost_after = milliseconds(20);
  const auto peers = connect(std::move(impatient));
  service.plans().hold(true);
  EXPECT_EQ(ask(*peers).get().blocks(), 0u) << "long before its deadline";
  states_.wait_for(0, PeerState::Lost);
  states_.wait_for(0, PeerState::Up, 2);
  service.plans().hold(false);
  service.plans().wait_for_plans(1);  // left to its lease: nobody can release it any more
  peers->check_invariants();
}

TEST_F(PeersTest, WhoDisagreesIsRefusedAtBothEnds) {
  TestSharing other(4, 1), same_id(4, 8);
  other.worker().mutable_info().rank.model = "another model";
  const auto a = serve(other), b = serve(same_id);
  const auto peers = Peers::create(self_, config({a->address(), b->address()})).value();
  EXPECT_EQ(states_.wait_for(0, PeerState::Refused).reason,
            "the peer says: this worker and the peer disagree about the model: 'another model' and "
            "'a model'");
  EXPECT_NE(states_.wait_for(1, PeerState::Refused).reason.find("own id, 8"), std::string::npos);
  EXPECT_NE(a->stats().last_refusal.find("another model"), std::string::npos);
  EXPECT_EQ(ask(*peers).get().blocks(), 0u);
}

TEST_F(PeersTest, AReaderRefusesAServerThatDoesNotKnowTheSecret) {
  PlayedPeer liar;
  PeersConfig secret = config({liar.address()});
  secret.secret = "a secret";
  const auto peers = Peers::create(self_, std::move(secret)).value();
  FrameStream reader = liar.accept();
  const auto [first, challenge] = PlayedPeer::receive<Challenge>(reader);
  PlayedPeer::send(reader, first, Challenge{.nonce = challenge.nonce, .worker_id = 1});
  const auto [second, proof] = PlayedPeer::receive<Proof>(reader);
  // Its own nonce and its own proof, sent back to it.
  PlayedPeer::send(reader, second, proof);
  EXPECT_EQ(states_.wait_for(0, PeerState::Refused).reason,
            "the other end does not know this worker's secret");
}

// What a peer may answer a lookup with.
class LyingPeerTest : public PeersTest {
 protected:
  void expect_lost(const std::function<std::vector<std::byte>(std::uint64_t request)>& lie,
                   const std::string& reason) {
    PlayedPeer played;
    TestWorker as(test_info(1));
    auto accepted = std::async(std::launch::async, [&] { return played.accept(as); });
    const auto peers = connect(config({played.address()}));
    FrameStream reader = accepted.get();
    auto plan = ask(*peers);
    const auto [request, lookup] = PlayedPeer::receive<LookupRequest>(reader);
    const auto bytes = lie(request);
    reader.send(bytes, within(kLong)).value();
    reader = FrameStream(Descriptor());  // in the middle of whatever it was
    EXPECT_EQ(plan.get().blocks(), 0u);
    const std::string told = states_.wait_for(0, PeerState::Lost).reason;
    EXPECT_NE(told.find(reason), std::string::npos) << told;
    peers->check_invariants();
  }
  static PlanAnswer plan_of(std::uint32_t blocks) {
    return {.plan = 5, .blocks = blocks, .by_tier = {0, blocks, 0}};
  }
};

TEST_F(LyingPeerTest, KilledInMidAnswer) {
  expect_lost(
      [](auto request) {
        auto frame = encode_peer_reply(request, plan_of(4));
        frame.pop_back();
        return frame;
      },
      "the other end has closed");
}
TEST_F(LyingPeerTest, Garbage) {
  expect_lost([](auto) { return std::vector<std::byte>(100, std::byte{0xEE}); },
              "protocol version 238 is not known");
}
TEST_F(LyingPeerTest, AWrongLength) {
  expect_lost(
      [](auto request) {
        auto frame = encode_peer_reply(request, plan_of(4));
        frame[4] = std::byte{23};
        return frame;
      },
      "a plan has not the length of one");
}
TEST_F(LyingPeerTest, AHugeLength) {
  expect_lost(
      [](auto request) {
        auto frame = encode_peer_reply(request, plan_of(4));
        for (std::size_t i = 4; i < 8; ++i) frame[i] = std::byte{0xFF};
        return frame;
      },
      "a frame is too long");
}
TEST_F(LyingPeerTest, MoreBlocksThanWereAskedFor) {
  expect_lost([](auto request) { return encode_peer_reply(request, plan_of(7)); },
              "a plan that was not asked for");
}
TEST_F(LyingPeerTest, AnAnswerToAnotherQuestion) {
  expect_lost([](auto request) { return encode_peer_reply(request + 1, plan_of(4)); },
              "the peer answers what was not asked");
}
TEST_F(LyingPeerTest, AnotherKindOfAnswer) {
  expect_lost([](auto request) { return encode_peer_reply(request, Confirmed()); },
              "a plan that was not asked for");
}
TEST_F(LyingPeerTest, AFailureOfTheWholeConnection) {
  expect_lost(
      [](auto) {
        return encode_peer_reply(0, Error{ErrorCode::OperationFailed, 0, 0, 0, "no more"});
      },
      "the peer says: OperationFailed: no more");
}

TEST_F(PeersTest, TooManyOpenLookupsAreMisses) {
  TestSharing service(4);
  const auto server = serve(service);
  PeersConfig few = config({server->address()});
  few.max_open_lookups = 2;
  const auto peers = connect(std::move(few));
  service.plans().hold(true);
  auto first = ask(*peers), second = ask(*peers);
  EXPECT_EQ(ask(*peers).get().blocks(), 0u);
  EXPECT_EQ(peers->stats().dropped, 1u);
  peers->check_invariants();
  service.plans().hold(false);
  EXPECT_EQ(first.get().blocks(), 4u);
  EXPECT_EQ(second.get().blocks(), 4u);
}

TEST_F(PeersTest, AStopAnswersOpenLookups) {
  TestSharing service(4);
  const auto server = serve(service);
  const auto peers = connect(config({server->address()}));
  service.plans().hold(true);
  auto first = ask(*peers), second = ask(*peers);
  peers->stop();
  EXPECT_EQ(first.get().blocks(), 0u);
  EXPECT_EQ(second.get().blocks(), 0u);
  EXPECT_EQ(ask(*peers).get().blocks(), 0u);
  peers->check_invariants();
  service.plans().hold(false);
}

TEST_F(PeersTest, APlanMayOutliveItsPeers) {
  TestSharing service(4);
  const auto server = serve(service);
  PeerPlan plan;
  {
    const auto peers = connect(config({server->address()}));
    plan = ask(*peers).get();
    ASSERT_EQ(plan.blocks(), 4u);
  }
  plan = PeerPlan();
  EXPECT_EQ(service.plans().plans().size(), 1u) << "it is left to its lease";
}

// Each lookup is answered once, whatever becomes of the peer meanwhile.
TEST_F(PeersTest, EightThreadsLookUpWhileThePeerRestarts) {
  constexpr int kRestarts = 20;
  TestSharing steady(2, 1, 77);
  const auto other = serve(steady);
  std::vector<std::unique_ptr<TestSharing>> services;
  services.push_back(std::make_unique<TestSharing>(4, 2, 100));
  auto server = serve(*services.back());
  const std::string address = server->address();
  const auto peers = connect(config({other->address(), address}));
  std::atomic<bool> ended{false};
  std::atomic<std::uint64_t> asked{0}, answered{0}, hits{0};
  std::vector<std::jthread> readers;
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([&] {
      while (!ended) {
        ++asked;
        std::promise<std::size_t> blocks;
        peers->lookup(leader::prefix(6), {}, 0, milliseconds(30'000), in(kLong),
                      [&](PeerPlan plan) {
                        ++answered;
                        blocks.set_value(plan.blocks());
                      });
        const std::size_t found = blocks.get_future().get();
        EXPECT_TRUE(found == 0 || found == 2 || found == 4) << found;
        if (found == 4) ++hits;
      }
    });
  }
  for (std::uint64_t restart = 1; restart <= kRestarts; ++restart) {
    server.reset();
    peers->check_invariants();
    services.push_back(std::make_unique<TestSharing>(4, 2, 100 + restart));
    server = serve(*services.back(), address);
    states_.wait_for(1, PeerState::Up, restart + 1);
  }
  ended = true;
  readers.clear();
  EXPECT_EQ(asked, answered);
  EXPECT_EQ(peers->stats().lookups, asked);
  EXPECT_EQ(peers->stats().open, 0u);
  peers->check_invariants();
  EXPECT_EQ(peers->health()[1].restarts, std::uint64_t{kRestarts});
}

TEST_F(PeersTest, RefusesWhatCannotBe) {
  const auto refusal = [&](PeersConfig wrong) {
    const auto peers = Peers::create(self_, std::move(wrong));
    EXPECT_FALSE(peers.has_value());
    EXPECT_EQ(peers.error().code, ErrorCode::InvalidConfig);
    return peers.error().message;
  };
  EXPECT_EQ(refusal({}), "there must be 1 to 1024 peers");
  EXPECT_EQ(refusal({.addresses = {"a:1", "a:1"}}), "'a:1' is there twice");
  EXPECT_EQ(refusal({.addresses = {"a:0"}}), "'a:0' has no port");
  EXPECT_EQ(refusal({.addresses = {"a"}}), "'a' is no host:port: it has no port");
  EXPECT_EQ(refusal({.addresses = {"a:1"}, .max_open_lookups = 0}),
            "max_open_lookups must be at least 1");
  EXPECT_EQ(refusal({.addresses = {"a:1"}, .times = {.heartbeat = milliseconds(0)}}),
            "heartbeat must be at least 1 ms");
  EXPECT_EQ(refusal({.addresses = {"a:1"}, .times = {.lost_after = milliseconds(2'000)}}),
            "lost_after must be more than suspect_after");
  EXPECT_EQ(refusal({.addresses = {"a:1"}, .times = {.first_retry = milliseconds(20'000)}}),
            "first_retry must be at most longest_retry");
}

}  // namespace
}  // namespace kvbm::remote
