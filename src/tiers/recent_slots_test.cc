#include "tiers/recent_slots.h"

#include <gtest/gtest.h>

namespace kvbm::detail {
namespace {

SequenceHash name(std::uint64_t high, std::uint64_t low) { return SequenceHash(high << 32 | low); }

TEST(RecentSlotsTest, TellsWhatWasNotedLast) {
  RecentSlots recent;
  EXPECT_EQ(recent.find(name(1, 1)), kNoBlock);
  recent.note(name(1, 1), 5);
  recent.note(name(1, 2), 6);
  recent.note(name(1, 1), 7);
  EXPECT_EQ(recent.find(name(1, 1)), 7u);
  EXPECT_EQ(recent.find(name(1, 2)), 6u);
}

TEST(RecentSlotsTest, ALaterNameDisplacesAnEarlierOne) {
  RecentSlots recent;
  recent.note(name(1, 1), 5);
  recent.note(name(2, 1), 6);
  EXPECT_EQ(recent.find(name(1, 1)), kNoBlock);
  EXPECT_EQ(recent.find(name(2, 1)), 6u);
}

}  // namespace
}  // namespace kvbm::detail
