#include <gtest/gtest.h>
#include <sys/socket.h>

#include <latch>
#include <thread>

#include "remote/block_stream.h"
#include "remote/test_remote_blocks.h"

namespace kvbm::remote {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kRegionBytes = 300'000;  // a block is more than a socket holds

Until soon() { return {.deadline = Clock::now() + std::chrono::seconds(60)}; }

struct Ends {
  Ends() {
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    reader = Descriptor(ends[0]);
    writer = Descriptor(ends[1]);
  }
  Descriptor reader;
  Descriptor writer;
};

TEST(BlockStreamStressTest, ManyBlocksComeWholeWhileTheyAreSent) {
  constexpr int kBlocks = 12;
  const auto source = test_layout(LayoutType::FullyContiguous, test_config(kRegionBytes));
  fill_blocks(*source, 7);
  const auto bytes = bytes_of(*source, 2);
  const std::uint64_t sum = sum_block(*source, 2).value();
  const Ends ends;
  std::jthread sender([&] {
    for (int i = 0; i < kBlocks; ++i) ASSERT_TRUE(send_all(ends.writer, bytes, soon()));
  });
  const auto target =
      test_layout(LayoutType::LayerSeparateBlockContiguous, test_config(kRegionBytes));
  Staging staging;
  for (int i = 0; i < kBlocks; ++i) {
    fill_blocks(*target, 1);
    ASSERT_EQ(receive_block(ends.reader, *target, {0, 1, sum}, staging,
                            {soon(), std::chrono::seconds(60)})
                  .value(),
              sum);
    expect_block(*target, bytes, 1);
  }
}

// A receiver that waits for a sender that has stopped in the middle.
TEST(BlockStreamStressTest, AStopWakesAWaitInTheMiddleOfABlock) {
  const auto target = test_layout(LayoutType::FullyContiguous, test_config(kRegionBytes));
  fill_blocks(*target, 1);
  const std::vector<std::byte> part(1000);
  const Ends ends;
  ASSERT_TRUE(send_all(ends.writer, part, soon()));
  const auto stop = StopSignal::create().value();
  std::latch begun(1);
  Result<std::uint64_t> answer = std::uint64_t{0};
  {
    std::jthread receiver([&] {
      Staging staging;
      begun.count_down();
      answer = receive_block(ends.reader, *target, {0, 1, 1}, staging,
                             {{soon().deadline, &stop}, std::chrono::seconds(60)});
    });
    begun.wait();
    stop.stop();
  }
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::Cancelled);
  char byte = 0;
  EXPECT_EQ(::send(ends.writer.number(), &byte, 1, MSG_NOSIGNAL), -1) << "shut down";
}

// The sender goes away at any byte; the receiver must end with an error, and a target that is zero
// or as it was.
TEST(BlockStreamStressTest, ASenderThatDiesLeavesNoPartOfABlock) {
  std::mt19937_64 random(3);
  const auto target = test_layout(LayoutType::FullyContiguous, test_config(kRegionBytes));
  const std::vector<std::byte> bytes(target->content()->bytes(), std::byte{9});
  const std::uint64_t sum = 1;
  Staging staging;
  for (int round = 0; round < 8; ++round) {
    fill_blocks(*target, 1);
    const auto before = bytes_of(*target, 1);
    Ends ends;
    const std::size_t count = round == 0 ? 0 : random() % bytes.size();
    std::jthread sender([&] {
      ASSERT_TRUE(send_all(ends.writer, std::span(bytes).first(count), soon()));
      ::shutdown(ends.writer.number(), SHUT_RDWR);
    });
    const auto answer = receive_block(ends.reader, *target, {0, 1, sum}, staging,
                                      {soon(), std::chrono::seconds(60)});
    sender.join();
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::OperationFailed);
    expect_block(*target, count == 0 ? before : zeros_like(bytes), 1);
  }
}

}  // namespace
}  // namespace kvbm::remote
