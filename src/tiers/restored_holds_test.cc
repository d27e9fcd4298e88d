#include "tiers/restored_holds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>

namespace kvbm {
namespace {

using testing::ElementsAreArray;

constexpr std::size_t kBlocks = 5000;  // several times what is given back at a time

// Says when a store gives a block back, and when it announces one.
class Recorder final : public EventSink {
 public:
  void put(std::span<const BlockEvent> events) noexcept override {
    for (const BlockEvent& event : events) {
      if (event.kind == BlockEvent::Kind::Registered) announced.push_back(event.block_id);
    }
  }
  std::vector<BlockId> announced;
};

// A store full of restored blocks, each a chain of its own, that were put in random order.
struct Restored {
  explicit Restored(std::shared_ptr<void> backing = nullptr) {
    store = BlockStore::create({.capacity = kBlocks, .start_empty = true, .events = sink},
                               std::move(backing))
                .value();
    put_order.resize(kBlocks);
    std::iota(put_order.begin(), put_order.end(), BlockId{0});
    std::shuffle(put_order.begin(), put_order.end(), std::mt19937(1));
    std::vector<RestoredBlock> blocks;
    for (BlockId id = 0; id < kBlocks; ++id) {
      blocks.push_back({.id = id, .identity = {SequenceHash(id + 1), SequenceHash()}});
    }
    store->restore(blocks);
    EXPECT_TRUE(store->finish_restore().empty());
  }
  // In the order of the ids.
  std::vector<RestoredHold> holds() const {
    std::vector<RestoredHold> holds(kBlocks);
    for (std::size_t i = 0; i < kBlocks; ++i) holds[put_order[i]] = {1000 + i, put_order[i]};
    return holds;
  }

  std::shared_ptr<Recorder> sink = std::make_shared<Recorder>();
  BlockStore::Owner store;
  std::vector<BlockId> put_order;
};

TEST(RestoredHoldsTest, BlocksAreEvictedInTheOrderOfTheirPuts) {
  Restored restored;
  const RestoredHolds holds(*restored.store, restored.holds());
  holds.wait();
  restored.store->check_invariants();
  std::vector<BlockId> ids(kBlocks);
  ASSERT_TRUE(restored.store->allocate(ids).has_value());
  EXPECT_THAT(ids, ElementsAreArray(restored.put_order));
  restored.store->release(ids);
}

TEST(RestoredHoldsTest, BlocksAreAnnouncedInTheOrderOfTheirPuts) {
  Restored restored;
  const RestoredHolds holds(*restored.store, restored.holds());
  holds.wait();
  EXPECT_THAT(restored.sink->announced, ElementsAreArray(restored.put_order));
}

TEST(RestoredHoldsTest, StoppedItGivesBackTheRest) {
  Restored restored;
  RestoredHolds holds(*restored.store, restored.holds());
  holds.stop();
  holds.stop();
  holds.wait();
  EXPECT_EQ(restored.store->available_blocks(), kBlocks);
  restored.store->check_invariants();
}

TEST(RestoredHoldsTest, TheLastHoldEndsAStoreThatIsClosed) {
  const auto backing = std::make_shared<int>(0);
  Restored restored(backing);
  {
    const RestoredHolds holds(*restored.store, restored.holds());
    restored.store.reset();
  }
  EXPECT_EQ(backing.use_count(), 1);
}

TEST(RestoredHoldsTest, WithoutHoldsItEndsAtOnce) {
  Restored restored;
  const RestoredHolds none(*restored.store, {});
  none.wait();
  EXPECT_EQ(restored.store->available_blocks(), 0u);
  const RestoredHolds all(*restored.store, restored.holds());
}

}  // namespace
}  // namespace kvbm
