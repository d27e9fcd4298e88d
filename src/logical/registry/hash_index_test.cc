#include "logical/registry/hash_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <random>
#include <vector>

#include "base/test_allocations.h"

namespace kvbm {
namespace {

// Spread over all bits, as hashes are.
SequenceHash name(std::uint64_t number) { return SequenceHash((number + 1) * 0x9E3779B97F4A7C15u); }

struct Fixture {
  explicit Fixture(std::size_t capacity) : table(capacity, 0), index(table) {}

  void insert(SequenceHash hash, BlockId id) {
    table.name(id).hash.store(hash.value());
    index.insert(id);
  }
  BlockId find(SequenceHash hash) const {
    return index.find(hash, [](BlockId) { return true; });
  }

  BlockTable table;
  HashIndex index;
};

TEST(HashIndexTest, FindsWhatWasInsertedUntilItIsErased) {
  Fixture f(12);
  EXPECT_EQ(f.find(name(1)), kNoBlock);
  f.insert(name(1), 10);
  f.insert(name(2), 0);
  EXPECT_EQ(f.find(name(1)), 10u);
  EXPECT_EQ(f.find(name(2)), 0u);
  EXPECT_EQ(f.index.size(), 2u);

  f.index.erase(10);
  EXPECT_EQ(f.find(name(1)), kNoBlock);
  EXPECT_EQ(f.find(name(2)), 0u);
  EXPECT_EQ(f.index.size(), 1u);
  f.insert(name(1), 11);
  EXPECT_EQ(f.find(name(1)), 11u);
}

TEST(HashIndexTest, AnyHashIsAName) {
  Fixture f(3);
  f.insert(SequenceHash(0), 1);
  f.insert(SequenceHash(~std::uint64_t{0}), 2);
  EXPECT_EQ(f.find(SequenceHash(0)), 1u);
  EXPECT_EQ(f.find(SequenceHash(~std::uint64_t{0})), 2u);
  EXPECT_EQ(f.find(SequenceHash(1)), kNoBlock);
}

TEST(HashIndexTest, OfBlocksWithOneHashTheAcceptedOneIsFound) {
  Fixture f(8);
  for (const BlockId id : {3u, 4u, 5u}) f.insert(name(1), id);
  for (const BlockId wanted : {3u, 4u, 5u}) {
    EXPECT_EQ(f.index.find(name(1), [&](BlockId id) { return id == wanted; }), wanted);
  }
  EXPECT_EQ(f.index.find(name(1), [](BlockId) { return false; }), kNoBlock);
  f.index.erase(4);
  EXPECT_EQ(f.index.find(name(1), [](BlockId id) { return id != 3; }), 5u);
}

// Blocks of one hash lie one behind the other, farther than a cell can say.
TEST(HashIndexTest, TellsTheLongestDistance) {
  Fixture f(40);
  EXPECT_EQ(f.index.longest_distance(), 0u);
  for (BlockId id = 0; id < 40; ++id) {
    f.insert(name(1), id);
    ASSERT_EQ(f.index.longest_distance(), id);
  }
  for (BlockId id = 0; id < 40; id += 2) f.index.erase(id);
  EXPECT_EQ(f.index.longest_distance(), 19u);
  EXPECT_TRUE(f.index.is_consistent());
}

// In a table of this size a cell has 13 bits of its hash, so names that are not there meet cells
// that look like theirs.
TEST(HashIndexTest, ACellThatLooksLikeANameIsNotTakenForIt) {
  constexpr std::size_t kCount = 30'000;
  Fixture f(kCount);
  for (std::size_t i = 0; i < kCount; ++i) f.insert(name(i), static_cast<BlockId>(i));
  for (std::size_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(f.find(name(i)), i);
    ASSERT_NE(f.index.candidate(name(i)), kNoBlock);
  }
  std::size_t candidates = 0;
  for (std::size_t i = kCount; i < 11 * kCount; ++i) {
    ASSERT_EQ(f.find(name(i)), kNoBlock);
    if (f.index.candidate(name(i)) != kNoBlock) ++candidates;
  }
  EXPECT_GT(candidates, 0u);
  EXPECT_LT(candidates, kCount / 100);
}

TEST(HashIndexTest, FullOrTurningOverItAllocatesNothing) {
  for (const std::size_t count : {std::size_t{1}, std::size_t{15}, std::size_t{30000}}) {
    Fixture f(count);
    const std::size_t before = allocations.load();
    for (std::size_t i = 0; i < count; ++i) f.insert(name(i), static_cast<BlockId>(i));
    for (std::size_t i = 0; i < 4 * count; ++i) {
      const auto id = static_cast<BlockId>(i % count);
      f.index.erase(id);
      f.insert(name(count + i), id);
    }
    EXPECT_EQ(allocations.load(), before) << count << " blocks";
    EXPECT_TRUE(f.index.is_consistent());
  }
}

// Names 1, 2, 3, ... and names that share their low or high half: clusters must stay short, or
// probes and moves become as long as the table.
TEST(HashIndexTest, NoChoiceOfNamesMakesLongClusters) {
  constexpr std::size_t kCount = 1 << 14;
  const std::vector<SequenceHash (*)(std::uint64_t)> choices = {
      [](std::uint64_t i) { return SequenceHash(i); },
      [](std::uint64_t i) { return SequenceHash(i << 32); },
      [](std::uint64_t i) { return SequenceHash(i << 48 | i); },
      [](std::uint64_t i) { return SequenceHash(i << 20); },
  };
  for (std::size_t c = 0; c < choices.size(); ++c) {
    Fixture f(kCount);
    for (std::size_t i = 0; i < kCount; ++i) f.insert(choices[c](i), static_cast<BlockId>(i));
    EXPECT_LT(f.index.longest_distance(), 300u) << "choice " << c;
  }
}

// Random insertions and erasures against a map; small tables, so that clusters wrap round the end
// and distances outgrow their bits.
TEST(HashIndexTest, AgreesWithAMapOnRandomHistories) {
  std::uint64_t seed = std::random_device{}();
  if (const char* given = std::getenv("KVBM_SEED")) seed = std::strtoull(given, nullptr, 10);
  std::fprintf(stderr, "KVBM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  for (int history = 0; history < 200; ++history) {
    const std::size_t capacity = 1 + random() % 64;
    // Few distinct hashes: long clusters.
    const std::uint64_t hashes = 1 + random() % 128;
    Fixture f(capacity);
    std::map<BlockId, SequenceHash> oracle;
    for (int step = 0; step < 300; ++step) {
      const auto id = static_cast<BlockId>(random() % capacity);
      if (oracle.count(id)) {
        f.index.erase(id);
        oracle.erase(id);
      } else {
        const SequenceHash hash = name(random() % hashes);
        f.insert(hash, id);
        oracle[id] = hash;
      }
      ASSERT_EQ(f.index.size(), oracle.size());
      ASSERT_TRUE(f.index.is_consistent());
      const SequenceHash asked = name(random() % hashes);
      const BlockId found = f.find(asked);
      const bool known = std::any_of(oracle.begin(), oracle.end(),
                                     [&](const auto& entry) { return entry.second == asked; });
      ASSERT_EQ(found != kNoBlock, known);
      if (known) {
        ASSERT_EQ(oracle.at(found), asked);
      }
    }
  }
}

}  // namespace
}  // namespace kvbm
