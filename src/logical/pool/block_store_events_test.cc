#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using namespace test_blocks;
using testing::ElementsAre;
using testing::IsEmpty;

// One string per call of put(): "evict 1=2:0 alloc 1".
class Recorder final : public EventSink {
 public:
  void put(std::span<const BlockEvent> events) noexcept override {
    std::string batch;
    for (const BlockEvent& event : events) {
      EXPECT_EQ(event.tier, Tier::Host);
      static constexpr const char* kKinds[] = {"alloc", "reg", "match", "evict", "clear"};
      batch += batch.empty() ? "" : " ";
      batch += kKinds[static_cast<std::size_t>(event.kind)];
      batch += " " + std::to_string(event.block_id);
      if (event.sequence_hash != SequenceHash()) batch += "=" + spell(event.sequence_hash);
    }
    batches_.push_back(std::move(batch));
  }
  std::vector<std::string> take() { return std::exchange(batches_, {}); }

 private:
  static std::string spell(SequenceHash hash) {
    return std::to_string(hash.value() >> 32) + ":" +
           std::to_string((hash.value() & 0xFFFFFFFF) - 1);
  }
  std::vector<std::string> batches_;
};

class BlockStoreEventsTest : public testing::Test {
 protected:
  void make(std::size_t blocks, BlockRegistrationDuplicationSetting duplicates) {
    store_ =
        BlockStore::create(
            {.capacity = blocks, .duplicates = duplicates, .tier = Tier::Host, .events = sink_})
            .value();
  }
  void SetUp() override { make(2, BlockRegistrationDuplicationSetting::Disabled); }

  std::shared_ptr<Recorder> sink_ = std::make_shared<Recorder>();
  BlockStore::Owner store_;
};

TEST_F(BlockStoreEventsTest, OneBatchPerCallInTheOrderOfTheChanges) {
  auto blocks = detail::allocate(*store_, 2).value();
  EXPECT_THAT(sink_->take(), ElementsAre("alloc 0 alloc 1"));
  std::vector<CompleteHold> named;
  named.push_back(detail::complete(std::move(blocks[0]), identity(1, 0)));
  named.push_back(detail::complete(std::move(blocks[1]), identity(1, 1)));
  EXPECT_THAT(sink_->take(), IsEmpty());
  {
    const auto held = detail::register_blocks(*store_, std::move(named)).value();
    EXPECT_THAT(sink_->take(), ElementsAre("reg 0=1:0 reg 1=1:1"));
  }
  EXPECT_THAT(sink_->take(), IsEmpty()) << "an evictable block is still registered";

  detail::match(*store_, chain(1, 3));
  detail::match_run(*store_, chain(1, 3));
  EXPECT_THAT(sink_->take(), ElementsAre("match 0=1:0 match 1=1:1", "match 0=1:0 match 1=1:1"));
  const std::vector<SequenceHash> some = {name(1, 1), name(2, 0)};
  detail::scan(*store_, some);
  EXPECT_THAT(sink_->take(), ElementsAre("match 1=1:1"));
  store_->touch(chain(1, 2));
  EXPECT_THAT(sink_->take(), IsEmpty());

  const auto taken = detail::allocate(*store_, 2).value();
  EXPECT_THAT(sink_->take(), ElementsAre("evict 1=1:1 evict 0=1:0 alloc 1 alloc 0"));
}

TEST_F(BlockStoreEventsTest, WhatChangesNothingTellsNothing) {
  const auto all = detail::allocate(*store_, 2).value();
  sink_->take();
  EXPECT_FALSE(detail::allocate(*store_, 1).has_value());
  std::vector<BlockId> ids = {all[0].id()};
  EXPECT_FALSE(store_->register_blocks(ids).has_value());
  EXPECT_EQ(detail::match(*store_, chain(1, 2)).size(), 0u);
  EXPECT_TRUE(detail::allocate(*store_, 0).has_value());
  EXPECT_EQ(store_->reset().still_held, 0u);
  EXPECT_THAT(sink_->take(), IsEmpty());
}

TEST_F(BlockStoreEventsTest, ADroppedBlockOfItsOwnerWasNeverRegistered) {
  {
    const MutableHold block = allocate_one(*store_);
  }
  {
    const auto named = detail::complete(allocate_one(*store_), identity(1, 0));
  }
  EXPECT_THAT(sink_->take(), ElementsAre("alloc 0", "alloc 0"));
}

TEST_F(BlockStoreEventsTest, ADetachedBlockIsEvictedOnce) {
  {
    const ImmutableHold held = put(*store_, 1, 0);
    sink_->take();
    store_->detach(held.id());
    EXPECT_THAT(sink_->take(), ElementsAre("evict 0=1:0"));
    store_->detach(held.id());
    EXPECT_THAT(sink_->take(), IsEmpty());
  }
  const auto all = detail::allocate(*store_, 2).value();
  EXPECT_THAT(sink_->take(), ElementsAre("alloc 1 alloc 0"));
}

TEST_F(BlockStoreEventsTest, ResetTellsThatAllNamesAreLost) {
  make(3, BlockRegistrationDuplicationSetting::Disabled);
  put_chain(*store_, 1, 2);
  const ImmutableHold held = put(*store_, 2, 0);
  sink_->take();
  store_->reset();
  EXPECT_THAT(sink_->take(), ElementsAre("clear 0"));
}

TEST_F(BlockStoreEventsTest, ADuplicateIsNoRegistration) {
  for (const auto setting : {BlockRegistrationDuplicationSetting::Disabled,
                             BlockRegistrationDuplicationSetting::Allowed}) {
    make(2, setting);
    put(*store_, 1, 0);
    sink_->take();
    put(*store_, 1, 0);
    EXPECT_THAT(sink_->take(), ElementsAre("alloc 1"));
  }
}

}  // namespace
}  // namespace kvbm
