#include "remote/cma.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <functional>

#include "platform/os/test_child.h"
#include "remote/test_remote_blocks.h"

namespace kvbm::remote {
namespace {

using Clock = std::chrono::steady_clock;

Until soon() { return {.deadline = Clock::now() + std::chrono::seconds(60)}; }

// A source whose bytes only the child has, and what block 2 of it is.
struct Source {
  explicit Source(std::shared_ptr<const Layout> given, const std::function<void()>& more = {})
      : layout(std::move(given)), child([&] {
          fill_blocks(*layout, 7);
          if (more) more();
        }) {
    const auto same = test_layout(LayoutType::FullyContiguous, test_config(region_bytes()));
    fill_blocks(*same, 7);
    // The order in which bytes are filled is that of the content.
    bytes = bytes_of(*same, 2);
    sum = sum_block(*same, 2).value();
  }
  std::size_t region_bytes() const { return layout->content()->regions()[0].bytes; }
  TierBlocks blocks() const { return TierBlocks::of(Tier::Host, *layout).value(); }

  std::shared_ptr<const Layout> layout;
  TestChild child;
  std::vector<std::byte> bytes;
  std::uint64_t sum;
};

TEST(CmaReaderTest, PullsBetweenLayoutsOfAllKinds) {
  Staging staging;
  for (const std::size_t region_bytes : {64u, 1000u, 96'000u}) {
    std::vector<std::shared_ptr<const Layout>> sources = {test_heads(region_bytes)};
    for (const auto type : kTestTypes)
      sources.push_back(test_layout(type, test_config(region_bytes)));
    for (const auto& layout : sources) {
      const Source source(layout);
      for (const auto& target :
           {test_layout(LayoutType::FullyContiguous, test_config(region_bytes)),
            test_layout(LayoutType::LayerSeparateOuterContiguous, test_config(region_bytes)),
            test_heads(region_bytes)}) {
        fill_blocks(*target, 1);
        const auto reader =
            CmaReader::open(source.child.identity(), source.blocks(), target).value();
        EXPECT_EQ(reader.pull({2, 1, source.sum}, staging, soon()).value(), source.sum);
        expect_block(*target, source.bytes, 1);
      }
    }
  }
}

// Runs of two bytes, so that a piece is cut by their number and not by their bytes.
TEST(CmaReaderTest, PullsBlocksOfMoreRunsThanOneCallTakes) {
  constexpr std::size_t kHeads = 2000;
  const auto tensors = [](std::uint64_t address) {
    KvTensors all;
    all.tensors.push_back({.axes = "HBNC",
                           .shape = {kHeads, kTestBlocks, 1, 2},
                           .dtype = DType::INT8,
                           .address = address,
                           .storage = {StorageType::Kind::System, 0}});
    return all;
  };
  const auto theirs = SystemAllocator().allocate(2 * kHeads * kTestBlocks).value().memory();
  const auto ours = SystemAllocator().allocate(2 * kHeads * kTestBlocks).value().memory();
  const auto source = Layout::from_tensors(tensors(theirs->address())).value();
  const auto target = Layout::from_tensors(tensors(ours->address())).value();
  ASSERT_EQ(source->fragments().size(), kHeads);
  const TestChild child([&] { fill_blocks(*source, 7); });
  fill_blocks(*target, 7);
  const auto expected = bytes_of(*target, 2);
  const std::uint64_t sum = sum_block(*target, 2).value();
  fill_blocks(*target, 1);
  Staging staging;
  const auto reader =
      CmaReader::open(child.identity(), TierBlocks::of(Tier::Host, *source).value(), target)
          .value();
  EXPECT_EQ(reader.pull({2, 1, sum}, staging, soon()).value(), sum);
  expect_block(*target, expected, 1);
}

class CmaPullTest : public testing::Test {
 protected:
  const std::shared_ptr<const Layout> target_ =
      test_layout(LayoutType::FullyContiguous, test_config(1000));
  Source source_{test_layout(LayoutType::FullyContiguous, test_config(1000))};
  Staging staging_;

  CmaReader open() const {
    fill_blocks(*target_, 1);
    return CmaReader::open(source_.child.identity(), source_.blocks(), target_).value();
  }
  Error pull_error(const CmaReader& reader, const BlockCopy& copy, const Until& until = soon()) {
    return reader.pull(copy, staging_, until).error();
  }
  std::vector<std::byte> zeros() const { return zeros_like(source_.bytes); }
  static std::vector<std::byte> before() {
    const auto layout = test_layout(LayoutType::FullyContiguous, test_config(1000));
    fill_blocks(*layout, 1);
    return bytes_of(*layout, 1);
  }
};

TEST_F(CmaPullTest, ZeroesWhatDoesNotMatchItsSum) {
  const auto reader = open();
  // Another block than the sum is of: what it looks like when the owner used the place again.
  EXPECT_EQ(pull_error(reader, {1, 1, source_.sum}).code, ErrorCode::ChecksumMismatch);
  expect_block(*target_, zeros(), 1);
}

TEST_F(CmaPullTest, RefusesBlocksThatDoNotExistAndBlocksWithoutASum) {
  const auto reader = open();
  Error error = pull_error(reader, {3, 1, source_.sum});
  EXPECT_EQ(error.code, ErrorCode::InvalidBlockIndex);
  EXPECT_EQ(error.requested, 3u);
  EXPECT_EQ(error.available, 3u);
  error = pull_error(reader, {2, 3, source_.sum});
  EXPECT_EQ(error.code, ErrorCode::InvalidBlockIndex);
  EXPECT_EQ(pull_error(reader, {2, 1, std::nullopt}).code, ErrorCode::InvalidConfig);
  expect_block(*target_, before(), 1);
}

TEST_F(CmaPullTest, EndsWhenItIsStoppedAndAtItsDeadline) {
  const auto reader = open();
  const auto stop = StopSignal::create().value();
  stop.stop();
  EXPECT_EQ(pull_error(reader, {2, 1, source_.sum}, {soon().deadline, &stop}).code,
            ErrorCode::Cancelled);
  EXPECT_EQ(pull_error(reader, {2, 1, source_.sum}, {Clock::now()}).code, ErrorCode::TimedOut);
  expect_block(*target_, before(), 1);
}

TEST_F(CmaPullTest, TellsThatTheOwnerHasEnded) {
  const auto reader = open();
  source_.child.kill();
  const Error error = pull_error(reader, {2, 1, source_.sum});
  EXPECT_EQ(error.code, ErrorCode::SourceGone);
  EXPECT_EQ(error.native, ESRCH);
  expect_block(*target_, before(), 1);
}

TEST_F(CmaPullTest, IsNotOpenedOnBlocksOfOtherContentOrMemoryThatIsNotThere) {
  const auto open_error = [&](const TierBlocks& blocks, const LayoutConfig& config) {
    return CmaReader::open(source_.child.identity(), blocks,
                           test_layout(LayoutType::FullyContiguous, config))
        .error();
  };
  LayoutConfig other = test_config(1000);
  other.num_layers = 4;
  EXPECT_EQ(open_error(source_.blocks(), other).message, "blocks there have 6 regions, here 8");
  EXPECT_EQ(open_error(source_.blocks(), test_config(999)).message,
            "region 0 has 1000 bytes there, here 999");
  TierBlocks blocks = source_.blocks();
  blocks.storage = {StorageType::Kind::Device, 0};
  EXPECT_EQ(open_error(blocks, test_config(1000)).code, ErrorCode::NotAccessible);
  blocks = source_.blocks();
  blocks.memories[0].address = 4096;  // nobody has memory there
  const Error error = open_error(blocks, test_config(1000));
  EXPECT_EQ(error.code, ErrorCode::OperationFailed);
  EXPECT_EQ(error.native, EFAULT);
}

// The owner gave a part of its memory back after the reader was opened.
TEST(CmaReaderTest, ZeroesABlockOfWhichOnlyAPartIsThere) {
  constexpr std::size_t kRegion = 100'000;  // a block is several pieces, and pages
  const auto layout = test_layout(LayoutType::FullyContiguous, test_config(kRegion));
  const auto target = test_layout(LayoutType::FullyContiguous, test_config(kRegion));
  const Source source(layout, [&] {
    std::byte* const end = layout->extent(2).data() + layout->content()->bytes() - 4096;
    const auto page = reinterpret_cast<std::uintptr_t>(end) / 4096 * 4096 - 8192;
    ::munmap(reinterpret_cast<void*>(page), 4096);
  });
  fill_blocks(*target, 1);
  const auto reader = CmaReader::open(source.child.identity(), source.blocks(), target).value();
  Staging staging;
  const auto answer = reader.pull({2, 1, source.sum}, staging, soon());
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().native, EFAULT);
  expect_block(*target, zeros_like(source.bytes), 1);
}

}  // namespace
}  // namespace kvbm::remote
