#include "remote/frames.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "leader/test_frames.h"

namespace kvbm::remote {
namespace {

using leader::Bytes;
using leader::frame_of;
using leader::kHeaderBytes;
using leader::resized;
using leader::with;
using std::chrono::milliseconds;

Challenge challenge() {
  Challenge challenge{.worker_id = 5};
  challenge.nonce.fill(std::byte{3});
  return challenge;
}
Introduction introduction() {
  return {.info = {.rank = {.worker_id = 1,
                            .epoch = 2,
                            .key_fingerprint = 3,
                            .block_size = 16,
                            .model = "a model",
                            .hash_profile = "kvbm"},
                   .content_digest = 9},
          .blockset = Bytes(5, std::byte{7})};
}
BlockChoice choice() { return {.plan = 8, .patience = milliseconds(250), .indexes = {0, 3, 1}}; }
Fetched fetched() {
  Fetched fetched;
  fetched.blocks.emplace_back(FetchedBlock{.block = 4, .payload_sum = ~0ull});
  fetched.blocks.emplace_back(Error{ErrorCode::PlanExpired, 0, 8, 0, "no such plan"});
  fetched.blocks.emplace_back(FetchedBlock{.block = 5, .payload_sum = 6});
  return fetched;
}

std::vector<Bytes> requests() {
  const PeerRequest all[] = {
      challenge(),
      Proof{.mac = challenge().nonce},
      introduction(),
      LookupRequest{.lease = milliseconds(1), .hashes = {SequenceHash(1)}, .digests = {2}},
      TrimRequest{.plan = 1, .blocks = 2},
      ReleaseRequest{.plan = 1},
      FetchRequest{choice()},
      PullRequest{choice()},
      ConfirmRequest{.plan = 1},
      Ping(),
      Goodbye()};
  std::vector<Bytes> frames;
  for (const PeerRequest& request : all) frames.push_back(encode_peer_request(11, request));
  return frames;
}
std::vector<Bytes> replies() {
  const PeerReply all[] = {challenge(),
                           Proof{.mac = challenge().nonce},
                           introduction(),
                           PlanAnswer{.plan = 4, .blocks = 6, .by_tier = {1, 2, 3}},
                           Error{ErrorCode::PlanExpired, 1, 2, 3, "gone"},
                           fetched(),
                           BlockHead{.payload_sum = 1, .bytes = 2},
                           Confirmed{.is_current = true},
                           Pong(),
                           Goodbye()};
  std::vector<Bytes> frames;
  for (const PeerReply& reply : all) frames.push_back(encode_peer_reply(12, reply));
  return frames;
}

bool refuses_request(const Bytes& bytes) { return !decode_peer_request(frame_of(bytes)); }
bool refuses_reply(const Bytes& bytes) { return !decode_peer_reply(frame_of(bytes)); }

TEST(PeerFrames, WhatIsDecodedEncodesToTheSameBytes) {
  for (const Bytes& frame : requests()) {
    EXPECT_EQ(frame_of(frame).request, 11u);
    EXPECT_EQ(encode_peer_request(11, decode_peer_request(frame_of(frame)).value()), frame);
  }
  for (const Bytes& frame : replies()) {
    EXPECT_EQ(frame_of(frame).request, 12u);
    EXPECT_EQ(encode_peer_reply(12, decode_peer_reply(frame_of(frame)).value()), frame);
  }
}

TEST(PeerFrames, FieldsArriveAsTheyWereSent) {
  const auto arrived = [](const PeerRequest& request) {
    return decode_peer_request(frame_of(encode_peer_request(1, request))).value();
  };
  EXPECT_EQ(std::get<Challenge>(arrived(challenge())).worker_id, 5u);
  EXPECT_EQ(std::get<Challenge>(arrived(challenge())).nonce, challenge().nonce);
  EXPECT_EQ(std::get<Introduction>(arrived(introduction())).info, introduction().info);
  EXPECT_EQ(std::get<Introduction>(arrived(introduction())).blockset, introduction().blockset);
  const auto pull = std::get<PullRequest>(arrived(PullRequest{choice()})).blocks;
  EXPECT_EQ(pull.plan, 8u);
  EXPECT_EQ(pull.patience, milliseconds(250));
  EXPECT_EQ(pull.indexes, choice().indexes);
  const auto got =
      std::get<Fetched>(decode_peer_reply(frame_of(encode_peer_reply(1, fetched()))).value());
  ASSERT_EQ(got.blocks.size(), 3u);
  EXPECT_EQ(got.blocks[0]->block, 4u);
  EXPECT_EQ(got.blocks[0]->payload_sum, ~0ull);
  EXPECT_EQ(got.blocks[1].error().code, ErrorCode::PlanExpired);
  EXPECT_EQ(got.blocks[1].error().message, "no such plan");
  EXPECT_EQ(got.blocks[2]->payload_sum, 6u);
}

TEST(PeerFrames, EveryOtherLengthOfABodyIsRefused) {
  const auto lengths = [](const Bytes& frame, const auto& refuses) {
    const std::size_t whole = frame.size() - kHeaderBytes;
    for (std::size_t body = 0; body < whole + 20; ++body) {
      EXPECT_EQ(refuses(resized(frame, body)), body != whole)
          << body << " of " << whole << ", type " << int(frame[1]);
    }
  };
  for (const Bytes& frame : requests()) lengths(frame, refuses_request);
  for (const Bytes& frame : replies()) lengths(frame, refuses_reply);
}

TEST(PeerFrames, FramesOfTheOtherDirectionAndOfLeadersAreRefused) {
  for (const Bytes& frame : requests()) {
    EXPECT_EQ(refuses_reply(frame), frame_of(frame).type != FrameType::Goodbye);
  }
  for (const Bytes& frame : replies()) {
    EXPECT_EQ(refuses_request(frame), frame_of(frame).type != FrameType::Goodbye);
  }
  EXPECT_TRUE(refuses_request(leader::encode_hello(1)));
  EXPECT_TRUE(refuses_reply(leader::encode_reply(1, introduction().info.rank)));
}

TEST(PeerFrames, AnIntroductionHasBounds) {
  const Bytes good = encode_peer_request(1, introduction());
  const std::size_t bytes = kHeaderBytes + 8;
  EXPECT_TRUE(refuses_request(with(good, bytes, std::uint32_t{4})));
  EXPECT_TRUE(refuses_request(with(good, bytes, ~std::uint32_t{0})));
  EXPECT_TRUE(refuses_request(with(good, bytes + 4, std::uint32_t{1}))) << "an unknown flag";
  Introduction largest = introduction();
  largest.blockset.resize(kMaxBlocksetBytes);
  EXPECT_FALSE(refuses_request(encode_peer_request(1, largest)));
  largest.blockset.resize(kMaxBlocksetBytes + 1);
  EXPECT_TRUE(refuses_request(encode_peer_request(1, largest)));
}

TEST(PeerFrames, ARequestForBlocksHasBounds) {
  for (const PeerRequest& request :
       {PeerRequest(FetchRequest{choice()}), PeerRequest(PullRequest{choice()})}) {
    const Bytes good = encode_peer_request(1, request);
    const std::size_t patience = kHeaderBytes + 8, count = kHeaderBytes + 12;
    EXPECT_FALSE(refuses_request(with(good, patience, std::uint32_t{1})));
    EXPECT_FALSE(refuses_request(with(good, patience, std::uint32_t{60'000})));
    EXPECT_TRUE(refuses_request(with(good, patience, std::uint32_t{0})));
    EXPECT_TRUE(refuses_request(with(good, patience, std::uint32_t{60'001})));
    EXPECT_TRUE(refuses_request(with(good, count, std::uint32_t{0})));
    EXPECT_TRUE(refuses_request(with(good, count, std::uint32_t{2})));
    EXPECT_TRUE(refuses_request(with(good, count, ~std::uint32_t{0})));
  }
  BlockChoice most = choice();
  most.indexes.resize(kMaxIndexes);
  EXPECT_FALSE(refuses_request(encode_peer_request(1, FetchRequest{most})));
  most.indexes.resize(kMaxIndexes + 1);
  EXPECT_TRUE(refuses_request(encode_peer_request(1, FetchRequest{most})));
  EXPECT_TRUE(refuses_request(
      encode_peer_request(1, FetchRequest{{.plan = 1, .patience = milliseconds(1)}})));
}

TEST(PeerFrames, AFetchedHasBounds) {
  const Bytes good = encode_peer_reply(1, fetched());
  const std::size_t count = kHeaderBytes, flag = count + 8, block = flag + 8;
  EXPECT_TRUE(refuses_reply(with(good, count, std::uint64_t{0})));
  EXPECT_TRUE(refuses_reply(with(good, count, std::uint64_t{2})));
  EXPECT_TRUE(refuses_reply(with(good, count, std::uint64_t{4})));
  EXPECT_TRUE(refuses_reply(with(good, count, ~std::uint64_t{0})));
  EXPECT_TRUE(refuses_reply(with(good, flag, std::uint64_t{2})));
  EXPECT_TRUE(refuses_reply(with(good, block, std::uint64_t{kNoBlock})));
  EXPECT_FALSE(refuses_reply(with(good, block, std::uint64_t{kNoBlock - 1})));
  EXPECT_TRUE(refuses_reply(encode_peer_reply(1, Fetched())));
  Fetched most;
  for (std::size_t i = 0; i < kMaxIndexes; ++i) {
    most.blocks.emplace_back(Error{ErrorCode::PlanExpired, 0, 0, 0, std::string(2000, 'x')});
  }
  EXPECT_FALSE(refuses_reply(encode_peer_reply(1, most))) << "as many long messages fit";
  most.blocks.emplace_back(FetchedBlock());
  EXPECT_TRUE(refuses_reply(encode_peer_reply(1, most)));
}

TEST(PeerFrames, FlagsAndSizesHaveBounds) {
  const Bytes confirmed = encode_peer_reply(1, Confirmed());
  EXPECT_FALSE(refuses_reply(with(confirmed, kHeaderBytes, std::uint64_t{1})));
  EXPECT_TRUE(refuses_reply(with(confirmed, kHeaderBytes, std::uint64_t{2})));
  EXPECT_TRUE(refuses_reply(encode_peer_reply(1, BlockHead{.payload_sum = 1, .bytes = 0})));
}

TEST(PeerFrames, WhatComesBeforeAProofIsShort) {
  const PeerReply all[] = {challenge(), Proof(),
                           Error{ErrorCode::InvalidConfig, 0, 0, 0, std::string(5000, 'x')}};
  for (const PeerReply& reply : all) {
    EXPECT_LE(encode_peer_reply(1, reply).size(), kHeaderBytes + kMaxUnprovenBodyBytes);
  }
}

}  // namespace
}  // namespace kvbm::remote
