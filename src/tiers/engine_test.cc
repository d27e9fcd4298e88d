#include "tiers/test_engine.h"

namespace kvbm::detail {
namespace {

using std::chrono::seconds;

TEST_F(TierEngineTest, ARegisteredBlockIsCopiedDownBothTiers) {
  build(4, 4, 4);
  put_test_block(*device_, 1, 0);
  ASSERT_EQ(started_.size(), 1u);
  EXPECT_EQ(started_[0].edge, Edge::DeviceToHost);
  EXPECT_FALSE(host_->store().contains(test_hash(1, 0))) << "not before the copy has ended";
  end_all_transfers();

  const auto in_host = match(host_->store(), test_chain(1, 1));
  ASSERT_EQ(in_host.size(), 1u);
  EXPECT_TRUE(is_test_block(*host_, in_host[0].id(), test_hash(1, 0)));
  EXPECT_TRUE(disk_->store().contains(test_hash(1, 0)));
  EXPECT_EQ(edge(Edge::DeviceToHost).blocks, 1u);
  EXPECT_EQ(edge(Edge::HostToDisk).blocks, 1u);
  EXPECT_EQ(edge(Edge::HostToDisk).bytes, disk_->layout()->content()->bytes());
  EXPECT_TRUE(engine_->idle());
}

TEST_F(TierEngineTest, WhatTheTierBelowHasIsNotCopiedAgain) {
  build(4, 4, 4);
  put_test_block(*device_, 1, 0);
  end_all_transfers();
  put_test_block(*device_, 1, 0);
  EXPECT_TRUE(started_.empty());
}

TEST_F(TierEngineTest, AFailedOffloadGivesItsBlockBackAndIsNeverVisible) {
  build(4, 4, 4);
  put_test_block(*device_, 1, 0);
  EXPECT_EQ(held(*host_), 1u);
  end_transfer(ErrorCode::OperationFailed);

  EXPECT_EQ(held(*host_), 0u);
  EXPECT_FALSE(host_->store().contains(test_hash(1, 0)));
  EXPECT_EQ(edge(Edge::DeviceToHost).failed, 1u);
  EXPECT_EQ(edge(Edge::DeviceToHost).blocks, 0u);
  EXPECT_TRUE(engine_->idle());
}

TEST_F(TierEngineTest, AnOffloadHoldsItsSourceUntilTheCopyHasEnded) {
  build(1, 4, 4);
  put_test_block(*device_, 1, 0);
  EXPECT_FALSE(allocate(device_->store(), 1).has_value()) << "the copy still reads it";
  end_transfer();
  EXPECT_TRUE(allocate(device_->store(), 1).has_value());
}

TEST_F(TierEngineTest, OnboardsFromHost) {
  build(4, 4, 4);
  store_chain(1, 3);
  const RequestId id = onboard(1, 3, Tier::Host);
  EXPECT_EQ(resident(*device_, 1, 3), 0u);
  end_all_transfers();

  ASSERT_EQ(answers_.count(id), 1u);
  for (std::uint32_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(answers_.at(id)[i].has_value());
    EXPECT_TRUE(is_test_block(*device_, answers_.at(id)[i]->id(), test_hash(1, i)));
  }
  EXPECT_EQ(match_run(device_->store(), test_chain(1, 3)).count(), 3u);
  EXPECT_EQ(edge(Edge::DeviceToHost).blocks, 0u) << "what came from below is not sent back";
}

TEST_F(TierEngineTest, OnboardsFromDiskThroughHostWhereTheBlocksStay) {
  build(4, 4, 4);
  store_chain(1, 3);
  drop_from_host();
  const RequestId id = onboard(1, 3, Tier::Disk);
  end_all_transfers();

  for (std::uint32_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(answers_.at(id)[i].has_value());
    EXPECT_TRUE(is_test_block(*device_, answers_.at(id)[i]->id(), test_hash(1, i)));
  }
  EXPECT_EQ(resident(*host_, 1, 3), 3u);
  EXPECT_EQ(edge(Edge::DiskToHost).blocks, 3u);
}

TEST_F(TierEngineTest, AFailedBlockIsReportedAndTheOthersAreUsable) {
  build(4, 4, 4);
  store_chain(1, 3);
  const RequestId id = onboard(1, 3, Tier::Host);
  end_transfer();
  end_transfer(ErrorCode::OperationFailed);
  end_transfer();

  const auto& blocks = answers_.at(id);
  EXPECT_TRUE(blocks[0].has_value());
  ASSERT_FALSE(blocks[1].has_value());
  EXPECT_EQ(blocks[1].error().code, ErrorCode::OperationFailed);
  EXPECT_TRUE(blocks[2].has_value());
  EXPECT_EQ(match_run(device_->store(), test_chain(1, 3)).count(), 1u);
  EXPECT_EQ(edge(Edge::HostToDevice).failed, 1u);
}

TEST_F(TierEngineTest, WrongBytesInHostAreAMissAndAQuarantine) {
  build(4, 4, 4);
  store_chain(1, 2);
  {
    const auto blocks = match(host_->store(), test_chain(1, 2));
    host_->layout()->region(blocks[1].id(), 1, 1).value().data()[5] ^= std::byte{1};
  }
  const RequestId id = onboard(1, 2, Tier::Host);
  end_all_transfers();

  EXPECT_TRUE(answers_.at(id)[0].has_value());
  ASSERT_FALSE(answers_.at(id)[1].has_value());
  EXPECT_EQ(answers_.at(id)[1].error().code, ErrorCode::ChecksumMismatch);
  EXPECT_EQ(engine_->stats().checksum_mismatches, 1u);
  EXPECT_FALSE(device_->store().contains(test_hash(1, 1)));
  EXPECT_FALSE(host_->store().contains(test_hash(1, 1))) << "never matched again";
  EXPECT_TRUE(disk_->store().contains(test_hash(1, 1))) << "the good copy stays";
}

TEST_F(TierEngineTest, WrongBytesOnDiskAreAMissAndAQuarantine) {
  build(4, 4, 4);
  store_chain(1, 1);
  drop_from_host();
  {
    const auto blocks = match(disk_->store(), test_chain(1, 1));
    const Region extent = disk_->layout()->extent(blocks[0].id());
    std::vector<std::byte> page(8192);  // one aligned page somewhere in it
    auto* aligned = reinterpret_cast<std::byte*>(
        (reinterpret_cast<std::uintptr_t>(page.data()) + 4095) & ~std::uintptr_t{4095});
    File& file = *extent.memory->file();
    ASSERT_TRUE(file.read({aligned, 4096}, extent.offset).has_value());
    aligned[17] ^= std::byte{0x40};
    ASSERT_TRUE(file.write({aligned, 4096}, extent.offset).has_value());
  }
  const RequestId id = onboard(1, 1, Tier::Disk);
  end_all_transfers();

  ASSERT_FALSE(answers_.at(id)[0].has_value());
  EXPECT_EQ(answers_.at(id)[0].error().code, ErrorCode::ChecksumMismatch);
  EXPECT_FALSE(disk_->store().contains(test_hash(1, 0)));
  EXPECT_FALSE(host_->store().contains(test_hash(1, 0)));
}

TEST_F(TierEngineTest, ARequestEndsAtItsDeadlineAndLateBytesStayInvisible) {
  build(4, 4, 4);
  store_chain(1, 2);
  const RequestId id = onboard(1, 2, Tier::Host, {.deadline = now_ + seconds(5)});
  EXPECT_EQ(engine_->next_deadline(), now_ + seconds(5));
  end_transfer();
  now_ += seconds(5);
  step(ClockTicked{});

  EXPECT_TRUE(answers_.at(id)[0].has_value()) << "what came in time counts";
  ASSERT_FALSE(answers_.at(id)[1].has_value());
  EXPECT_EQ(answers_.at(id)[1].error().code, ErrorCode::TimedOut);
  EXPECT_EQ(engine_->stats().requests_timed_out, 1u);
  answers_.clear();
  EXPECT_TRUE(started_[0].cancelled->load());
  EXPECT_EQ(held(*device_), 1u) << "the late copy keeps its target until it has ended";

  end_transfer();
  EXPECT_EQ(held(*device_), 0u);
  EXPECT_FALSE(device_->store().contains(test_hash(1, 1)));
  EXPECT_TRUE(engine_->idle());
}

TEST_F(TierEngineTest, ACancelledRequestEndsAtOnceAndLateBytesStayInvisible) {
  build(4, 4, 4);
  store_chain(1, 2);
  drop_from_host();
  const RequestId id = onboard(1, 2, Tier::Disk);
  step(RequestCancelled{id});
  step(RequestCancelled{id});  // twice is once

  for (const auto& block : answers_.at(id)) {
    ASSERT_FALSE(block.has_value());
    EXPECT_EQ(block.error().code, ErrorCode::Cancelled);
  }
  end_all_transfers();
  EXPECT_EQ(resident(*host_, 1, 2), 0u);
  EXPECT_EQ(resident(*device_, 1, 2), 0u);
  EXPECT_EQ(held(*host_) + held(*device_), 0u);
}

TEST_F(TierEngineTest, MoreDiskBlocksThanHostHasRoomForGoThroughInTurns) {
  build(8, 2, 8);
  for (std::uint32_t i = 0; i < 8; ++i) {
    put_test_block(*host_, 1, i);
    end_all_transfers();
  }
  drop_from_host();
  const RequestId id = onboard(1, 8, Tier::Disk);
  end_all_transfers();
  ASSERT_EQ(answers_.count(id), 1u);
  for (const auto& block : answers_.at(id)) EXPECT_TRUE(block.has_value());
}

TEST_F(TierEngineTest, AHostTierFullOfHeldBlocksFailsTheLoadInsteadOfWaiting) {
  build(4, 2, 4);
  store_chain(1, 1);
  drop_from_host();
  const auto all = allocate(host_->store(), 2).value();
  const RequestId id = onboard(1, 1, Tier::Disk);
  ASSERT_EQ(answers_.count(id), 1u);
  EXPECT_EQ(answers_.at(id)[0].error().code, ErrorCode::NotEnoughBlocksAvailable);
}

TEST_F(TierEngineTest, ABlockThatReachedHostMeanwhileIsNotReadFromDisk) {
  build(4, 4, 4);
  store_chain(1, 1);
  const RequestId id = onboard(1, 1, Tier::Disk);  // although host has it
  end_all_transfers();
  EXPECT_TRUE(answers_.at(id)[0].has_value());
  EXPECT_EQ(edge(Edge::DiskToHost).blocks, 0u);
}

TEST_F(TierEngineTest, ARequestForNothingIsAnsweredAtOnce) {
  build(1, 1, 1);
  step(RequestStarted{.id = 7, .items = {}, .deadline = now_ + seconds(1)});
  ASSERT_EQ(answers_.count(7), 1u);
  EXPECT_TRUE(answers_.at(7).empty());
}

TEST_F(TierEngineTest, CloseEndsEverythingAndRefusesWhatComesLater) {
  build(4, 4, 4);
  store_chain(1, 1);
  const RequestId running = onboard(1, 1, Tier::Host);
  put_test_block(*device_, 2, 0);
  step(CloseRequested{});
  EXPECT_EQ(answers_.at(running)[0].error().code, ErrorCode::Cancelled);
  end_all_transfers();
  EXPECT_TRUE(engine_->idle());

  const RequestId late = onboard(1, 1, Tier::Host);
  EXPECT_EQ(answers_.at(late)[0].error().code, ErrorCode::ProgressEngineShutdown);
  put_test_block(*device_, 3, 0);
  EXPECT_TRUE(started_.empty());
}

TEST_F(TierEngineTest, AnUnknownTransferEndChangesNothing) {
  build(1, 1, 1);
  step(TransferEnded{99, {}});
  EXPECT_TRUE(engine_->idle());
}

}  // namespace
}  // namespace kvbm::detail
