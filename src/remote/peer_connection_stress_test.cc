#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <map>
#include <thread>

#include "remote/peer_connection.h"
#include "remote/test_peers.h"

namespace kvbm::remote {
namespace {

class PeerConnectionTest : public testing::Test, protected PeersWorld {
 protected:
  static BlockChoice choice(const PeerPlan& plan, std::vector<std::uint32_t> indexes) {
    return {.plan = plan.id(), .patience = kLong, .indexes = std::move(indexes)};
  }
  // Reads the bytes of each block and keeps them.
  PeerConnection::Receive receiver() {
    return [this](std::size_t position, const Descriptor& socket,
                  std::uint64_t sum) -> Result<void> {
      received_[position].resize(kTestBlockBytes);
      sums_[position] = sum;
      for (std::size_t come = 0; come < kTestBlockBytes;) {
        KVBM_CHECK_OK(wait_for(socket.number(), POLLIN, within(kLong)));
        const ssize_t now =
            ::recv(socket.number(), received_[position].data() + come, kTestBlockBytes - come, 0);
        if (now <= 0) return Error{ErrorCode::OperationFailed, 0, 0, 0, "closed"};
        come += static_cast<std::size_t>(now);
      }
      return {};
    };
  }

  std::map<std::size_t, std::vector<std::byte>> received_;
  std::map<std::size_t, std::uint64_t> sums_;
};

// A peer that is served.
class ServedConnectionTest : public PeerConnectionTest {
 protected:
  ServedConnectionTest() {
    server_ = PeerServer::start(service_, {}).value();
    peers_ = connect(config({server_->address()}));
    plan_ = ask(*peers_).get();
  }
  PeerConnection connection() { return peers_->connect(plan_, in(kLong)).value(); }

  TestSharing service_{4, 1};
  std::unique_ptr<PeerServer> server_;
  std::unique_ptr<Peers> peers_;
  PeerPlan plan_;
};

TEST_F(ServedConnectionTest, FetchesPullsAndConfirms) {
  PeerConnection peer = connection();
  const auto fetched = peer.fetch(choice(plan_, {1, 4, 0}), in(kLong)).value();
  ASSERT_EQ(fetched.size(), 3u);
  EXPECT_EQ(fetched[0]->block, 101u);
  EXPECT_EQ(fetched[1].error().code, ErrorCode::InvalidBlockIndex);
  EXPECT_EQ(fetched[2]->payload_sum, test_sum(0));

  const auto pulled =
      peer.pull(choice(plan_, {3, 9, 2}), kTestBlockBytes, in(kLong), receiver()).value();
  ASSERT_EQ(pulled.size(), 3u);
  EXPECT_TRUE(pulled[0].has_value());
  EXPECT_EQ(received_[0], test_bytes(3));
  EXPECT_EQ(sums_[0], test_sum(3));
  EXPECT_EQ(pulled[1].error().code, ErrorCode::InvalidBlockIndex);
  EXPECT_EQ(received_[2], test_bytes(2));

  EXPECT_TRUE(peer.confirm(plan_.id(), in(kLong)).value());
  service_.reset();
  EXPECT_FALSE(peer.confirm(plan_.id(), in(kLong)).value());
  EXPECT_TRUE(peer.is_usable());
}

TEST_F(ServedConnectionTest, OneThatIsIntactIsUsedAgain) {
  const auto answers = [this](PeerConnection& peer) {
    EXPECT_TRUE(peer.confirm(plan_.id(), in(kLong)).value());
  };
  for (int i = 0; i < 2; ++i) {
    PeerConnection peer = connection();
    answers(peer);
  }
  EXPECT_EQ(server_->stats().greeted, 2u) << "one for lookups and one for blocks";
  PeerConnection first = connection();
  PeerConnection second = connection();
  answers(first);
  answers(second);
  EXPECT_EQ(server_->stats().greeted, 3u);
  first = std::move(second);
  answers(first);
}

TEST_F(ServedConnectionTest, WrongBytesEndNothingButOtherErrorsDo) {
  PeerConnection peer = connection();
  const auto read = receiver();
  const auto wrong = [&](std::size_t position, const Descriptor& socket,
                         std::uint64_t sum) -> Result<void> {
    KVBM_CHECK_OK(read(position, socket, sum));
    return Error{ErrorCode::ChecksumMismatch, 0, 0, 0, ""};
  };
  const auto pulled = peer.pull(choice(plan_, {0, 1}), kTestBlockBytes, in(kLong), wrong).value();
  EXPECT_EQ(pulled[0].error().code, ErrorCode::ChecksumMismatch);
  EXPECT_EQ(pulled[1].error().code, ErrorCode::ChecksumMismatch);
  EXPECT_TRUE(peer.is_usable());

  const auto gives_up = [](std::size_t, const Descriptor&, std::uint64_t) -> Result<void> {
    return Error{ErrorCode::TimedOut, 0, 0, 0, ""};
  };
  const auto none =
      peer.pull(choice(plan_, {0, 1, 2}), kTestBlockBytes, in(kLong), gives_up).value();
  ASSERT_EQ(none.size(), 3u);
  for (const auto& block : none) EXPECT_EQ(block.error().code, ErrorCode::TimedOut);
  EXPECT_FALSE(peer.is_usable());
  EXPECT_FALSE(peer.confirm(plan_.id(), in(kLong)).has_value());
  // It is not given out again.
  peer = connection();
  EXPECT_TRUE(peer.confirm(plan_.id(), in(kLong)).value());
}

TEST_F(ServedConnectionTest, ADeadlineEndsACallAndTheConnection) {
  PeerConnection peer = connection();
  service_.hold_fetches(true);
  const auto fetched = peer.fetch(choice(plan_, {0}), in(kShort));
  ASSERT_FALSE(fetched.has_value());
  EXPECT_EQ(fetched.error().code, ErrorCode::TimedOut);
  EXPECT_FALSE(peer.is_usable());
  service_.hold_fetches(false);
}

TEST_F(ServedConnectionTest, AStopOfThePeersEndsACall) {
  PeerConnection peer = connection();
  service_.hold_fetches(true);
  auto fetching = std::async(std::launch::async,
                             [&] { return peer.fetch(choice(plan_, {0}), in(kLong)).error(); });
  service_.wait_for_fetches(1);
  peers_->stop();
  EXPECT_EQ(fetching.get().code, ErrorCode::Cancelled);
  service_.hold_fetches(false);
}

TEST_F(ServedConnectionTest, AServerThatIsKilledWhileItSendsCostsTheBlocksThatAreNotThere) {
  PeerConnection peer = connection();
  const auto read = receiver();
  const auto pulled =
      peer.pull(choice(plan_, std::vector<std::uint32_t>(100, 1)), kTestBlockBytes, in(kLong),
                [&](std::size_t position, const Descriptor& socket, std::uint64_t sum) {
                  if (position == 3) server_->stop();
                  return read(position, socket, sum);
                })
          .value();
  ASSERT_EQ(pulled.size(), 100u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(pulled[i].has_value());
  EXPECT_FALSE(pulled.back().has_value());
  EXPECT_FALSE(peer.is_usable());
  // What was received is the block's: the server's last words are not mixed in.
  for (const auto& [position, bytes] : received_) {
    if (!pulled[position]) continue;
    EXPECT_EQ(bytes, test_bytes(1)) << position;
  }
  EXPECT_EQ(service_.holds(), 0u);
}

TEST_F(ServedConnectionTest, ThreadsPullAtOnceWhileTheServerStops) {
  std::atomic<std::uint64_t> pulled{0};
  std::vector<std::jthread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      std::vector<std::byte> bytes(kTestBlockBytes);
      for (;;) {
        auto peer = peers_->connect(plan_, in(kLong));
        if (!peer) return;
        const auto blocks = peer->pull(
            choice(plan_, {0, 1, 2}), kTestBlockBytes, in(kLong),
            [&](std::size_t position, const Descriptor& socket, std::uint64_t) -> Result<void> {
              for (std::size_t come = 0; come < bytes.size();) {
                KVBM_CHECK_OK(wait_for(socket.number(), POLLIN, within(kLong)));
                const ssize_t now =
                    ::recv(socket.number(), bytes.data() + come, bytes.size() - come, 0);
                if (now <= 0) return Error{ErrorCode::OperationFailed, 0, 0, 0, "closed"};
                come += static_cast<std::size_t>(now);
              }
              EXPECT_EQ(bytes, test_bytes(static_cast<std::uint32_t>(position)));
              return {};
            });
        if (!blocks || !blocks->back()) return;
        ++pulled;
        pulled.notify_all();
      }
    });
  }
  for (std::uint64_t now = 0; now < 20; now = pulled) pulled.wait(now);
  server_->stop();
  readers.clear();
  EXPECT_EQ(service_.holds(), 0u);
  peers_->check_invariants();
}

// A peer that the test plays.
class PlayedConnectionTest : public PeerConnectionTest {
 protected:
  PlayedConnectionTest() {
    auto accepted = std::async(std::launch::async, [&] { return played_.accept(as_); });
    peers_ = connect(config({played_.address()}));
    control_.emplace(accepted.get());
    auto plan = ask(*peers_);
    const auto request = PlayedPeer::receive<LookupRequest>(*control_).first;
    PlayedPeer::send(*control_, request, PlanAnswer{.plan = 5, .blocks = 4, .by_tier = {0, 4, 0}});
    plan_ = plan.get();
  }
  // A connection for blocks, and the peer's end of it.
  std::pair<PeerConnection, FrameStream> connection() {
    auto accepted = std::async(std::launch::async, [&] { return played_.accept(as_); });
    PeerConnection connected = peers_->connect(plan_, in(kLong)).value();
    return {std::move(connected), accepted.get()};
  }
  // Pulls two blocks while the peer answers with this.
  std::vector<Result<void>> pull(const std::function<void(FrameStream&, std::uint64_t)>& lie) {
    auto [peer, other] = connection();
    auto pulling = std::async(std::launch::async, [&, connected = &peer] {
      return connected->pull(choice(plan_, {0, 1}), kTestBlockBytes, in(kLong), receiver()).value();
    });
    lie(other, PlayedPeer::receive<PullRequest>(other).first);
    other = FrameStream(Descriptor());
    auto pulled = pulling.get();
    EXPECT_EQ(pulled.size(), 2u);
    EXPECT_FALSE(peer.is_usable());
    return pulled;
  }

  PlayedPeer played_;
  TestWorker as_{test_info(1)};
  std::unique_ptr<Peers> peers_;
  std::optional<FrameStream> control_;
  PeerPlan plan_;
};

TEST_F(PlayedConnectionTest, ABlockOfAnotherLengthIsNotReceived) {
  const auto pulled = pull([](FrameStream& reader, std::uint64_t request) {
    PlayedPeer::send(reader, request, BlockHead{.payload_sum = 1, .bytes = kTestBlockBytes + 1});
  });
  EXPECT_EQ(pulled[0].error().message, "the peer's block has another length");
  EXPECT_TRUE(received_.empty());
}

TEST_F(PlayedConnectionTest, AHugeBlockIsNotReceived) {
  const auto pulled = pull([](FrameStream& reader, std::uint64_t request) {
    PlayedPeer::send(reader, request, BlockHead{.payload_sum = 1, .bytes = ~0ull});
  });
  EXPECT_EQ(pulled[1].error().message, "the peer's block has another length");
  EXPECT_TRUE(received_.empty());
}

TEST_F(PlayedConnectionTest, AnEndInTheMiddleOfABlockIsAnError) {
  const auto pulled = pull([](FrameStream& reader, std::uint64_t request) {
    PlayedPeer::send(reader, request, BlockHead{.payload_sum = 1, .bytes = kTestBlockBytes});
    const auto bytes = test_bytes(0);
    reader.send(std::span(bytes).first(1000), within(kLong)).value();
  });
  EXPECT_FALSE(pulled[0].has_value());
  EXPECT_FALSE(pulled[1].has_value());
}

TEST_F(PlayedConnectionTest, AnswersToOtherQuestionsAreRefused) {
  EXPECT_FALSE(pull([](FrameStream& reader, std::uint64_t request) {
                 PlayedPeer::send(reader, request + 1, BlockHead{.bytes = kTestBlockBytes});
               })[0]
                   .has_value());
  EXPECT_FALSE(pull([](FrameStream& reader, std::uint64_t request) {
                 PlayedPeer::send(reader, request, Confirmed{.is_current = true});
               })[0]
                   .has_value());
  EXPECT_EQ(
      pull([](FrameStream& reader, std::uint64_t) { PlayedPeer::send(reader, 0, Goodbye()); })[0]
          .error()
          .message,
      "the peer said goodbye");
}

TEST_F(PlayedConnectionTest, AnotherNumberOfFetchedBlocksIsRefused) {
  auto [peer, other] = connection();
  auto fetching = std::async(std::launch::async, [&, connected = &peer] {
    return connected->fetch(choice(plan_, {0, 1}), in(kLong)).error();
  });
  Fetched one;
  one.blocks.emplace_back(FetchedBlock{.block = 1});
  PlayedPeer::send(other, PlayedPeer::receive<FetchRequest>(other).first, one);
  EXPECT_EQ(fetching.get().message, "the peer fetched another number of blocks");
}

TEST_F(PlayedConnectionTest, AnotherProcessAtTheSameAddressIsRefused) {
  TestWorker next(test_info(1, 2));
  auto accepted = std::async(std::launch::async, [&] { return played_.accept(next); });
  const auto connected = peers_->connect(plan_, in(kLong));
  accepted.get();
  ASSERT_FALSE(connected.has_value());
  EXPECT_EQ(connected.error().message,
            "another process than before answers at " + played_.address());
  EXPECT_EQ(connected.error().requested, 1u);
  EXPECT_EQ(connected.error().available, 2u);
}

TEST_F(PlayedConnectionTest, ALostPeerEndsTheCallsOnItsConnections) {
  auto [peer, other] = connection();
  auto confirming = std::async(std::launch::async, [&, connected = &peer] {
    return connected->confirm(plan_.id(), in(kLong)).error().code;
  });
  PlayedPeer::receive<ConfirmRequest>(other);
  control_.reset();  // and `other` just says nothing
  EXPECT_EQ(confirming.get(), ErrorCode::Cancelled);
}

TEST_F(PlayedConnectionTest, AnIdleConnectionThatThePeerClosedIsNotGivenOut) {
  {
    auto [peer, other] = connection();
    other = FrameStream(Descriptor());
  }
  const auto [peer, other] = connection();  // would wait for the peer if the old one came back
  EXPECT_TRUE(peer.is_usable());
}

}  // namespace
}  // namespace kvbm::remote
