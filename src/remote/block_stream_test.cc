#include "remote/block_stream.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>

#include "remote/test_remote_blocks.h"

namespace kvbm::remote {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

BlockPatience patient() {
  return {{.deadline = Clock::now() + std::chrono::seconds(60)}, std::chrono::seconds(60)};
}

class BlockStreamTest : public testing::Test {
 protected:
  BlockStreamTest() {
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    ours_ = Descriptor(ends[0]);
    theirs_ = Descriptor(ends[1]);
    const auto source = test_layout(LayoutType::FullyContiguous, test_config(1000));
    fill_blocks(*source, 7);
    bytes_ = bytes_of(*source, 2);
    sum_ = sum_block(*source, 2).value();
    fill_blocks(*target_, 1);
    before_ = bytes_of(*target_, 1);
  }

  void send(std::size_t count) {
    const auto part = std::span(bytes_).first(count);
    ASSERT_TRUE(send_all(theirs_, part, {.deadline = Clock::now() + std::chrono::seconds(60)}));
  }
  Result<std::uint64_t> receive(const BlockCopy& copy, const BlockPatience& patience = patient()) {
    return receive_block(ours_, *target_, copy, staging_, patience);
  }
  Result<std::uint64_t> receive() { return receive({0, 1, sum_}); }
  // Whether the other end sees that it was given up.
  void expect_shut_down() {
    char byte = 0;
    EXPECT_EQ(::recv(theirs_.number(), &byte, 1, 0), 0);
    EXPECT_EQ(::send(theirs_.number(), &byte, 1, MSG_NOSIGNAL), -1);
    EXPECT_EQ(errno, EPIPE);
  }
  // An error that leaves the block zero, or as it was, and the connection of no use.
  void expect_failure(const Result<std::uint64_t>& answer, ErrorCode code, std::size_t came) {
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, code) << answer.error().to_string();
    expect_block(*target_, came > 0 ? zeros_like(bytes_) : before_, 1);
    expect_shut_down();
  }

  Descriptor ours_;
  Descriptor theirs_;
  std::vector<std::byte> bytes_;
  std::uint64_t sum_ = 0;
  std::vector<std::byte> before_;
  const std::shared_ptr<const Layout> target_ =
      test_layout(LayoutType::LayerSeparateOuterContiguous, test_config(1000));
  Staging staging_;
};

TEST_F(BlockStreamTest, ReceivesABlockAndNothingBehindIt) {
  send(bytes_.size());
  send(3);
  EXPECT_EQ(receive().value(), sum_);
  expect_block(*target_, bytes_, 1);
  std::byte behind[4];
  EXPECT_EQ(::recv(ours_.number(), behind, sizeof behind, 0), 3);
  EXPECT_TRUE(std::equal(behind, behind + 3, bytes_.begin()));
}

TEST_F(BlockStreamTest, AMismatchZeroesTheBlockAndTheConnectionGoesOn) {
  bytes_[17] ^= std::byte{4};
  send(bytes_.size());
  const auto answer = receive();
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::ChecksumMismatch);
  expect_block(*target_, zeros_like(bytes_), 1);
  bytes_[17] ^= std::byte{4};
  send(bytes_.size());
  EXPECT_EQ(receive().value(), sum_);
}

TEST_F(BlockStreamTest, AnEndInTheMiddleSaysHowMuchCame) {
  send(bytes_.size() - 1);
  ::shutdown(theirs_.number(), SHUT_WR);
  const auto answer = receive();
  expect_failure(answer, ErrorCode::OperationFailed, bytes_.size() - 1);
  EXPECT_EQ(answer.error().native, 0);
  EXPECT_EQ(answer.error().requested, bytes_.size());
  EXPECT_EQ(answer.error().available, bytes_.size() - 1);
}

TEST_F(BlockStreamTest, AnEndBeforeTheFirstByteLeavesTheBlockAsItWas) {
  ::shutdown(theirs_.number(), SHUT_WR);
  expect_failure(receive(), ErrorCode::OperationFailed, 0);
}

TEST_F(BlockStreamTest, ASilentSenderIsGivenUp) {
  send(100);
  const auto answer =
      receive({0, 1, sum_}, {{.deadline = Clock::now() + std::chrono::hours(1)}, milliseconds(1)});
  expect_failure(answer, ErrorCode::TimedOut, 100);
  EXPECT_EQ(answer.error().requested, bytes_.size());
  EXPECT_EQ(answer.error().available, 100u);
  EXPECT_NE(answer.error().message.find("silent"), std::string::npos);
}

TEST_F(BlockStreamTest, ADeadlineEndsEvenBytesThatCome) {
  send(bytes_.size());
  expect_failure(receive({0, 1, sum_}, {{.deadline = Clock::now()}, std::chrono::hours(1)}),
                 ErrorCode::TimedOut, 0);
}

TEST_F(BlockStreamTest, ADeadlineEndsAWait) {
  send(10);
  const auto answer =
      receive({0, 1, sum_}, {{.deadline = Clock::now() + milliseconds(2)}, std::chrono::hours(1)});
  expect_failure(answer, ErrorCode::TimedOut, answer.error().available);
  EXPECT_NE(answer.error().message.find("deadline"), std::string::npos);
}

TEST_F(BlockStreamTest, StoppingEndsItEvenIfAllIsThere) {
  const auto stop = StopSignal::create().value();
  stop.stop();
  send(bytes_.size());
  expect_failure(receive({0, 1, sum_}, {{patient().until.deadline, &stop}, milliseconds(60'000)}),
                 ErrorCode::Cancelled, 0);
}

TEST_F(BlockStreamTest, ATargetThatIsRefusedEndsTheConnectionToo) {
  send(bytes_.size());
  const auto answer = receive({0, 3, sum_});
  expect_failure(answer, ErrorCode::InvalidBlockIndex, 0);
  EXPECT_EQ(answer.error().requested, 3u);
  EXPECT_EQ(answer.error().available, 3u);
}

TEST_F(BlockStreamTest, ABlockWithoutASumIsRefused) {
  send(bytes_.size());
  expect_failure(receive({0, 1, std::nullopt}), ErrorCode::InvalidConfig, 0);
}

}  // namespace
}  // namespace kvbm::remote
