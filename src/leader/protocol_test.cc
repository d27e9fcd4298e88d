#include "leader/protocol.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "leader/test_frames.h"

namespace kvbm::leader {
namespace {

const std::vector<SequenceHash> kHashes = {SequenceHash(1), SequenceHash(~0ull), SequenceHash(3)};
const std::vector<std::uint64_t> kDigests = {7, 8, 9};

Bytes lookup(bool digests = false) {
  return encode_lookup(
      11, std::chrono::milliseconds(30'000), 5, kHashes,
      digests ? std::span<const std::uint64_t>(kDigests) : std::span<const std::uint64_t>());
}
Bytes info() {
  return encode_reply(12, RankInfo{.worker_id = 1,
                                   .epoch = 2,
                                   .key_fingerprint = 3,
                                   .block_size = 16,
                                   .model = "a model",
                                   .hash_profile = "kvbm"});
}
Bytes plan() { return encode_reply(13, PlanAnswer{.plan = 4, .blocks = 6, .by_tier = {1, 2, 3}}); }
Bytes failure() {
  return encode_reply(14, Error{ErrorCode::HandleNotFound, -2, 3, 4, "no such plan"});
}

std::vector<Bytes> requests() {
  return {encode_hello(1), lookup(), lookup(true), encode_trim(2, {.plan = 3, .blocks = 4}),
          encode_release(5, 6)};
}
std::vector<Bytes> replies() { return {info(), plan(), failure()}; }

bool refuses_request(const Bytes& bytes) { return !decode_request(frame_of(bytes)); }
bool refuses_reply(const Bytes& bytes) { return !decode_reply(frame_of(bytes)); }

TEST(Protocol, ALookupArrivesAsItWasSent) {
  const auto request = decode_request(frame_of(lookup(true)));
  ASSERT_TRUE(request.has_value()) << request.error().to_string();
  const auto& got = std::get<LookupRequest>(*request);
  EXPECT_EQ(got.lease, std::chrono::milliseconds(30'000));
  EXPECT_EQ(got.name_space, 5);
  EXPECT_EQ(got.hashes, kHashes);
  EXPECT_EQ(got.digests, kDigests);
  EXPECT_TRUE(std::get<LookupRequest>(decode_request(frame_of(lookup())).value()).digests.empty());
  EXPECT_EQ(frame_of(lookup()).request, 11u);
}

TEST(Protocol, OtherRequestsArriveAsTheyWereSent) {
  const auto trim = std::get<TrimRequest>(
      decode_request(frame_of(encode_trim(2, {.plan = 3, .blocks = 4}))).value());
  EXPECT_EQ(trim.plan, 3u);
  EXPECT_EQ(trim.blocks, 4u);
  EXPECT_EQ(std::get<ReleaseRequest>(decode_request(frame_of(encode_release(5, 6))).value()).plan,
            6u);
  EXPECT_TRUE(
      std::holds_alternative<HelloRequest>(decode_request(frame_of(encode_hello(1))).value()));
}

TEST(Protocol, RepliesArriveAsTheyWereSent) {
  const auto got = std::get<RankInfo>(decode_reply(frame_of(info())).value());
  EXPECT_EQ(got, (RankInfo{1, 2, 3, 16, "a model", "kvbm"}));
  EXPECT_EQ(std::get<PlanAnswer>(decode_reply(frame_of(plan())).value()),
            (PlanAnswer{.plan = 4, .blocks = 6, .by_tier = {1, 2, 3}}));
  const auto error = std::get<Error>(decode_reply(frame_of(failure())).value());
  EXPECT_EQ(error.code, ErrorCode::HandleNotFound);
  EXPECT_EQ(error.native, -2);
  EXPECT_EQ(error.requested, 3u);
  EXPECT_EQ(error.available, 4u);
  EXPECT_EQ(error.message, "no such plan");
}

TEST(Protocol, AFrameThatIsNotAllThereIsWaitedFor) {
  std::vector<Bytes> all = requests();
  for (const Bytes& reply : replies()) all.push_back(reply);
  for (const Bytes& frame : all) {
    for (std::size_t size = 0; size < frame.size(); ++size) {
      const auto found = next_frame(std::span(frame).first(size));
      ASSERT_TRUE(found.has_value()) << found.error().to_string();
      EXPECT_FALSE(found->has_value()) << size << " of " << frame.size();
    }
    Bytes two = frame;
    two.insert(two.end(), frame.begin(), frame.end());
    EXPECT_EQ(frame_of(two).size(), frame.size());
  }
}

TEST(Protocol, EveryOtherLengthOfABodyIsRefused) {
  for (const Bytes& frame : requests()) {
    const std::size_t whole = frame.size() - kHeaderBytes;
    for (std::size_t body = 0; body < whole + 20; ++body) {
      EXPECT_EQ(refuses_request(resized(frame, body)), body != whole) << body << " of " << whole;
    }
  }
  for (const Bytes& frame : replies()) {
    const std::size_t whole = frame.size() - kHeaderBytes;
    for (std::size_t body = 0; body < whole + 20; ++body) {
      EXPECT_EQ(refuses_reply(resized(frame, body)), body != whole) << body << " of " << whole;
    }
  }
}

TEST(Protocol, FramesOfTheOtherDirectionAreRefused) {
  for (const Bytes& frame : requests()) EXPECT_TRUE(refuses_reply(frame));
  for (const Bytes& frame : replies()) EXPECT_TRUE(refuses_request(frame));
}

TEST(Protocol, AHeaderIsCheckedBeforeItsBodyIsWaitedFor) {
  const Bytes header = encode_hello(1);
  for (int version = 0; version < 256; ++version) {
    const auto frame = next_frame(with(header, 0, static_cast<std::uint8_t>(version)));
    EXPECT_EQ(frame.has_value(), version == kProtocolVersion);
  }
  for (int type = 0; type < 256; ++type) {
    const bool known = (type >= 1 && type <= 4) || (type >= 129 && type <= 131) ||
                       (type >= 16 && type <= 23) || (type >= 144 && type <= 150);
    EXPECT_EQ(next_frame(with(header, 1, static_cast<std::uint8_t>(type))).has_value(), known);
  }
  EXPECT_FALSE(next_frame(with(header, 2, std::uint16_t{1})).has_value());
  EXPECT_TRUE(next_frame(with(header, 4, std::uint32_t{kMaxBodyBytes})).has_value());
  EXPECT_FALSE(next_frame(with(header, 4, std::uint32_t{kMaxBodyBytes + 1})).has_value());
}

TEST(Protocol, FramesThatOnlyPeersSendAreRefused) {
  for (int type = 0; type < 256; ++type) {
    if (type >= 1 && type <= 4) continue;
    const Frame frame{.type = static_cast<FrameType>(type), .request = 1, .body = {}};
    EXPECT_FALSE(decode_request(frame).has_value()) << type;
    EXPECT_FALSE(decode_reply(frame).has_value()) << type;
  }
}

TEST(Protocol, AnUnknownVersionIsNamedByItsFirstByte) {
  const Bytes one = {std::byte{2}};
  const auto frame = next_frame(one);
  ASSERT_FALSE(frame.has_value());
  EXPECT_EQ(frame.error().message, "protocol version 2 is not known, only 1");
}

TEST(Protocol, NumbersOfALookupHaveBounds) {
  const Bytes good = lookup(true);
  const std::size_t lease = kHeaderBytes, count = lease + 4, flag = lease + 9;
  EXPECT_FALSE(refuses_request(with(good, lease, std::uint32_t{1})));
  EXPECT_FALSE(refuses_request(with(good, lease, std::uint32_t{3'600'000})));
  EXPECT_TRUE(refuses_request(with(good, lease, std::uint32_t{0})));
  EXPECT_TRUE(refuses_request(with(good, lease, std::uint32_t{3'600'001})));
  EXPECT_TRUE(refuses_request(with(good, count, std::uint32_t{0})));
  EXPECT_TRUE(refuses_request(with(good, count, std::uint32_t{2})));
  EXPECT_TRUE(refuses_request(with(good, count, ~std::uint32_t{0})));
  EXPECT_TRUE(refuses_request(with(good, flag, std::uint8_t{2})));
  EXPECT_TRUE(refuses_request(with(good, flag + 1, std::uint16_t{1})));
  EXPECT_TRUE(refuses_request(with(good, flag + 3, std::uint32_t{1})));
  EXPECT_TRUE(refuses_request(encode_lookup(1, std::chrono::milliseconds(1), 0, {}, {})));
}

TEST(Protocol, TheLargestLookupsFitAndLargerOnesDoNot) {
  const std::vector<SequenceHash> hashes(kMaxHashes + 1);
  const std::vector<std::uint64_t> digests(kMaxHashesWithDigests + 1);
  const auto encoded = [&](std::size_t count, std::size_t with_digests) {
    return encode_lookup(1, kMaxLease, 0, std::span(hashes).first(count),
                         std::span(digests).first(with_digests));
  };
  EXPECT_FALSE(refuses_request(encoded(kMaxHashes, 0)));
  EXPECT_TRUE(refuses_request(encoded(kMaxHashes + 1, 0)));
  const Bytes largest = encoded(kMaxHashesWithDigests, kMaxHashesWithDigests);
  EXPECT_LE(largest.size(), kMaxFrameBytes);
  EXPECT_FALSE(refuses_request(largest));
  EXPECT_FALSE(
      next_frame(encoded(kMaxHashesWithDigests + 1, kMaxHashesWithDigests + 1)).has_value());
}

TEST(Protocol, ATrimToNothingIsRefused) {
  EXPECT_TRUE(refuses_request(encode_trim(1, {.plan = 1, .blocks = 0})));
}

TEST(Protocol, APlanAddsUp) {
  EXPECT_TRUE(
      refuses_reply(encode_reply(1, PlanAnswer{.plan = 1, .blocks = 5, .by_tier = {1, 2, 3}})));
  EXPECT_TRUE(refuses_reply(encode_reply(1, PlanAnswer{.plan = 1})));
  EXPECT_TRUE(
      refuses_reply(encode_reply(1, PlanAnswer{.plan = 0, .blocks = 1, .by_tier = {1, 0, 0}})));
  EXPECT_FALSE(refuses_reply(encode_reply(1, PlanAnswer{})));
  // No overflow hides a wrong sum.
  EXPECT_TRUE(
      refuses_reply(encode_reply(1, PlanAnswer{.plan = 1, .blocks = 1, .by_tier = {~0u, 2, 0}})));
}

TEST(Protocol, AnInfoHasBounds) {
  RankInfo long_names{.block_size = 16, .model = std::string(300, 'm')};
  long_names.hash_profile = std::string(300, 'h');
  const auto cut = decode_reply(frame_of(encode_reply(1, long_names))).value();
  EXPECT_EQ(std::get<RankInfo>(cut).model, std::string(kMaxNameBytes, 'm'));
  EXPECT_EQ(std::get<RankInfo>(cut).hash_profile, std::string(kMaxNameBytes, 'h'));
  EXPECT_TRUE(refuses_reply(encode_reply(1, RankInfo{.block_size = 0})));
  EXPECT_FALSE(refuses_reply(encode_reply(1, RankInfo{.block_size = 1024})));
  EXPECT_TRUE(refuses_reply(encode_reply(1, RankInfo{.block_size = 1025})));
  // As long as they say, and too long.
  const Bytes longer = resized(info(), 32 + 257);
  EXPECT_TRUE(refuses_reply(with(with(longer, kHeaderBytes + 28, std::uint16_t{257}),
                                 kHeaderBytes + 30, std::uint16_t{0})));
  EXPECT_TRUE(refuses_reply(with(with(longer, kHeaderBytes + 28, std::uint16_t{0}),
                                 kHeaderBytes + 30, std::uint16_t{257})));
}

TEST(Protocol, AFailureHasBounds) {
  const Error long_message{ErrorCode::TimedOut, 0, 0, 0, std::string(2000, 'x')};
  const auto cut = decode_reply(frame_of(encode_reply(1, long_message))).value();
  EXPECT_EQ(std::get<Error>(cut).message, std::string(kMaxMessageBytes, 'x'));
  EXPECT_TRUE(refuses_reply(with(failure(), kHeaderBytes + 20, std::uint16_t{1})));
  EXPECT_TRUE(
      refuses_reply(with(resized(failure(), 24 + 1025), kHeaderBytes + 22, std::uint16_t{1025})));
}

}  // namespace
}  // namespace kvbm::leader
