#include "tiers/test_engine.h"

namespace kvbm::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Blocks of 4 tokens, computed at 1,000 tokens a second: 4 ms each.
constexpr double kRate = 1000;

class EngineGovernorTest : public TierEngineTest {
 protected:
  explicit EngineGovernorTest(std::size_t onboards_in_flight = 1)
      : TierEngineTest({.blocks_per_transfer = 1,
                        .onboards_in_flight = onboards_in_flight,
                        .device_offload = {.mode = OffloadMode::Selective}}) {}

  // So that the path from host to device is known to take so long per block.
  void measure(milliseconds per_block, std::uint64_t conversation = 90) {
    for (int i = 0; i < 16; ++i) {
      onboard(conversation, 1, Tier::Host);
      if (started_.empty()) break;  // the device has it
      now_ += per_block;
      end_transfer();
      answers_.clear();
      // That the next one loads it again.
      device_->reset(std::nullopt);
    }
  }

  void SetUp() override {
    build(8, 16, 16);
    store_chain(1, 6);
    store_chain(90, 1);
  }
};

TEST_F(EngineGovernorTest, WithoutARateEverythingIsLoaded) {
  measure(milliseconds(400));
  const RequestId id = onboard(1, 6, Tier::Host);
  end_all_transfers();
  for (const auto& block : answers_.at(id)) EXPECT_TRUE(block.has_value());
  EXPECT_EQ(engine_->stats().blocks_not_loaded, 0u);
}

TEST_F(EngineGovernorTest, WhatIsLoadedSoonerIsLoaded) {
  measure(milliseconds(1));
  const RequestId id = onboard(1, 6, Tier::Host, {.prefill_tokens_per_second = kRate});
  while (!started_.empty()) {
    now_ += milliseconds(1);
    end_transfer();
  }
  for (const auto& block : answers_.at(id)) EXPECT_TRUE(block.has_value());
  EXPECT_EQ(engine_->stats().loads_refused + engine_->stats().loads_cut, 0u);
}

TEST_F(EngineGovernorTest, WhatIsComputedSoonerIsNotLoadedAndHoldsNothing) {
  measure(milliseconds(400));
  const RequestId id = onboard(1, 6, Tier::Host, {.prefill_tokens_per_second = kRate});
  ASSERT_EQ(answers_.count(id), 1u) << "at once";
  EXPECT_EQ(errors(id), (std::vector<std::optional<ErrorCode>>(6, ErrorCode::CheaperToCompute)));
  EXPECT_TRUE(started_.empty());
  EXPECT_EQ(held(*device_) + held(*host_), 0u);
  EXPECT_EQ(engine_->stats().loads_refused, 1u);
  EXPECT_EQ(engine_->stats().blocks_not_loaded, 6u);
}

TEST_F(EngineGovernorTest, APrefixIsSplitWhereItBecomesSlow) {
  // From host a block takes 1 ms; from disk 400 ms.
  measure(milliseconds(1));
  drop_from_host();
  onboard(90, 1, Tier::Disk);
  now_ += milliseconds(400);
  end_transfer();
  end_all_transfers();
  // The first two come to host again, the others stay on disk.
  onboard(1, 2, Tier::Disk);
  end_all_transfers();
  device_->reset(std::nullopt);
  answers_.clear();

  RequestStarted request{.items = items_of(1, 2, Tier::Host), .prefill_tokens_per_second = kRate};
  auto on_disk = items_of(1, 6, Tier::Disk);
  for (std::size_t i = 2; i < 6; ++i) request.items.push_back(std::move(on_disk[i]));
  on_disk.clear();
  for (RequestItem& item : request.items) {
    item.target = std::move(allocate(device_->store(), 1).value().front());
  }
  const RequestId id = start(std::move(request));
  end_all_transfers();

  const auto answers = errors(id);
  EXPECT_EQ(answers[0], std::nullopt);
  EXPECT_EQ(answers[1], std::nullopt);
  for (std::size_t i = 2; i < 6; ++i) EXPECT_EQ(answers[i], ErrorCode::CheaperToCompute) << i;
  EXPECT_EQ(engine_->stats().loads_split, 1u);
  EXPECT_EQ(engine_->stats().blocks_not_loaded, 4u);
}

TEST_F(EngineGovernorTest, ALoadThatFallsBehindIsCut) {
  measure(milliseconds(1));
  const RequestId id = onboard(1, 6, Tier::Host, {.prefill_tokens_per_second = kRate});
  now_ += milliseconds(1);
  end_transfer();
  ASSERT_EQ(answers_.count(id), 0u);
  // Five blocks are computed in 20 ms; nothing arrives for longer than that.
  const auto next = engine_->next_deadline();
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(*next, now_ + milliseconds(20));
  now_ = *next;
  step(ClockTicked{});

  ASSERT_EQ(answers_.count(id), 1u);
  const auto answers = errors(id);
  EXPECT_EQ(answers[0], std::nullopt) << "what has come is there";
  for (std::size_t i = 1; i < 6; ++i) EXPECT_EQ(answers[i], ErrorCode::CheaperToCompute) << i;
  EXPECT_EQ(engine_->stats().loads_cut, 1u);
  EXPECT_TRUE(started_.front().cancelled->load());
  EXPECT_EQ(held(*device_), 2u) << "the answer's, and the copy's, which still runs";
  end_all_transfers();
  answers_.clear();
  EXPECT_EQ(held(*device_), 0u);
  EXPECT_TRUE(engine_->idle());
}

TEST_F(EngineGovernorTest, BlocksThatTheDeviceHasAreWorthTheirTokens) {
  measure(milliseconds(10));
  // One block at 10 ms against 4 ms; but 3 blocks that the device has follow it.
  RequestStarted request{.items = items_of(1, 1, Tier::Host), .prefill_tokens_per_second = kRate};
  request.items.front().target = std::move(allocate(device_->store(), 1).value().front());
  request.items.front().tokens = 16;
  const RequestId id = start(std::move(request));
  now_ += milliseconds(10);
  end_all_transfers();
  EXPECT_TRUE(answers_.at(id).front().has_value());
}

TEST_F(EngineGovernorTest, ALoadWaitsForWhatIsBeforeIt) {
  measure(milliseconds(1));
  store_chain(2, 6);
  answers_.clear();
  onboard(2, 6, Tier::Host, {.deadline = now_ + seconds(100)});  // at any price
  // Alone it would take 1 ms against 4; behind six others it takes 7.
  const RequestId id = onboard(1, 1, Tier::Host, {.prefill_tokens_per_second = kRate});
  ASSERT_EQ(answers_.count(id), 1u);
  EXPECT_EQ(answers_.at(id).front().error().code, ErrorCode::CheaperToCompute);
}

TEST_F(EngineGovernorTest, LayersAreMeasuredAndCutToo) {
  measure(milliseconds(1));
  const RequestId id =
      onboard(1, 2, Tier::Host, {.layerwise = true, .prefill_tokens_per_second = kRate});
  ASSERT_EQ(started_.size(), 1u);
  now_ = *engine_->next_deadline();
  step(ClockTicked{});
  ASSERT_EQ(answers_.count(id), 1u);
  EXPECT_EQ(errors(id), (std::vector<std::optional<ErrorCode>>(2, ErrorCode::CheaperToCompute)));
  end_all_transfers();
  EXPECT_EQ(held(*device_) + held(*host_), 0u);
  EXPECT_TRUE(engine_->idle());
}

class TwoAtOnceTest : public EngineGovernorTest {
 protected:
  TwoAtOnceTest() : EngineGovernorTest(2) {}
};

TEST_F(TwoAtOnceTest, ALoadByLayersIsMeasuredWithAllItsBlocks) {
  // Two groups of two blocks, each verified and then copied in two layers: 3 ms a block.
  onboard(1, 4, Tier::Host, {.layerwise = true});
  for (int i = 0; i < 6; ++i) {
    ASSERT_FALSE(started_.empty());
    now_ += milliseconds(2);
    end_transfer();
  }
  ASSERT_TRUE(started_.empty());
  answers_.clear();
  device_->reset(std::nullopt);
  onboard(1, 4, Tier::Host, {.prefill_tokens_per_second = kRate});
  EXPECT_EQ(engine_->stats().loads_refused, 0u) << "3 ms are less than 4";
  end_all_transfers();
}

}  // namespace
}  // namespace kvbm::detail
