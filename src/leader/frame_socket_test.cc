#include "leader/frame_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>

namespace kvbm::leader {
namespace {

class FrameSocketTest : public testing::Test {
 protected:
  FrameSocketTest() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    a_.emplace(Descriptor(ends[0]));
    b_.emplace(Descriptor(ends[1]));
  }
  std::optional<FrameSocket> a_;
  std::optional<FrameSocket> b_;
};

TEST_F(FrameSocketTest, FramesArriveOneByOne) {
  a_->send(encode_release(1, 10)).value();
  a_->send(encode_release(2, 20)).value();
  EXPECT_FALSE(b_->next().value().has_value());
  b_->receive().value();
  EXPECT_EQ(b_->next().value()->request, 1u);
  EXPECT_EQ(b_->next().value()->request, 2u);
  EXPECT_FALSE(b_->next().value().has_value());
  b_->receive().value();  // nothing has come, which is no error
  EXPECT_FALSE(b_->next().value().has_value());
}

TEST_F(FrameSocketTest, AFrameInPiecesIsPutTogether) {
  const auto frame = encode_trim(3, {.plan = 30, .blocks = 1});
  for (const std::byte& byte : frame) {
    EXPECT_FALSE(b_->next().value().has_value());
    a_->send(std::span(&byte, 1)).value();
    b_->receive().value();
  }
  EXPECT_EQ(b_->next().value()->request, 3u);
}

TEST_F(FrameSocketTest, WhatTheSocketDoesNotTakeIsKeptInOrder) {
  std::vector<SequenceHash> hashes;
  for (std::uint64_t i = 0; i < kMaxHashes; ++i) hashes.emplace_back(i);
  a_->send(encode_lookup(1, kMaxLease, 0, hashes, {})).value();
  const std::size_t kept = a_->unsent();
  EXPECT_GT(kept, 0u);
  b_->receive().value();  // so that there is room again
  const auto next = encode_release(2, 20);
  a_->send(next).value();
  EXPECT_EQ(a_->unsent(), kept + next.size()) << "the second must not pass the first";
  std::optional<Frame> frame;
  while (!frame) {
    a_->flush().value();
    b_->receive().value();
    frame = b_->next().value();
  }
  EXPECT_EQ(std::get<LookupRequest>(decode_request(*frame).value()).hashes, hashes);
  a_->flush().value();
  EXPECT_EQ(a_->unsent(), 0u);
  frame = b_->next().value();
  while (!frame) {
    b_->receive().value();
    frame = b_->next().value();
  }
  EXPECT_EQ(frame->request, 2u);
}

TEST_F(FrameSocketTest, TellsThatTheOtherEndHasClosed) {
  a_->send(encode_hello(1)).value();
  a_.reset();
  b_->receive().value();
  EXPECT_EQ(b_->next().value()->request, 1u) << "what was sent before still arrives";
  EXPECT_EQ(b_->receive().error().code, ErrorCode::OperationFailed);
  const auto sent = b_->send(encode_hello(2));
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error().native, EPIPE);
}

TEST_F(FrameSocketTest, GarbageIsAnError) {
  a_->send(std::vector<std::byte>(3, std::byte{0xFF})).value();
  b_->receive().value();
  EXPECT_FALSE(b_->next().has_value());
}

}  // namespace
}  // namespace kvbm::leader
