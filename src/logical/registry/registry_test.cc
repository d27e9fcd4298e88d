#include "logical/registry/registry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <vector>

namespace {
std::size_t allocations = 0;
}  // namespace

// Counts what the registry allocates. This program has one thread. Not inlined, or the compiler
// takes malloc() and delete, or new and free(), for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace kvbm {
namespace {

// Spread over all bits, as hashes are.
SequenceHash name(std::uint64_t number) { return SequenceHash((number + 1) * 0x9E3779B97F4A7C15u); }

// The orphans of `parent`, all left where they are.
std::vector<BlockId> orphans_of(BlockRegistry& registry, SequenceHash parent) {
  std::vector<BlockId> ids;
  registry.adopt_orphans(parent, [&](BlockId id) {
    ids.push_back(id);
    return false;
  });
  std::sort(ids.begin(), ids.end());
  return ids;
}

using Ids = std::vector<BlockId>;

TEST(RegistryTest, FindsWhatWasInsertedUntilItIsErased) {
  BlockRegistry registry(4);
  EXPECT_EQ(registry.find(name(1)), kNoBlock);

  registry.insert(name(1), 10);
  registry.insert(name(2), 0);
  EXPECT_EQ(registry.find(name(1)), 10u);
  EXPECT_EQ(registry.find(name(2)), 0u);
  EXPECT_EQ(registry.size(), 2u);

  registry.erase(name(1));
  EXPECT_EQ(registry.find(name(1)), kNoBlock);
  EXPECT_EQ(registry.find(name(2)), 0u);
  EXPECT_EQ(registry.size(), 1u);

  registry.insert(name(1), 11);
  EXPECT_EQ(registry.find(name(1)), 11u);
}

TEST(RegistryTest, AnyHashIsAName) {
  BlockRegistry registry(2);
  registry.insert(SequenceHash(0), 1);
  registry.insert(SequenceHash(~std::uint64_t{0}), 2);
  EXPECT_EQ(registry.find(SequenceHash(0)), 1u);
  EXPECT_EQ(registry.find(SequenceHash(~std::uint64_t{0})), 2u);
  EXPECT_EQ(registry.find(SequenceHash(1)), kNoBlock);
}

TEST(RegistryTest, InsertingAsManyAsAnnouncedNeverAllocates) {
  for (std::uint64_t count : {1u, 15u, 1000u, 30000u}) {
    BlockRegistry registry(count);
    const std::size_t before = allocations;
    for (std::uint64_t i = 0; i < count; ++i) registry.insert(name(i), static_cast<BlockId>(i));
    EXPECT_EQ(allocations, before) << count << " entries";
    for (std::uint64_t i = 0; i < count; ++i) ASSERT_EQ(registry.find(name(i)), i);
  }
}

TEST(RegistryTest, OrphansWaitUnderTheirParent) {
  BlockRegistry registry(8);
  registry.add_orphan(name(1), 10);
  registry.add_orphan(name(1), 11);
  registry.add_orphan(name(2), 20);

  EXPECT_EQ(registry.orphan_count(), 3u);
  EXPECT_EQ(orphans_of(registry, name(1)), (Ids{10, 11}));
  EXPECT_EQ(orphans_of(registry, name(2)), (Ids{20}));
  EXPECT_EQ(orphans_of(registry, name(3)), Ids());
  EXPECT_EQ(registry.find(name(1)), kNoBlock) << "a parent that is waited for is not here";
  EXPECT_EQ(registry.orphan_count(), 3u);
}

TEST(RegistryTest, AdoptedOrphansLeaveAndRefusedOnesStay) {
  BlockRegistry registry(8);
  for (BlockId id : {10u, 11u, 12u, 13u}) registry.add_orphan(name(1), id);
  registry.add_orphan(name(2), 12);

  registry.adopt_orphans(name(1), [](BlockId id) { return id % 2 == 0; });

  EXPECT_EQ(orphans_of(registry, name(1)), (Ids{11, 13}));
  EXPECT_EQ(orphans_of(registry, name(2)), (Ids{12}));
  EXPECT_EQ(registry.orphan_count(), 3u);
}

TEST(RegistryTest, RemovesExactlyTheOrphanThatIsNamed) {
  BlockRegistry registry(8);
  for (BlockId id : {10u, 11u, 12u}) registry.add_orphan(name(1), id);
  registry.add_orphan(name(2), 11);

  registry.remove_orphan(name(1), 11);
  registry.remove_orphan(name(1), 99);  // not there
  registry.remove_orphan(name(3), 10);  // another parent

  EXPECT_EQ(orphans_of(registry, name(1)), (Ids{10, 12}));
  EXPECT_EQ(orphans_of(registry, name(2)), (Ids{11}));
}

}  // namespace
}  // namespace kvbm
