#include <gtest/gtest.h>
#include <poll.h>

#include <future>
#include <thread>

#include "remote/auth.h"
#include "remote/handshake.h"
#include "remote/peer_server.h"
#include "remote/test_sharing.h"

namespace kvbm::remote {
namespace {

class PeerServerTest : public testing::Test {
 protected:
  std::unique_ptr<PeerServer> start(PeerServerConfig config = {}) {
    config.secret = secret_;
    auto server = PeerServer::start(service_, std::move(config));
    EXPECT_TRUE(server.has_value()) << server.error().to_string();
    return std::move(*server);
  }
  // A reader's connection before its handshake.
  static FrameStream connect(const PeerServer& server) {
    const auto there = resolve(server.address(), within(kLong)).value().front();
    return FrameStream(connect_tcp(there, within(kLong)).value());
  }
  Result<GreetedPeer> greeted(const PeerServer& server) {
    return connect_and_greet(server.address(), {.worker = reader_, .secret = secret_},
                             within(kLong));
  }
  static void send(FrameStream& stream, std::uint64_t request, const PeerRequest& body) {
    stream.send(encode_peer_request(request, body), within(kLong)).value();
  }
  static PeerReply receive(FrameStream& stream, std::uint64_t request) {
    const auto frame = stream.receive(within(kLong));
    if (!frame) return frame.error();
    EXPECT_EQ(frame->request, request);
    return decode_peer_reply(*frame).value();
  }
  static PeerReply ask(FrameStream& stream, std::uint64_t request, const PeerRequest& body) {
    send(stream, request, body);
    return receive(stream, request);
  }
  // The server's last word, after which it closes.
  static PeerReply goodbye(FrameStream& stream) {
    PeerReply word = receive(stream, 0);
    std::byte byte{};
    EXPECT_FALSE(receive_exact(stream.socket(), std::span(&byte, 1), within(kLong)).has_value());
    return word;
  }
  static std::string failure(FrameStream& stream) {
    const PeerReply word = goodbye(stream);
    const auto* const error = std::get_if<Error>(&word);
    return error ? error->message : "no failure";
  }
  std::uint64_t plan(FrameStream& stream, std::size_t blocks = 4) {
    const PeerReply reply = ask(
        stream, 1, LookupRequest{.lease = milliseconds(1000), .hashes = leader::prefix(blocks)});
    return std::get<PlanAnswer>(reply).plan;
  }

  std::string secret_ = "a secret";
  TestSharing service_{4};
  TestWorker reader_{test_info(8)};
};

TEST_F(PeerServerTest, AnswersEveryKindOfRequest) {
  const auto server = start();
  GreetedPeer connected = greeted(*server).value();
  EXPECT_EQ(connected.peer.info, service_.info());
  EXPECT_EQ(connected.peer.blockset, service_.blockset());
  EXPECT_EQ(reader_.accepted(), std::vector{service_.info()});
  EXPECT_EQ(service_.worker().accepted(), std::vector{reader_.info()});

  FrameStream& peer = connected.stream;
  const std::vector<std::uint64_t> digests = {5, 6, 7, 8, 9};
  const PeerReply found = ask(peer, 2,
                              LookupRequest{.lease = milliseconds(1000),
                                            .name_space = 3,
                                            .hashes = leader::prefix(5),
                                            .digests = digests});
  EXPECT_EQ(std::get<PlanAnswer>(found),
            (PlanAnswer{.plan = 1001, .blocks = 4, .by_tier = {0, 3, 1}}));
  EXPECT_EQ(service_.plans().plans()[1001].name_space, 3);
  EXPECT_EQ(service_.plans().last_digests(), digests);
  EXPECT_TRUE(std::get<Confirmed>(ask(peer, 3, ConfirmRequest{.plan = 1001})).is_current);
  EXPECT_FALSE(std::get<Confirmed>(ask(peer, 4, ConfirmRequest{.plan = 1002})).is_current);

  const auto fetched = std::get<Fetched>(
      ask(peer, 5, FetchRequest{{.plan = 1001, .patience = kLong, .indexes = {2, 9}}}));
  ASSERT_EQ(fetched.blocks.size(), 2u);
  EXPECT_EQ(fetched.blocks[0]->block, 102u);
  EXPECT_EQ(fetched.blocks[0]->payload_sum, test_sum(2));
  EXPECT_EQ(fetched.blocks[1].error().code, ErrorCode::InvalidBlockIndex);

  EXPECT_EQ(std::get<PlanAnswer>(ask(peer, 6, TrimRequest{.plan = 1001, .blocks = 2})).blocks, 2u);
  EXPECT_TRUE(std::holds_alternative<Pong>(ask(peer, 7, Ping())));
  send(peer, 0, ReleaseRequest{.plan = 1001});
  service_.plans().wait_for_plans(0);
  EXPECT_EQ(std::get<Error>(ask(peer, 8, TrimRequest{.plan = 1001, .blocks = 2})).code,
            ErrorCode::HandleNotFound);
  EXPECT_TRUE(std::holds_alternative<Pong>(ask(peer, 9, Ping()))) << "an error ends nothing";
  server->check_invariants();
}

TEST_F(PeerServerTest, APullSendsTheBytesBehindEachHead) {
  const auto server = start();
  FrameStream peer = std::move(greeted(*server).value().stream);
  const std::uint64_t id = plan(peer);
  const std::vector<std::uint32_t> indexes = {3, 7, 0, 3};
  send(peer, 2, PullRequest{{.plan = id, .patience = kLong, .indexes = indexes}});
  for (const std::uint32_t index : indexes) {
    const PeerReply reply = receive(peer, 2);
    if (index == 7) {
      EXPECT_EQ(std::get<Error>(reply).code, ErrorCode::InvalidBlockIndex);
      continue;
    }
    EXPECT_EQ(std::get<BlockHead>(reply).payload_sum, test_sum(index));
    ASSERT_EQ(std::get<BlockHead>(reply).bytes, kTestBlockBytes);
    std::vector<std::byte> bytes(kTestBlockBytes);
    receive_exact(peer.socket(), bytes, within(kLong)).value();
    EXPECT_EQ(bytes, test_bytes(index));
  }
  EXPECT_TRUE(std::holds_alternative<Pong>(ask(peer, 3, Ping())));
  EXPECT_EQ(service_.holds(), 0u);
  EXPECT_EQ(server->stats().sent_blocks, 3u);
  EXPECT_EQ(server->stats().sent_bytes, 3 * kTestBlockBytes);
}

TEST_F(PeerServerTest, AnotherVersionGetsOneFailureAndIsDisconnected) {
  const auto server = start();
  FrameStream peer = connect(*server);
  auto frame = encode_peer_request(1, Challenge());
  frame[0] = std::byte{9};
  peer.send(frame, within(kLong)).value();
  EXPECT_EQ(failure(peer), "protocol version 9 is not known, only 1");
}

TEST_F(PeerServerTest, WhoDoesNotKnowTheSecretIsRefused) {
  const auto server = start();
  for (const char* secret : {"", "another secret"}) {
    const std::string other = secret;
    const auto connected =
        connect_and_greet(server->address(), {.worker = reader_, .secret = other}, within(kLong));
    ASSERT_FALSE(connected.has_value());
    EXPECT_EQ(connected.error().code, ErrorCode::InvalidConfig);
    EXPECT_EQ(connected.error().message,
              "the peer says: the other end does not know this worker's secret");
  }
  EXPECT_EQ(server->stats().greeted, 0u);
  EXPECT_EQ(server->stats().refused, 2u);
  EXPECT_TRUE(service_.worker().accepted().empty());
}

TEST_F(PeerServerTest, AReplayedProofIsRefused) {
  const auto server = start();
  // What a listener could have recorded of a handshake.
  FrameStream recorded = connect(*server);
  const Challenge challenge{.nonce = fresh_nonce().value(), .worker_id = 8};
  const auto answer = std::get<Challenge>(ask(recorded, 1, challenge));
  const Proof proof =
      make_proof(secret_, Role::Reader, {.reader = challenge, .server = answer}).value();
  ASSERT_TRUE(std::holds_alternative<Proof>(ask(recorded, 2, proof)));

  FrameStream replay = connect(*server);
  EXPECT_NE(std::get<Challenge>(ask(replay, 1, challenge)).nonce, answer.nonce);
  send(replay, 2, proof);
  EXPECT_EQ(failure(replay), "the other end does not know this worker's secret");
}

TEST_F(PeerServerTest, NothingIsAnsweredBeforeTheHandshake) {
  const auto server = start();
  for (const PeerRequest& request :
       {PeerRequest(LookupRequest{.lease = milliseconds(1), .hashes = leader::prefix(1)}),
        PeerRequest(Ping()), PeerRequest(Proof()),
        PeerRequest(Introduction{.info = reader_.info()})}) {
    FrameStream peer = connect(*server);
    send(peer, 1, request);
    EXPECT_EQ(failure(peer), "the steps of a handshake come in another order");
  }
  // Nor is much taken in.
  FrameStream peer = connect(*server);
  send(peer, 1, LookupRequest{.lease = milliseconds(1), .hashes = leader::prefix(1000)});
  EXPECT_EQ(failure(peer), "a frame is too long");
}

TEST_F(PeerServerTest, WhoDisagreesIsToldAboutWhatWithBothValues) {
  const auto server = start();
  const auto refusal = [&](const auto& change) {
    TestWorker other(test_info(8));
    change(other.mutable_info());
    const auto connected =
        connect_and_greet(server->address(), {.worker = other, .secret = secret_}, within(kLong));
    EXPECT_FALSE(connected.has_value());
    EXPECT_EQ(connected.error().code, ErrorCode::InvalidConfig);
    return connected.error().message;
  };
  const std::string begin = "the peer says: this worker and the peer disagree about ";
  EXPECT_EQ(refusal([](WorkerInfo& info) { info.rank.model = "b"; }),
            begin + "the model: 'a model' and 'b'");
  EXPECT_EQ(refusal([](WorkerInfo& info) { info.rank.block_size = 32; }),
            begin + "the block size in tokens: '16' and '32'");
  EXPECT_EQ(refusal([](WorkerInfo& info) { info.rank.hash_profile = "vllm"; }),
            begin + "the hash profile: 'kvbm' and 'vllm'");
  EXPECT_EQ(refusal([](WorkerInfo& info) { info.rank.key_fingerprint = 0; }),
            begin + "the fingerprint of the digest key: '9' and '0'");
  EXPECT_EQ(refusal([](WorkerInfo& info) { info.content_digest = 0xD2; }),
            begin + "the content digest of blocks: 0x00000000000000d1 and 0x00000000000000d2");
  EXPECT_EQ(
      refusal([](WorkerInfo& info) { info.rank.worker_id = 7; }),
      "the peer says: the peer has this worker's own id, 7; each worker needs one of its own");
  // What the workers themselves find wrong, such as with a blockset.
  service_.worker().set_refusal(Error{ErrorCode::InvalidConfig, 0, 2, 1, "blockset version 2"});
  EXPECT_EQ(refusal([](WorkerInfo&) {}), "the peer says: blockset version 2");
  service_.worker().set_refusal(std::nullopt);
  reader_.set_refusal(Error{ErrorCode::InvalidConfig, 0, 0, 0, "blockset version 0"});
  EXPECT_EQ(greeted(*server).error().message, "blockset version 0");
}

TEST_F(PeerServerTest, AWorkerIsBoundToTheIdThatItProved) {
  const auto server = start();
  FrameStream peer = connect(*server);
  const Challenge challenge{.nonce = fresh_nonce().value(), .worker_id = 8};
  const auto answer = std::get<Challenge>(ask(peer, 1, challenge));
  const Handshake handshake{.reader = challenge, .server = answer};
  ask(peer, 2, make_proof(secret_, Role::Reader, handshake).value());
  send(peer, 3, Introduction{.info = test_info(9), .blockset = {}});
  EXPECT_EQ(failure(peer), "the peer introduces itself as worker 9 and proved to be worker 8");
}

TEST_F(PeerServerTest, GarbageGetsOneFailureAndOthersAreAnswered) {
  const auto server = start();
  FrameStream other = std::move(greeted(*server).value().stream);
  for (const auto& garbage :
       {encode_peer_reply(1, Pong()), leader::encode_hello(1), encode_peer_request(1, Challenge()),
        encode_peer_request(1, TrimRequest{.plan = 1, .blocks = 0}),
        encode_peer_request(1, FetchRequest{{.plan = 1}})}) {
    FrameStream peer = std::move(greeted(*server).value().stream);
    peer.send(garbage, within(kLong)).value();
    EXPECT_NE(failure(peer), "no failure");
  }
  EXPECT_TRUE(std::holds_alternative<Pong>(ask(other, 1, Ping())));
}

TEST_F(PeerServerTest, OneConnectionTooManyIsToldSo) {
  const auto server = start({.max_connections = 2});
  std::vector<FrameStream> peers;
  for (int i = 0; i < 2; ++i) peers.push_back(std::move(greeted(*server).value().stream));
  const auto third = greeted(*server);
  ASSERT_FALSE(third.has_value());
  EXPECT_EQ(third.error().code, ErrorCode::QueueFull);
  EXPECT_EQ(third.error().message, "the peer says: the worker has too many connections");
  EXPECT_EQ(third.error().requested, 3u);
  EXPECT_EQ(third.error().available, 2u);
  // One that leaves makes room.
  send(peers.back(), 0, Goodbye());
  peers.pop_back();
  while (!greeted(*server)) {
  }
}

TEST_F(PeerServerTest, WhoIsSilentInAHandshakeIsDisconnected) {
  const auto server = start({.handshake_timeout = kShort});
  FrameStream silent = connect(*server);
  EXPECT_EQ(failure(silent), "the deadline has passed");
  FrameStream half = connect(*server);
  ASSERT_TRUE(std::holds_alternative<Challenge>(ask(half, 1, Challenge{.worker_id = 8})));
  EXPECT_EQ(failure(half), "the deadline has passed");
}

TEST_F(PeerServerTest, WhoIsSilentAfterwardsIsDisconnected) {
  const auto server = start({.answer_timeout = kShort, .idle_timeout = kLong});
  FrameStream half = std::move(greeted(*server).value().stream);
  const auto frame = encode_peer_request(1, Ping());
  half.send(std::span(frame).first(5), within(kLong)).value();
  EXPECT_EQ(failure(half), "the deadline has passed");

  const auto impatient = start({.idle_timeout = kShort});
  FrameStream idle = std::move(greeted(*impatient).value().stream);
  EXPECT_EQ(failure(idle), "the deadline has passed");
}

TEST_F(PeerServerTest, WhoDoesNotReadItsBlocksIsDisconnectedAndTheyAreGivenBack) {
  const auto server = start({.answer_timeout = kShort});
  FrameStream peer = std::move(greeted(*server).value().stream);
  const std::uint64_t id = plan(peer);
  send(peer, 2,
       PullRequest{{.plan = id, .patience = kLong, .indexes = std::vector<std::uint32_t>(200, 1)}});
  service_.wait_for_fetches(1);
  service_.wait_for_holds(0);
  EXPECT_LT(server->stats().sent_blocks, 200u);
}

TEST_F(PeerServerTest, PlansOfAPeerThatIsGoneAreLeftToTheirLeases) {
  const auto server = start();
  {
    FrameStream peer = std::move(greeted(*server).value().stream);
    plan(peer);
    send(peer, 0, Goodbye());
    std::byte byte{};
    EXPECT_FALSE(receive_exact(peer.socket(), std::span(&byte, 1), within(kLong)).has_value());
  }
  EXPECT_EQ(service_.plans().plans().size(), 1u);
  service_.plans().advance(milliseconds(1000));
  EXPECT_EQ(service_.plans().plans().size(), 0u);
}

TEST_F(PeerServerTest, ASlowFetchHoldsNobodyElseUp) {
  const auto server = start();
  FrameStream slow = std::move(greeted(*server).value().stream);
  FrameStream other = std::move(greeted(*server).value().stream);
  const std::uint64_t id = plan(slow);
  service_.hold_fetches(true);
  send(slow, 2, FetchRequest{{.plan = id, .patience = kLong, .indexes = {0}}});
  service_.wait_for_fetches(1);
  EXPECT_TRUE(std::holds_alternative<Pong>(ask(other, 1, Ping())));
  service_.hold_fetches(false);
  EXPECT_TRUE(std::get<Fetched>(receive(slow, 2)).blocks[0].has_value());
  // It ends when its patience does.
  service_.hold_fetches(true);
  const auto late = ask(slow, 3, FetchRequest{{.plan = id, .patience = kShort, .indexes = {0}}});
  EXPECT_EQ(std::get<Fetched>(late).blocks[0].error().code, ErrorCode::TimedOut);
  service_.hold_fetches(false);
}

TEST_F(PeerServerTest, StopSaysGoodbyeAndWaitsForNobody) {
  const auto server = start();
  FrameStream idle = std::move(greeted(*server).value().stream);
  FrameStream before = connect(*server);
  FrameStream half = std::move(greeted(*server).value().stream);
  const auto frame = encode_peer_request(1, Ping());
  half.send(std::span(frame).first(5), within(kLong)).value();
  FrameStream fetches = std::move(greeted(*server).value().stream);
  const std::uint64_t id = plan(fetches);
  FrameStream reads_nothing = std::move(greeted(*server).value().stream);
  send(reads_nothing, 1,
       PullRequest{{.plan = id, .patience = kLong, .indexes = std::vector<std::uint32_t>(200, 1)}});
  service_.wait_for_fetches(1);
  service_.hold_fetches(true);
  send(fetches, 2, FetchRequest{{.plan = id, .patience = kLong, .indexes = {0}}});
  service_.wait_for_fetches(2);
  {
    const std::jthread another([&] { server->stop(); });
    server->stop();
  }
  EXPECT_TRUE(std::holds_alternative<Goodbye>(goodbye(idle)));
  EXPECT_TRUE(std::holds_alternative<Goodbye>(goodbye(half)));
  EXPECT_EQ(service_.holds(), 0u);
  EXPECT_EQ(server->stats().connections, 0u);
  EXPECT_EQ(
      connect_tcp(resolve(server->address(), within(kLong))->front(), within(kLong)).error().native,
      ECONNREFUSED);
  server->stop();
  server->check_invariants();
}

TEST_F(PeerServerTest, AStopMixesNoWordInWithTheBytesOfABlock) {
  const auto server = start();
  FrameStream idle = std::move(greeted(*server).value().stream);
  FrameStream slow = std::move(greeted(*server).value().stream);
  const std::uint64_t id = plan(slow);
  send(slow, 1,
       PullRequest{{.plan = id, .patience = kLong, .indexes = std::vector<std::uint32_t>(200, 1)}});
  wait_for(slow.socket().number(), POLLIN, within(kLong)).value();
  const std::jthread stops([&] { server->stop(); });
  EXPECT_TRUE(std::holds_alternative<Goodbye>(goodbye(idle)));

  const auto head =
      encode_peer_reply(1, BlockHead{.payload_sum = test_sum(1), .bytes = kTestBlockBytes});
  std::vector<std::byte> expected = test_bytes(1);
  expected.insert(expected.begin(), head.begin(), head.end());
  for (int block = 0;; ++block) {
    ASSERT_LT(block, 200);
    std::vector<std::byte> came(expected.size());
    const auto whole = receive_exact(slow.socket(), came, within(kLong));
    const std::size_t bytes = whole ? came.size() : whole.error().available;
    ASSERT_TRUE(std::equal(came.begin(), came.begin() + std::ptrdiff_t(bytes), expected.begin()));
    if (!whole) break;
  }
}

TEST_F(PeerServerTest, ManyConnectionsComeAndGoWhileItStops) {
  auto server = start({.max_connections = 4});
  const std::string address = server->address();
  std::atomic<std::uint64_t> answered{0};
  std::atomic<bool> ended{false};
  std::vector<std::jthread> readers;
  for (int i = 0; i < 6; ++i) {
    readers.emplace_back([&] {
      while (!ended) {
        auto connected =
            connect_and_greet(address, {.worker = reader_, .secret = secret_}, within(kLong));
        if (!connected) continue;
        if (!connected->stream.send(encode_peer_request(1, Ping()), within(kLong))) continue;
        if (!connected->stream.receive(within(kLong))) continue;
        ++answered;
        answered.notify_all();
      }
    });
  }
  for (std::uint64_t now = 0; now < 50; now = answered) answered.wait(now);
  server->check_invariants();
  server->stop();
  ended = true;
  readers.clear();
  EXPECT_EQ(server->stats().connections, 0u);
}

TEST_F(PeerServerTest, AnotherMachineNeedsASecret) {
  secret_ = "";
  for (const char* open : {"0.0.0.0:0", "[::]:0"}) {
    const auto refused = PeerServer::start(service_, {.listen = open});
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::InvalidConfig);
    EXPECT_NE(refused.error().message.find("secret"), std::string::npos);
    EXPECT_TRUE(PeerServer::start(service_, {.listen = open, .secret = "s"}).has_value());
  }
  // Nor does a reader talk to one without.
  const auto connected =
      connect_and_greet("192.0.2.1:1", {.worker = reader_, .secret = secret_}, within(kLong));
  EXPECT_EQ(connected.error().code, ErrorCode::InvalidConfig);
  // Within the machine none is needed.
  const auto server = start();
  EXPECT_TRUE(greeted(*server).has_value());
}

TEST_F(PeerServerTest, RefusesWhatItCannotServe) {
  const auto refusal = [&](PeerServerConfig config) {
    return PeerServer::start(service_, std::move(config)).error();
  };
  EXPECT_EQ(refusal({.max_connections = 0}).message, "max_connections must be at least 1");
  EXPECT_EQ(refusal({.handshake_timeout = milliseconds(0)}).code, ErrorCode::InvalidConfig);
  EXPECT_EQ(refusal({.answer_timeout = milliseconds(-1)}).code, ErrorCode::InvalidConfig);
  EXPECT_EQ(refusal({.idle_timeout = milliseconds(0)}).code, ErrorCode::InvalidConfig);
  EXPECT_EQ(refusal({.listen = "nonsense"}).code, ErrorCode::InvalidConfig);
  const auto server = start();
  EXPECT_EQ(refusal({.listen = server->address()}).native, EADDRINUSE);
}

}  // namespace
}  // namespace kvbm::remote
