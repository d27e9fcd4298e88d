#include "logical/registry/orphans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace kvbm {
namespace {

SequenceHash name(std::uint64_t number) { return SequenceHash((number + 1) * 0x9E3779B97F4A7C15u); }

// The orphans of `parent`, all left where they are.
std::vector<BlockId> orphans_of(Orphans& orphans, SequenceHash parent) {
  std::vector<BlockId> ids;
  orphans.adopt(parent, [&](BlockId id) {
    ids.push_back(id);
    return false;
  });
  std::sort(ids.begin(), ids.end());
  return ids;
}

using Ids = std::vector<BlockId>;

TEST(OrphansTest, WaitUnderTheirParent) {
  Orphans orphans;
  orphans.add(name(1), 10);
  orphans.add(name(1), 11);
  orphans.add(name(2), 20);
  EXPECT_EQ(orphans.size(), 3u);
  EXPECT_EQ(orphans_of(orphans, name(1)), (Ids{10, 11}));
  EXPECT_EQ(orphans_of(orphans, name(2)), (Ids{20}));
  EXPECT_EQ(orphans_of(orphans, name(3)), Ids());
  EXPECT_EQ(orphans.parent_hash(20), name(2));
  EXPECT_EQ(orphans.size(), 3u);
}

TEST(OrphansTest, AdoptedOnesLeaveAndRefusedOnesStay) {
  Orphans orphans;
  for (const BlockId id : {10u, 11u, 12u, 13u}) orphans.add(name(1), id);
  orphans.add(name(2), 20);
  orphans.adopt(name(1), [](BlockId id) { return id % 2 == 0; });
  EXPECT_EQ(orphans_of(orphans, name(1)), (Ids{11, 13}));
  EXPECT_EQ(orphans_of(orphans, name(2)), (Ids{20}));
  EXPECT_EQ(orphans.size(), 3u);
}

TEST(OrphansTest, RemovesExactlyTheOneThatIsNamed) {
  Orphans orphans;
  for (const BlockId id : {10u, 11u, 12u}) orphans.add(name(1), id);
  orphans.add(name(2), 20);
  orphans.remove(11);
  EXPECT_EQ(orphans_of(orphans, name(1)), (Ids{10, 12}));
  EXPECT_EQ(orphans_of(orphans, name(2)), (Ids{20}));
  EXPECT_EQ(orphans.size(), 3u);
}

}  // namespace
}  // namespace kvbm
