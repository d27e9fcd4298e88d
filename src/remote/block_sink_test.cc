#include "remote/block_sink.h"

#include <gtest/gtest.h>

#include <string>

#include "remote/test_remote_blocks.h"

namespace kvbm::remote {
namespace {

using Bytes = std::vector<std::byte>;

// The sum that others have of the same bytes, and the bytes.
struct Given {
  Bytes bytes;
  std::uint64_t sum;
};

Given given_block(std::size_t region_bytes) {
  const auto source = test_layout(LayoutType::FullyContiguous, test_config(region_bytes));
  fill_blocks(*source, 7);
  return {bytes_of(*source, 2), sum_block(*source, 2).value()};
}

TEST(BlockSinkTest, PutsPiecesOfAnySizeWhereTheyBelong) {
  // GTEST_RANDOM_SEED repeats a run.
  const int given_seed = GTEST_FLAG_GET(random_seed);
  const unsigned seed =
      given_seed != 0 ? static_cast<unsigned>(given_seed) : std::random_device()();
  SCOPED_TRACE("GTEST_RANDOM_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (const std::size_t region_bytes : {4u, 64u, 1000u, 4096u, 80'000u}) {
    const Given given = given_block(region_bytes);
    std::vector<std::shared_ptr<const Layout>> targets = {test_heads(region_bytes)};
    for (const LayoutType type : kTestTypes) {
      targets.push_back(test_layout(type, test_config(region_bytes)));
    }
    for (const auto& target : targets) {
      for (int round = 0; round < 6; ++round) {
        fill_blocks(*target, 1);
        BlockSink sink(*target, 1);
        const std::size_t most =
            round == 0 ? given.bytes.size() : 1 + random() % (3 * region_bytes);
        while (sink.left() > 0) {
          const std::size_t count = std::min(sink.left(), 1 + random() % most);
          sink.add(std::span(given.bytes).subspan(given.bytes.size() - sink.left(), count));
        }
        ASSERT_EQ(sink.finish(given.sum).value(), given.sum) << region_bytes;
        expect_block(*target, given.bytes, 1);
      }
    }
  }
}

TEST(BlockSinkTest, ZeroesABlockWhoseSumIsAnother) {
  Given given = given_block(1000);
  const auto target = test_layout(LayoutType::FullyContiguous, test_config(1000));
  for (const std::size_t damaged : {std::size_t{0}, given.bytes.size() - 1}) {
    fill_blocks(*target, 1);
    given.bytes[damaged] ^= std::byte{1};
    {
      BlockSink sink(*target, 1);
      sink.add(given.bytes);
      const auto answer = sink.finish(given.sum);
      ASSERT_FALSE(answer);
      EXPECT_EQ(answer.error().code, ErrorCode::ChecksumMismatch);
      EXPECT_EQ(bytes_of(*target, 1), zeros_like(given.bytes)) << "before anybody hears of it";
    }
    expect_block(*target, zeros_like(given.bytes), 1);
    given.bytes[damaged] ^= std::byte{1};
  }
}

TEST(BlockSinkTest, ZeroesABlockThatHasNotComeWhole) {
  const Given given = given_block(1000);
  const auto target = test_layout(LayoutType::LayerSeparateBlockContiguous, test_config(1000));
  for (const std::size_t came : {std::size_t{1}, given.bytes.size() - 1, given.bytes.size()}) {
    fill_blocks(*target, 1);
    {
      BlockSink(*target, 1).add(std::span(given.bytes).first(came));
    }
    expect_block(*target, zeros_like(given.bytes), 1);
  }
  fill_blocks(*target, 1);
  const Bytes before = bytes_of(*target, 1);
  {
    const BlockSink nothing_came(*target, 1);
  }
  expect_block(*target, before, 1);
}

}  // namespace
}  // namespace kvbm::remote
