// What a store allocates once it runs: nothing.
#include <gtest/gtest.h>

#include <array>

#include "base/test_allocations.h"
#include "logical/pool/test_blocks.h"

namespace kvbm {
namespace {

using test_blocks::identity;
using test_blocks::name;

// Many times over: new conversations take the place of old ones, are matched, held and dropped.
TEST(BlockStoreAllocationsTest, TurnoverAllocatesNothing) {
  constexpr std::uint32_t kLength = 16;
  for (const EvictionPolicy policy :
       {EvictionPolicy::Lru, EvictionPolicy::AgeIndex, EvictionPolicy::Fifo}) {
    const auto store =
        BlockStore::create({.capacity = 100, .policy = policy, .curve_samples = 64}).value();
    std::array<BlockId, kLength> ids;
    std::array<SequenceHash, kLength> hashes;
    std::size_t before = allocations.load();
    for (std::uint64_t conversation = 1; conversation < 500; ++conversation) {
      store->advance(TimePoint(std::chrono::milliseconds(conversation)));
      ASSERT_TRUE(store->allocate(ids).has_value());
      for (std::uint32_t i = 0; i < kLength; ++i) {
        hashes[i] = name(conversation, i);
        store->complete(ids[i], identity(conversation, i));
      }
      ASSERT_TRUE(store->register_blocks(ids).has_value());
      store->release(ids);
      const RunRef run = store->match_run(hashes);
      ASSERT_EQ(run.count, kLength);
      ASSERT_EQ(store->match(hashes, ids), kLength);
      store->release(ids);
      store->release(run.deepest);
      const BlockId one = store->allocate_one();
      store->release(one);
      if (conversation % 100 == 0) store->reset();
    }
    EXPECT_EQ(allocations.load(), before) << to_string(policy);
    before = allocations.load();
  }
}

}  // namespace
}  // namespace kvbm
