// One suite for all executors: every kind of memory on both sides, every layout, ranges of layers
// and odd sizes. What a copy must have done is said byte by byte, by an oracle that knows where a
// region's bytes lie and nothing of plans; all bytes of both memories are compared, so that what
// lies around a block is its guard.
//
// KVBM_SEED repeats a run.
#include <gtest/gtest.h>

#include "executors/executor_fixture.h"

namespace kvbm {
namespace {

const Content kContents[] = {
    {"one byte", 1, 1, 1, 1, 1},
    {"odd bytes", 3, 2, 2, 3, 7},
    {"layers of different sizes", 4, 2, 1, 5, 33, true},
    {"MLA in 8 bits, 656 bytes a token", 2, 1, 1, 16, 656},
    {"stripes and a bit", 2, 2, 2, 16, 65},
    {"32 KiB regions", 2, 2, 4, 16, 512},
};

// The layouts on a side, given the kind of the other side.
std::vector<Shape> shapes_of(Kind kind, Kind other) {
  const bool with_file = kind == Kind::Memory && other == Kind::File;
  if (kind == Kind::File || with_file) return {Shape::Contiguous};
  return {Shape::Contiguous, Shape::LayersApart, Shape::BlocksFirst, Shape::HeadsApart};
}

class ExecutorTest : public ExecutorFixture {
 protected:
  // Calls test(source, target) for every pair of places that the executor copies between.
  template <class Test>
  void for_each_pair(Test test) {
    for (const Content& content : kContents) {
      for (const auto& [from, to] : GetParam().pairs) {
        for (const Shape source_shape : shapes_of(from, to)) {
          for (const Shape target_shape : shapes_of(to, from)) {
            SCOPED_TRACE("KVBM_SEED=" + std::to_string(seed_of_run()) + ", " + content.name +
                         ", from " + name_of(from) + ", " + name_of(source_shape) + ", to " +
                         name_of(to) + ", " + name_of(target_shape));
            Place source = place(content, from, source_shape);
            Place target = place(content, to, target_shape);
            test(content, source, target);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
};

void expect_bytes(const Place& source, const Place& target) {
  ASSERT_TRUE(source.bytes() == source.expected()) << "the source is only read";
  ASSERT_TRUE(target.bytes() == target.expected()) << "the block, and nothing else";
}

TEST_P(ExecutorTest, MovesExactlyTheBlocksAndSumsThem) {
  for_each_pair([&](const Content&, Place& source, Place& target) {
    const std::size_t last = source.layout()->content()->regions().size() - 1;
    const auto plan = CopyPlan::create(source.layout(), target.layout()).value();
    std::vector<BlockCopy> blocks = {{0, 3, {}}, {5, 0, {}}, {2, 5, {}}};
    std::vector<std::uint64_t> sums;
    for (BlockCopy& copy : blocks) {
      sums.push_back(source.sum(copy.source, 0, last));
      target.expect_copy(source, copy.source, copy.target, 0, last);
    }
    blocks[1].payload_sum = sums[1];
    const TransferResult result = run({.plan = plan, .blocks = blocks});
    ASSERT_EQ(result.blocks.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) {
      ASSERT_TRUE(result.blocks[i].has_value()) << result.blocks[i].error().to_string();
      EXPECT_EQ(result.blocks[i]->payload_sum(), sums[i]);
      EXPECT_EQ(result.blocks[i]->target(), blocks[i].target);
      EXPECT_EQ(result.blocks[i]->target_layout(), target.layout().get());
      EXPECT_TRUE(result.blocks[i]->is_whole());
      target.expect_padding(source, blocks[i].source, blocks[i].target);
    }
    expect_bytes(source, target);
  });
}

TEST_P(ExecutorTest, MovesSomeLayersAlone) {
  for_each_pair([&](const Content& content, Place& source, Place& target) {
    for (std::size_t first = 0; first < content.layers; ++first) {
      const LayerRange layers{.first = first, .count = (content.layers - first + 1) / 2};
      if (layers.count == content.layers) continue;
      const auto plan = CopyPlan::create(source.layout(), target.layout(), layers);
      if (!plan) {  // files move whole blocks
        EXPECT_EQ(plan.error().code, ErrorCode::NotAccessible);
        continue;
      }
      const auto& held = *source.layout()->content();
      const std::size_t first_region = held.first_region(first);
      const std::size_t last_region = held.first_region(first + layers.count) - 1;
      target.expect_copy(source, 4, 1, first_region, last_region);
      const TransferResult result = run({.plan = *plan, .blocks = {{4, 1, {}}}});
      if (!result.blocks[0]) {  // of a file, through some executors
        ASSERT_EQ(result.blocks[0].error().code, ErrorCode::NotAccessible);
        return;
      }
      EXPECT_FALSE(result.blocks[0]->is_whole());
      EXPECT_EQ(result.blocks[0]->payload_sum(), source.sum(4, first_region, last_region));
      expect_bytes(source, target);
    }
  });
}

// A block whose bytes are not what its sum says is never there afterwards: where the CPU fills the
// target it is zeros, and where a device does, it is what it was before.
TEST_P(ExecutorTest, WrongBytesAreFoundAndNeverStay) {
  for_each_pair([&](const Content&, Place& source, Place& target) {
    const std::size_t last = source.layout()->content()->regions().size() - 1;
    const auto plan = CopyPlan::create(source.layout(), target.layout()).value();
    if (plan->target_side() == CopyPlan::Side::File) return;  // written as given: a read verifies
    const std::uint64_t good = source.sum(1, 0, last);
    const std::uint64_t sum = source.sum(3, 0, last);
    source.damage(3);
    const TransferResult result = run({.plan = plan, .blocks = {{3, 2, sum}, {1, 4, good}}});
    ASSERT_FALSE(result.blocks[0].has_value());
    EXPECT_EQ(result.blocks[0].error().code, ErrorCode::ChecksumMismatch);
    ASSERT_TRUE(result.blocks[1].has_value()) << result.blocks[1].error().to_string();
    target.expect_copy(source, 1, 4, 0, last);
    target.expect_padding(source, 1, 4);
    if (plan->target_side() == CopyPlan::Side::Memory) {
      target.expect_padding(source, 3, 2);
      target.expect_zeros(2);
    }
    expect_bytes(source, target);
  });
}

TEST_P(ExecutorTest, BadBlocksFailAloneAndTouchNothing) {
  for_each_pair([&](const Content&, Place& source, Place& target) {
    const std::size_t last = source.layout()->content()->regions().size() - 1;
    const auto plan = CopyPlan::create(source.layout(), target.layout()).value();
    const auto none = static_cast<BlockId>(Place::kBlocks);
    const TransferResult result =
        run({.plan = plan, .blocks = {{none, 0, {}}, {0, 1, {}}, {0, none + 7, {}}}});
    ASSERT_FALSE(result.blocks[0].has_value());
    EXPECT_EQ(result.blocks[0].error().code, ErrorCode::InvalidBlockIndex);
    EXPECT_EQ(result.blocks[0].error().requested, none);
    EXPECT_EQ(result.blocks[0].error().available, Place::kBlocks);
    ASSERT_FALSE(result.blocks[2].has_value());
    EXPECT_EQ(result.blocks[2].error().requested, none + 7);
    ASSERT_TRUE(result.blocks[1].has_value()) << result.blocks[1].error().to_string();
    target.expect_copy(source, 0, 1, 0, last);
    target.expect_padding(source, 0, 1);
    expect_bytes(source, target);
  });
}

// Before layers are copied one by one, a block is verified where it lies.
TEST_P(ExecutorTest, VerifyingSumsTheSourceAndMovesNothing) {
  for_each_pair([&](const Content&, Place& source, Place& target) {
    const std::size_t last = source.layout()->content()->regions().size() - 1;
    const auto plan = CopyPlan::create(source.layout(), target.layout()).value();
    const std::uint64_t good = source.sum(1, 0, last);
    const std::uint64_t before = source.sum(3, 0, last);
    source.damage(3);
    const auto none = static_cast<BlockId>(Place::kBlocks);
    const TransferResult result =
        run({.plan = plan,
             .blocks = {{1, 4, good}, {3, 2, before}, {2, 5, {}}, {none, 0, {}}, {0, none, {}}},
             .step = TransferStep::Verify});
    ASSERT_EQ(result.blocks.size(), 5u);
    const bool with_file = plan->target_side() == CopyPlan::Side::File;
    if (plan->source_side() != CopyPlan::Side::Memory || (with_file && !result.blocks[0])) {
      for (std::size_t i = 0; i < 3; ++i) {
        ASSERT_FALSE(result.blocks[i].has_value());
        EXPECT_EQ(result.blocks[i].error().code, ErrorCode::NotAccessible);
      }
    } else {
      ASSERT_TRUE(result.blocks[0].has_value()) << result.blocks[0].error().to_string();
      EXPECT_EQ(result.blocks[0]->payload_sum(), good);
      EXPECT_EQ(result.blocks[0]->target(), 4u);
      EXPECT_EQ(result.blocks[0]->layers().count, 0u);
      EXPECT_FALSE(result.blocks[0]->is_whole()) << "no proof that anything was copied";
      ASSERT_FALSE(result.blocks[1].has_value());
      EXPECT_EQ(result.blocks[1].error().code, ErrorCode::ChecksumMismatch);
      ASSERT_TRUE(result.blocks[2].has_value()) << result.blocks[2].error().to_string();
      EXPECT_EQ(result.blocks[2]->payload_sum(), source.sum(2, 0, last));
      for (const std::size_t bad : {3u, 4u}) {
        ASSERT_FALSE(result.blocks[bad].has_value());
        EXPECT_EQ(result.blocks[bad].error().code, ErrorCode::InvalidBlockIndex);
      }
    }
    expect_bytes(source, target);
  });
}

TEST_P(ExecutorTest, ProofsOfAllLayersOfAVerifiedBlockAreOneOfTheWholeBlock) {
  for_each_pair([&](const Content& content, Place& source, Place& target) {
    const std::size_t last = source.layout()->content()->regions().size() - 1;
    const auto whole = CopyPlan::create(source.layout(), target.layout()).value();
    if (whole->source_side() != CopyPlan::Side::Memory ||
        whole->target_side() == CopyPlan::Side::File) {
      return;  // files move whole blocks
    }
    std::vector<std::shared_ptr<const CopyPlan>> plans;
    for (std::size_t layer = 0; layer < content.layers; ++layer) {
      plans.push_back(
          CopyPlan::create(source.layout(), target.layout(), {.first = layer, .count = 1}).value());
    }
    const std::uint64_t sum = source.sum(4, 0, last);
    const auto prove = [&](const auto& plan, TransferStep step, BlockId to = 1) {
      auto result = run({.plan = plan, .blocks = {{4, to, {}}}, .step = step});
      return std::move(result.blocks[0]);
    };
    auto proof = prove(whole, TransferStep::Verify);
    ASSERT_TRUE(proof.has_value()) << proof.error().to_string();
    for (const auto& plan : plans) {
      EXPECT_FALSE(proof->is_whole());
      proof = TransferToken::join(std::move(*proof), prove(plan, TransferStep::Copy).value());
      ASSERT_TRUE(proof.has_value()) << proof.error().to_string();
    }
    EXPECT_TRUE(proof->is_whole());
    EXPECT_EQ(proof->payload_sum(), sum);
    EXPECT_EQ(proof->target(), 1u);
    target.expect_copy(source, 4, 1, 0, last);
    expect_bytes(source, target);

    // Nothing else makes one.
    const auto refused = [&](const auto& first, TransferStep how, const auto& next, BlockId to) {
      auto joined = TransferToken::join(prove(first, how).value(),
                                        prove(next, TransferStep::Copy, to).value());
      return !joined && joined.error().code == ErrorCode::FailedToRegisterBlock;
    };
    EXPECT_TRUE(refused(whole, TransferStep::Verify, plans.front(), 2)) << "of another block";
    EXPECT_TRUE(refused(whole, TransferStep::Copy, plans.back(), 1)) << "of a layer that is there";
    if (content.layers == 1) return;
    EXPECT_TRUE(refused(whole, TransferStep::Verify, plans[1], 1)) << "without the first layer";
    EXPECT_TRUE(refused(plans[0], TransferStep::Copy, plans[0], 1)) << "the same layer twice";
    auto unverified = TransferToken::join(prove(plans[0], TransferStep::Copy).value(),
                                          prove(plans[1], TransferStep::Copy).value());
    EXPECT_FALSE(unverified.value().is_whole()) << "nobody has seen the sum of all layers";
  });
}

TEST_P(ExecutorTest, WhatIsCancelledBeforeItBeganTouchesNothing) {
  for_each_pair([&](const Content&, Place& source, Place& target) {
    const auto plan = CopyPlan::create(source.layout(), target.layout()).value();
    const TransferResult result =
        run({.plan = plan,
             .blocks = {{0, 1, {}}, {1, 2, {}}},
             .cancelled = std::make_shared<const std::atomic<bool>>(true)});
    for (const auto& block : result.blocks) {
      ASSERT_FALSE(block.has_value());
      EXPECT_EQ(block.error().code, ErrorCode::Cancelled);
    }
    expect_bytes(source, target);
  });
}

INSTANTIATE_TEST_SUITE_P(, ExecutorTest, testing::ValuesIn(executor_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace kvbm
