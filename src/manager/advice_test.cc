#include "manager/advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "manager/test_manager.h"
#include "platform/os/fake_file.h"

namespace kvbm::detail {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::size_t kBlock = 2 << 20;

TEST(AdviceTest, TiersThatGrowDownwardsNeedNone) {
  EXPECT_THAT(advice(test_config(8, 8, 16), kBlock, std::nullopt), IsEmpty());
  EXPECT_THAT(advice(test_config(8, 0, 16), kBlock, std::nullopt), IsEmpty());
  EXPECT_THAT(advice(test_config(8, 0, 0), kBlock, std::nullopt), IsEmpty());
}

TEST(AdviceTest, AHostTierSmallerThanTheDeviceHasNothingOfItsOwn) {
  EXPECT_THAT(
      advice(test_config(16, 8, 0), kBlock, std::nullopt),
      ElementsAre("warning: the host tier (8 blocks, 16 MiB) is smaller than the device tier (16 "
                  "blocks, 32 MiB), which writes every block through to it: it has little that is "
                  "not above it. Give it more than 16 blocks, or set device_layout.offload.mode to "
                  "on-eviction"));
}

TEST(AdviceTest, ADiskTierSmallerThanTheTierAboveHasNothingOfItsOwn) {
  EXPECT_THAT(advice(test_config(4, 8, 6), kBlock, std::nullopt),
              ElementsAre(AllOf(HasSubstr("the disk tier (6 blocks, 12 MiB) is smaller than the "
                                          "host tier (8 blocks, 16 MiB)"),
                                HasSubstr("set host_layout.offload.mode"))));
  EXPECT_THAT(advice(test_config(8, 0, 6), kBlock, std::nullopt),
              ElementsAre(HasSubstr("is smaller than the device tier (8 blocks, 16 MiB)")));
  EXPECT_EQ(advice(test_config(8, 4, 2), kBlock, std::nullopt).size(), 2u);
}

TEST(AdviceTest, ASmallTierThatChoosesItsBlocksMayHelp) {
  KvBlockManagerConfig config = test_config(16, 8, 0);
  for (const OffloadMode mode : {OffloadMode::OnEviction, OffloadMode::Selective}) {
    config.device_layout->offload.mode = mode;
    EXPECT_THAT(advice(config, kBlock, std::nullopt), IsEmpty());
  }
  config.device_layout->offload = {.admission = {.rule = AdmissionRule::SecondUse}};
  EXPECT_THAT(advice(config, kBlock, std::nullopt), IsEmpty());
  config.device_layout->offload = {};
  config.device_layout->external = true;
  EXPECT_THAT(advice(config, kBlock, std::nullopt), IsEmpty()) << "the engine chooses";
  config = test_config(16, 8, 0);
  config.device_layout->allocator = nullptr;
  config.device_layout->logical = BlockParallelismStrategy::LeaderWorkerSharded;
  EXPECT_THAT(advice(config, kBlock, std::nullopt), IsEmpty()) << "nothing moves";
}

TEST(AdviceTest, ADiskSlowerThanComputingIsOfNoUse) {
  KvBlockManagerConfig config = test_config();
  config.runtime.prefill_tokens_per_second = 2000;  // 4 tokens in 2 ms: 2 MiB at 1.05 GB/s
  EXPECT_THAT(
      advice(config, kBlock, 100e6),
      ElementsAre("warning: the disk tier is slower than computing: a block of 2 MiB is read in 21 "
                  "ms (100 MB/s) and computed in 2 ms (runtime.prefill_tokens_per_second is 2000). "
                  "Use a disk of at least 1.05 GB/s, or leave disk_layout out"));
  EXPECT_THAT(advice(config, kBlock, 1.04e9), testing::SizeIs(1));
  EXPECT_THAT(advice(config, kBlock, 1.05e9), IsEmpty());
  EXPECT_THAT(advice(config, kBlock, std::nullopt), IsEmpty()) << "nobody knows";
  config.runtime.prefill_tokens_per_second = 0;
  EXPECT_THAT(advice(config, kBlock, 1), IsEmpty()) << "nobody knows";
}

TEST(AdviceTest, AManagerTellsItsLogOnce) {
  std::vector<std::string> lines;
  KvBlockManagerConfig config = test_config(16, 8, 0);
  config.runtime.log = [&](const std::string& line) { lines.push_back(line); };
  ReferenceBlockManager::create(config).value();
  EXPECT_THAT(lines, ElementsAre(HasSubstr("the host tier (8 blocks, 2 KiB) is smaller")));
}

class MeasureReadsTest : public testing::Test {
 protected:
  static constexpr std::size_t kMiB = std::size_t{1} << 20;
  std::optional<double> measure(std::uint64_t used_bytes) {
    return measure_reads(file_, *queue_, used_bytes);
  }
  // Where the last byte was that a call of this kind touched.
  void watch(FakeFile::Op op, std::uint64_t& end) {
    file_.set_hook([op, &end](const FakeFile::Call& call) {
      if (call.op == op) end = std::max(end, call.offset + call.bytes);
      return FakeFile::Fault{};
    });
  }
  FakeFile file_{64 * kMiB, 4096};
  const std::unique_ptr<IoQueue> queue_ = create_blocking_queue(32);
};

TEST_F(MeasureReadsTest, OnlyWhatIsUsedIsReadAndNothingIsWritten) {
  std::uint64_t end = 0;
  watch(FakeFile::Op::Read, end);
  EXPECT_GT(measure(5 * kMiB).value(), 0);
  EXPECT_EQ(end, 4 * kMiB);
  EXPECT_EQ(file_.writes(), 0u);
}

TEST_F(MeasureReadsTest, AFileThatWasNeverUsedIsFilledFirst) {
  std::uint64_t end = 0;
  watch(FakeFile::Op::Write, end);
  EXPECT_GT(measure(0).value(), 0);
  EXPECT_GE(end, 4 * kMiB);
  EXPECT_LE(end, 16 * kMiB);
  EXPECT_LE(file_.reads(), file_.writes());
}

TEST_F(MeasureReadsTest, WhatCannotBeToldIsNotTold) {
  EXPECT_FALSE(measure(3 * kMiB).has_value()) << "too little";
  FakeFile small(3 * kMiB, 4096);
  EXPECT_FALSE(measure_reads(small, *queue_, 0).has_value());
  FakeFile buffered(64 * kMiB, 1);
  EXPECT_FALSE(measure_reads(buffered, *queue_, 0).has_value());
  EXPECT_EQ(buffered.writes(), 0u);
  for (const FakeFile::Op op : {FakeFile::Op::Write, FakeFile::Op::Read}) {
    file_.set_hook([op](const FakeFile::Call& call) {
      return call.op == op && call.offset > 0 ? FakeFile::fails(EIO) : FakeFile::Fault{};
    });
    EXPECT_FALSE(measure(0).has_value());
  }
}

}  // namespace
}  // namespace kvbm::detail
