#include "logical/registry/block_table.h"

#include <gtest/gtest.h>

namespace kvbm {
namespace {

constexpr BlockTag kTag = {
    .parent = 0x89abcdef, .epoch = 0x4567, .name_space = 0x23, .stage = BlockStage::Duplicate};

void expect_tag(const BlockTag& tag, BlockId parent, BlockStage stage) {
  EXPECT_EQ(tag.parent, parent);
  EXPECT_EQ(tag.epoch, kTag.epoch);
  EXPECT_EQ(tag.name_space, kTag.name_space);
  EXPECT_EQ(tag.stage, stage);
}

TEST(BlockTableTest, ATagIsOneWord) {
  EXPECT_EQ(kTag.pack(), 0x89abcdef'4567'23'06u);
  expect_tag(BlockTag::unpack(kTag.pack()), kTag.parent, kTag.stage);
}

TEST(BlockTableTest, PartsOfATagChangeAlone) {
  BlockTable table(3, 0);
  EXPECT_EQ(table.stage(1), BlockStage::Absent);
  table.set_tag(1, kTag);
  EXPECT_EQ(table.tag_word(1), kTag.pack());
  table.set_stage(1, BlockStage::Registered);
  expect_tag(table.tag(1), kTag.parent, BlockStage::Registered);
  table.set_parent(1, 0xfedcba98);
  expect_tag(table.tag(1), 0xfedcba98, BlockStage::Registered);
  EXPECT_EQ(table.parent(1), 0xfedcba98);
  EXPECT_EQ(table.stage(1), BlockStage::Registered);
  EXPECT_EQ(table.tag_word(0), 0u);
  EXPECT_EQ(table.tag_word(2), 0u);
}

TEST(BlockTableTest, AParentsNameNeedsNoRoomOfItsOwn) {
  BlockTable table(2, 0);
  table.set_parent_hash(1, SequenceHash(0x0123456789abcdef));
  EXPECT_EQ(table.parent_hash(1), SequenceHash(0x0123456789abcdef));
  EXPECT_EQ(table.parent_hash(0), SequenceHash(0));
}

TEST(BlockTableTest, AHoldOrAPinnedChildPins) {
  BlockTable table(1, 0);
  EXPECT_FALSE(table.is_pinned(0));
  table.ties(0).holds = 1;
  EXPECT_TRUE(table.is_pinned(0));
  table.ties(0).holds = 0;
  table.ties(0).pinned_children = 1;
  EXPECT_TRUE(table.is_pinned(0));
}

TEST(BlockTableTest, ABlockTakes56Bytes) {
  const std::size_t bytes = BlockTable(1000, 0).bytes();
  EXPECT_EQ(bytes, 56'000u);
  EXPECT_EQ(BlockTable(1000, 10).bytes() - bytes, 10 * sizeof(BlockPlace));
  EXPECT_EQ(BlockTable(1000, 10).capacity(), 1000u);
}

}  // namespace
}  // namespace kvbm
