#include "store/check.h"

#include <gtest/gtest.h>

#include "store/survey.h"
#include "store/test_store.h"
#include "store/token_entry.h"

namespace kvbm::store {
namespace {

using Slots = std::vector<Slot>;

// A store with a chain 1 <- 2 <- 3 in the slots 10, 20 and 30, and block 4 of namespace 7 in 40.
class CheckTest : public testing::Test {
 protected:
  CheckTest() {
    const auto store = open_loaded(files_.files(), shape_);
    put_block(*store, 10, {.hash = 1});
    put_block(*store, 20, {.hash = 2, .parent = 1, .position = 1});
    put_block(*store, 30, {.hash = 3, .parent = 2, .position = 2});
    put_block(*store, 40, {.hash = 4, .name_space = 7});
  }

  CheckReport check(const CheckOptions& options = {.deep = true}) const {
    return store::check(files_.files(), options).value();
  }
  std::byte& index_byte(Slot slot, std::size_t byte) const {
    return files_.index->contents()[slot * kRecordBytes + byte];
  }

  const StoreShape shape_ = test_shape();
  const MemoryFiles files_;
};

TEST_F(CheckTest, FindsNothingInAStoreThatIsWhole) {
  const CheckReport report = check();
  EXPECT_EQ(report.damage(), 0u);
  EXPECT_EQ(report.slots, 100u);
  EXPECT_EQ(report.valid, 4u);
  EXPECT_EQ(report.empty, 96u);
  EXPECT_EQ(report.stale + report.orphans + report.forgotten + report.without_tokens, 0u);
  EXPECT_EQ(report.checked_payload_bytes, 4 * shape_.block_bytes());
  EXPECT_EQ(report.last_put, 4u);
  EXPECT_EQ(check({}).checked_payload_bytes, 0u);
  EXPECT_EQ(files_.blocks->writes(), 4u);
}

TEST_F(CheckTest, ADamagedRecordIsFoundAndZeroedOnRequestOnly) {
  index_byte(20, 3) ^= std::byte{4};
  EXPECT_EQ(check().damaged_records, Slots{20});
  EXPECT_EQ(check().damaged_records, Slots{20});
  const CheckReport repaired = check({.repair = true});
  EXPECT_EQ(repaired.damage(), 1u);
  EXPECT_EQ(repaired.repaired, 1u);
  const CheckReport after = check();
  EXPECT_EQ(after.damage(), 0u);
  EXPECT_EQ(after.valid, 3u);
  EXPECT_EQ(after.orphans, 1u) << "block 3 was behind it";
}

TEST_F(CheckTest, ADamagedPayloadIsFoundInDepthOnly) {
  const std::size_t last = 30 * shape_.extent_bytes() + shape_.block_bytes() - 1;
  files_.blocks->contents()[last] ^= std::byte{1};
  EXPECT_EQ(check({}).damage(), 0u);
  EXPECT_EQ(check().damaged_payloads, Slots{30});
  EXPECT_EQ(check({.deep = true, .repair = true}).repaired, 1u);
  EXPECT_EQ(check().damage(), 0u);
  EXPECT_EQ(check().valid, 3u);
}

TEST_F(CheckTest, PaddingAndFreeSlotsAreNobodysDamage) {
  files_.blocks->contents()[30 * shape_.extent_bytes() + shape_.block_bytes()] ^= std::byte{1};
  files_.blocks->contents()[31 * shape_.extent_bytes()] ^= std::byte{1};
  EXPECT_EQ(check().damage(), 0u);
}

TEST_F(CheckTest, ABlockThatCannotBeReadIsDamaged) {
  files_.blocks->set_hook([&](const FakeFile::Call& call) {
    return call.offset == 20 * shape_.extent_bytes() ? FakeFile::fails(EIO) : FakeFile::Fault{};
  });
  EXPECT_EQ(check().damaged_payloads, Slots{20});
}

TEST_F(CheckTest, AnIndexThatCannotBeReadIsAnError) {
  files_.index->set_hook([](const FakeFile::Call&) { return FakeFile::fails(EIO); });
  const auto checked = store::check(files_.files(), {});
  ASSERT_FALSE(checked.has_value());
  EXPECT_EQ(checked.error().native, EIO);
}

TEST_F(CheckTest, ADamagedSuperblockIsReplacedByTheWholeOne) {
  for (const std::size_t place : {0u, 1u}) {
    files_.manifest->contents()[place * kSuperblockBytes + 100] ^= std::byte{1};
    EXPECT_NE(check().damaged_superblock, "");
    EXPECT_EQ(check({.repair = true}).repaired, 1u);
    EXPECT_EQ(check().damage(), 0u);
    EXPECT_EQ(open_loaded(files_.files(), shape_)->counters().blocks_written, 0u)
        << "counters of before the first sync";
  }
}

TEST_F(CheckTest, WhatTwoResetsLeftIsForgottenNotDamaged) {
  open_loaded(files_.files(), shape_)->reset(NamespaceId{0}).value();
  const CheckReport report = check();
  EXPECT_EQ(report.damage(), 0u);
  EXPECT_EQ(report.forgotten, 3u);
  EXPECT_EQ(report.valid, 1u);
}

TEST_F(CheckTest, CountsWhatIsStale) {
  {
    const auto store = open_loaded(files_.files(), shape_);
    put_block(*store, 50, {.hash = 1});
    put_block(*store, 51, {.hash = 4, .name_space = 8});
  }
  const CheckReport report = check();
  EXPECT_EQ(report.damage(), 0u);
  EXPECT_EQ(report.stale, 1u);
  EXPECT_EQ(report.orphans, 0u);
  EXPECT_EQ(report.valid, 6u);
}

TEST_F(CheckTest, AParentInAnotherNamespaceIsNoParent) {
  put_block(*open_loaded(files_.files(), shape_), 50,
            {.hash = 5, .parent = 4, .position = 1, .name_space = 0});
  EXPECT_EQ(check().orphans, 1u);
}

TEST_F(CheckTest, OfTwoRecordsOfOnePutTheLaterSlotGoes) {
  SlotRecord record = TestBlock{.hash = 9}.record(shape_, 60, 0);
  record.put_sequence = 2;
  const auto manifest = read_manifest(*files_.manifest).value();
  const RecordBytes bytes = encode(record, 60, manifest->superblock.store_id);
  files_.index->write(bytes, 60 * kRecordBytes).value();
  EXPECT_EQ(check({}).repeated_puts, Slots{60});
  EXPECT_EQ(check({.repair = true}).repaired, 1u);
  EXPECT_EQ(check().damage(), 0u);
}

TEST_F(CheckTest, ARecordOfMoreTokensThanABlockHasIsDamaged) {
  SlotRecord record = TestBlock{.hash = 9}.record(shape_, 60, 0);
  record.put_sequence = 9;
  record.token_count = static_cast<std::uint16_t>(shape_.page_size + 1);
  const auto manifest = read_manifest(*files_.manifest).value();
  const RecordBytes bytes = encode(record, 60, manifest->superblock.store_id);
  files_.index->write(bytes, 60 * kRecordBytes).value();
  EXPECT_EQ(check({}).damaged_records, Slots{60});
}

TEST_F(CheckTest, CountsBlocksWithoutTheirTokens) {
  files_.tokens->contents()[20 * token_entry_bytes(shape_) + 5] ^= std::byte{1};
  const CheckReport report = check();
  EXPECT_EQ(report.without_tokens, 1u);
  EXPECT_EQ(report.damage(), 0u) << "the block is whole";
}

TEST_F(CheckTest, RefusesWhatIsNoStoreAndWritesNothing) {
  const auto refused = [&](auto& file, std::size_t bytes, const char* told) {
    const auto before = file.contents();
    file.contents().resize(bytes);
    const auto checked = store::check(files_.files(), {.deep = true, .repair = true});
    ASSERT_FALSE(checked.has_value());
    EXPECT_EQ(checked.error().code, ErrorCode::OperationFailed);
    EXPECT_NE(checked.error().message.find(told), std::string::npos) << checked.error().message;
    EXPECT_EQ(file.contents().size(), bytes);
    file.contents() = before;
  };
  refused(*files_.manifest, 0, "never finished");
  refused(*files_.manifest, 100, "16384");
  refused(*files_.index, 99 * kRecordBytes, "kvbm-index has 6336 bytes");
  refused(*files_.blocks, 0, "kvbm-blocks has 0 bytes");
  refused(*files_.tokens, 1, "kvbm-tokens has 1 bytes");
  StoreFiles without = files_.files();
  without.tokens = nullptr;
  const auto checked = store::check(without, {});
  ASSERT_FALSE(checked.has_value());
  EXPECT_NE(checked.error().message.find("kvbm-tokens is missing"), std::string::npos);
  EXPECT_EQ(check().damage(), 0u);
}

TEST_F(CheckTest, TellsHowFarItIs) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> told;
  check({.progress = [&](std::uint64_t done, std::uint64_t total) {
    told.emplace_back(done, total);
  }});
  ASSERT_GE(told.size(), 2u);
  EXPECT_EQ(told.front().first, 0u);
  EXPECT_EQ(told.back(), std::pair(std::uint64_t{100}, std::uint64_t{100}));
}

TEST_F(CheckTest, TokensAreReadAsTheStoreReadsThem) {
  const auto store = open_loaded(files_.files(), shape_);
  for (const Slot slot : {10, 20, 30, 40}) {
    SlotRecord record;
    ASSERT_EQ(store->read(slot, record).value(), RecordState::Valid);
    const auto tokens = read_tokens(files_.tokens.get(), shape_, slot, record);
    EXPECT_EQ(tokens.size(), 4u);
    EXPECT_EQ(tokens, store->tokens(slot, record));
    const auto entry = encode_tokens(record, tokens);
    EXPECT_EQ(
        std::memcmp(entry.data(), &files_.tokens->contents()[slot * entry.size()], entry.size()),
        0);
  }
}

TEST(PayloadTest, ASumDoesNotDependOnHowTheBytesCome) {
  const std::vector<std::uint32_t> regions = {300, 1, 64, 700};
  std::vector<std::byte> bytes(1065 + 10);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(i * 7 % 251);
  std::vector<std::uint64_t> sums;
  for (std::size_t at = 0, i = 0; i < regions.size(); at += regions[i++]) {
    sums.push_back(xxh3(&bytes[at], regions[i]));
  }
  const std::uint64_t expected = xxh3(sums.data(), sums.size() * 8);
  for (const std::size_t step : {1, 7, 64, 300, 301, 1000, 1075}) {
    PayloadSum sum(regions);
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      sum.add(std::span(bytes).subspan(at, std::min(step, bytes.size() - at)));
    }
    EXPECT_EQ(sum.finish(), expected) << "in pieces of " << step;
  }
}

TEST(PayloadTest, LargeBlocksAreReadInPiecesThatTheFileTakes) {
  StoreShape shape = test_shape(2);
  shape.region_bytes = {5 << 20, 100};
  auto file = std::make_shared<FakeFile>(shape.payload_bytes(), kExtentUnit);
  const std::vector<std::byte> bytes = TestBlock{.hash = 3}.bytes(shape);
  std::copy(bytes.begin(), bytes.end(),
            file->contents().begin() + static_cast<std::ptrdiff_t>(shape.extent_bytes()));
  PayloadReader reader(*file, shape);
  std::vector<std::byte> read;
  const auto sum = reader.read(1, [&](std::span<const std::byte> piece) {
    read.insert(read.end(), piece.begin(), piece.end());
  });
  EXPECT_EQ(read, bytes);
  EXPECT_EQ(file->reads(), 2u);
  PayloadSum expected(shape.region_bytes);
  expected.add(bytes);
  EXPECT_EQ(sum.value(), expected.finish());
}

}  // namespace
}  // namespace kvbm::store
