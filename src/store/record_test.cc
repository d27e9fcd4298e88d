#include "store/record.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace kvbm::store {
namespace {

constexpr std::uint64_t kStore = 77;

SlotRecord record() {
  return {.sequence_hash = SequenceHash(1),
          .parent_hash = SequenceHash(2),
          .digest = 3,
          .sealed_sum = 4,
          .put_sequence = 5,
          .position = 6,
          .epoch = 7,
          .put_time = 8,
          .parent_slot = 9,
          .token_count = 10,
          .name_space = 11,
          .priority = 12};
}

TEST(RecordTest, ComesBackAsItWas) {
  SlotRecord found;
  ASSERT_EQ(decode(encode(record(), 4, kStore), 4, kStore, found), RecordState::Valid);
  EXPECT_EQ(found.sequence_hash, SequenceHash(1));
  EXPECT_EQ(found.parent_hash, SequenceHash(2));
  EXPECT_EQ(found.digest, 3u);
  EXPECT_EQ(found.sealed_sum, 4u);
  EXPECT_EQ(found.put_sequence, 5u);
  EXPECT_EQ(found.position, 6u);
  EXPECT_EQ(found.epoch, 7u);
  EXPECT_EQ(found.put_time, 8u);
  EXPECT_EQ(found.parent_slot, 9u);
  EXPECT_EQ(found.token_count, 10u);
  EXPECT_EQ(found.name_space, 11u);
  EXPECT_EQ(found.priority, 12u);
}

TEST(RecordTest, ZeroesAreEmptyAndNothingElseIs) {
  RecordBytes bytes{};
  SlotRecord found;
  EXPECT_EQ(decode(bytes, 4, kStore, found), RecordState::Empty);
  for (std::byte& byte : bytes) {
    byte = std::byte{1};
    EXPECT_EQ(decode(bytes, 4, kStore, found), RecordState::Damaged);
    byte = std::byte{0};
  }
}

TEST(RecordTest, EveryFlippedBitIsDamage) {
  RecordBytes bytes = encode(record(), 4, kStore);
  SlotRecord found;
  for (std::size_t bit = 0; bit < kRecordBytes * 8; ++bit) {
    bytes[bit / 8] ^= std::byte(1u << (bit % 8));
    EXPECT_EQ(decode(bytes, 4, kStore, found), RecordState::Damaged) << "bit " << bit;
    bytes[bit / 8] ^= std::byte(1u << (bit % 8));
  }
}

TEST(RecordTest, ARecordOfAnotherSlotOrStoreIsDamage) {
  const RecordBytes bytes = encode(record(), 4, kStore);
  SlotRecord found;
  EXPECT_EQ(decode(bytes, 5, kStore, found), RecordState::Damaged);
  EXPECT_EQ(decode(bytes, 4, kStore + 1, found), RecordState::Damaged);
}

TEST(RecordTest, FieldsThatCannotBeAreDamage) {
  SlotRecord found;
  SlotRecord wrong = record();
  wrong.priority = MAX_PRIORITY + 1;
  EXPECT_EQ(decode(encode(wrong, 4, kStore), 4, kStore, found), RecordState::Damaged);
  wrong = record();
  wrong.put_sequence = ~std::uint64_t{0};
  EXPECT_EQ(decode(encode(wrong, 4, kStore), 4, kStore, found), RecordState::Damaged);
  wrong = record();
  wrong.token_count = MAX_PAGE_SIZE + 1;
  EXPECT_EQ(decode(encode(wrong, 4, kStore), 4, kStore, found), RecordState::Damaged);
}

TEST(SealTest, EveryPartOfTheIdentityCounts) {
  const std::uint64_t sealed = seal(record(), 4, 50);
  EXPECT_NE(seal(record(), 5, 50), sealed);
  EXPECT_NE(seal(record(), 4, 51), sealed);
  const auto differs = [&](auto change) {
    SlotRecord other = record();
    change(other);
    return seal(other, 4, 50) != sealed;
  };
  EXPECT_TRUE(differs([](SlotRecord& r) { r.sequence_hash = SequenceHash(100); }));
  EXPECT_TRUE(differs([](SlotRecord& r) { r.parent_hash = SequenceHash(100); }));
  EXPECT_TRUE(differs([](SlotRecord& r) { r.digest = 100; }));
  EXPECT_TRUE(differs([](SlotRecord& r) { r.position = 100; }));
  EXPECT_TRUE(differs([](SlotRecord& r) { r.epoch = 100; }));
  EXPECT_TRUE(differs([](SlotRecord& r) { r.token_count = 100; }));
  EXPECT_TRUE(differs([](SlotRecord& r) { r.name_space = 100; }));
  SlotRecord first = record();
  first.position = 0;
  SlotRecord other_parent = first;
  other_parent.parent_hash = SequenceHash(100);
  EXPECT_EQ(seal(first, 4, 50), seal(other_parent, 4, 50)) << "the first block has no parent";
}

}  // namespace
}  // namespace kvbm::store
