#include <gtest/gtest.h>

#include <utility>

#include "store/check.h"
#include "store/export_blocks.h"
#include "store/import_blocks.h"
#include "store/test_export.h"
#include "store/test_store.h"

namespace kvbm::store {
namespace {

using Bytes = std::vector<std::byte>;
using Hashes = std::vector<std::uint64_t>;

// A store with two chains 1 <- 2 <- 3 and 1 <- 5, block 1 twice, and block 4 of namespace 7.
class ExportTest : public testing::Test {
 protected:
  ExportTest() {
    const auto store = open_loaded(source_.files(), shape_);
    put_block(*store, 30, {.hash = 3, .parent = 2, .position = 2});
    put_block(*store, 11, {.hash = 1});
    put_block(*store, 10, {.hash = 1});
    put_block(*store, 20, {.hash = 2, .parent = 1, .position = 1});
    put_block(*store, 50, {.hash = 5, .parent = 1, .position = 1});
    put_block(*store, 40, {.hash = 4, .name_space = 7});
    put_block(*store, 60, {.hash = 6, .name_space = 9});
    store->reset(NamespaceId{9}).value();
  }

  Bytes exported(const ExportOptions& options = {}, ExportReport* report = nullptr) const {
    Bytes file;
    const auto made = export_blocks(source_.files(), options, sink_to(file));
    EXPECT_TRUE(made.has_value()) << made.error().to_string();
    if (report && made) *report = *made;
    return file;
  }
  Hashes hashes_in(const Bytes& file) const {
    auto reader = ExportReader::open(source_of(file)).value();
    Hashes hashes;
    while (const auto block = reader.next().value()) hashes.push_back(block->sequence_hash.value());
    return hashes;
  }
  std::string refusal(const ExportOptions& options) const {
    Bytes file;
    const auto made = export_blocks(source_.files(), options, sink_to(file));
    return made ? "" : made.error().message;
  }

  const StoreShape shape_ = test_shape();
  const MemoryFiles source_;
};

// Imports all of a file into the store in `files`.
Result<ImportReport> import_into(const StoreFiles& files, const StoreShape& shape,
                                 const Bytes& file) {
  KVBM_TRY(auto store, DiskStore::open(files, shape));
  KVBM_TRY(auto reader, ExportReader::open(source_of(file)));
  ImportReport report;
  KVBM_CHECK_OK(import_blocks(*store, reader, report));
  store->check_invariants();
  return report;
}

// --- out and in ------------------------------------------------------------------------------

TEST_F(ExportTest, BlocksComeOutParentsFirstEachOnce) {
  ExportReport report;
  const Bytes file = exported({}, &report);
  EXPECT_EQ(hashes_in(file), (Hashes{1, 4, 2, 5, 3}));
  EXPECT_EQ(report.blocks, 5u);
  EXPECT_EQ(report.bytes, 5 * shape_.block_bytes());
  EXPECT_EQ(report.damaged + report.gone, 0u);
  const auto reader = ExportReader::open(source_of(file)).value();
  EXPECT_EQ(reader.header().shape.model, shape_.model);
  EXPECT_EQ(reader.header().shape.region_bytes, shape_.region_bytes);
  EXPECT_EQ(reader.header().num_blocks, 5u);
  EXPECT_GT(reader.header().exported, 0u);
}

TEST_F(ExportTest, ABlockComesOutWithAllThatItIs) {
  const Bytes file = exported();
  auto reader = ExportReader::open(source_of(file)).value();
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(reader.next().value().has_value());
  const ExportedBlock block = reader.next().value().value();
  EXPECT_EQ(block.sequence_hash, SequenceHash(3));
  EXPECT_EQ(block.parent_hash, SequenceHash(2));
  EXPECT_EQ(block.digest, 4u);
  EXPECT_EQ(block.position, 2u);
  EXPECT_EQ(block.token_count, 4u);
  EXPECT_EQ(block.name_space, 0u);
  EXPECT_EQ(block.priority, 35u);
  EXPECT_EQ(block.tokens, TestBlock{.hash = 3}.tokens(shape_));
  Bytes payload;
  reader
      .read_payload([&](std::span<const std::byte> piece) {
        payload.insert(payload.end(), piece.begin(), piece.end());
      })
      .value();
  EXPECT_EQ(payload, TestBlock{.hash = 3}.bytes(shape_));
  PayloadSum sum(shape_.region_bytes);
  sum.add(payload);
  EXPECT_EQ(block.payload_sum, sum.finish());
  EXPECT_FALSE(reader.next().value().has_value());
  EXPECT_FALSE(reader.next().value().has_value());
}

TEST_F(ExportTest, ANamespaceOrChainsComeOutAlone) {
  EXPECT_EQ(hashes_in(exported({.name_space = NamespaceId{7}})), Hashes{4});
  EXPECT_EQ(hashes_in(exported({.name_space = NamespaceId{100}})), Hashes{});
  EXPECT_EQ(hashes_in(exported({.ends = {SequenceHash(2)}})), (Hashes{1, 2}));
  EXPECT_EQ(hashes_in(exported({.ends = {SequenceHash(3), SequenceHash(5)}})),
            (Hashes{1, 2, 5, 3}));
}

TEST_F(ExportTest, ChainsThatAreNotThereAreNamed) {
  EXPECT_NE(refusal({.ends = {SequenceHash(0x1234)}}).find("0x0000000000001234"),
            std::string::npos);
  EXPECT_NE(refusal({.ends = {SequenceHash(6)}}), "") << "it was reset";
  EXPECT_NE(refusal({.name_space = NamespaceId{7}, .ends = {SequenceHash(2)}}), "");
  open_loaded(source_.files(), shape_)->clear(20).value();
  const std::string told = refusal({.ends = {SequenceHash(3)}});
  EXPECT_NE(told.find("0000003 is not whole: block 0x0000000000000002 at position 1"),
            std::string::npos)
      << told;
}

TEST_F(ExportTest, AChainThatBitesItsTailEnds) {
  put_block(*open_loaded(source_.files(), shape_), 70, {.hash = 8, .parent = 8, .position = 1});
  EXPECT_NE(refusal({.ends = {SequenceHash(8)}}).find("is not whole"), std::string::npos);
}

TEST_F(ExportTest, DamagedBlocksStayAtHome) {
  source_.blocks->contents()[20 * shape_.extent_bytes()] ^= std::byte{1};
  ExportReport report;
  EXPECT_EQ(hashes_in(exported({}, &report)), (Hashes{1, 4, 5, 3}));
  EXPECT_EQ(report.damaged, 1u);
  EXPECT_EQ(report.gone, 0u);
}

TEST_F(ExportTest, ABlockThatItsOwnerOverwritesMeanwhileIsNoDamage) {
  const auto owner = open_loaded(source_.files(), shape_);
  bool first = true;
  source_.blocks->set_hook([&](const FakeFile::Call& call) {
    if (call.op == FakeFile::Op::Read && std::exchange(first, false)) {
      put_block(*owner, 20, {.hash = 77});
    }
    return FakeFile::Fault{};
  });
  ExportReport report;
  EXPECT_EQ(hashes_in(exported({}, &report)), (Hashes{1, 4, 5, 3}));
  EXPECT_EQ(report.damaged, 0u);
  EXPECT_EQ(report.gone, 1u);
}

TEST_F(ExportTest, WhatCameOutGoesIntoAnotherStore) {
  const MemoryFiles target;
  StoreShape small = shape_;
  small.num_slots = 20;
  open_loaded(target.files(), small)->reset(NamespaceId{7}).value();
  const auto report = import_into(target.files(), small, exported()).value();
  EXPECT_EQ(report.blocks, 5u);
  EXPECT_EQ(report.imported, 5u);

  const CheckReport checked = check(target.files(), {.deep = true}).value();
  EXPECT_EQ(checked.valid, 5u) << "in the present epoch";
  EXPECT_EQ(checked.damage() + checked.orphans + checked.without_tokens, 0u);
  Bytes again;
  export_blocks(target.files(), {}, sink_to(again)).value();
  EXPECT_EQ(hashes_in(again), (Hashes{1, 4, 2, 5, 3}));
  const auto store = DiskStore::open(target.files(), small).value();
  SlotRecord record;
  ASSERT_EQ(store->read(4, record).value(), RecordState::Valid);
  EXPECT_EQ(record.parent_slot, 2u) << "block 3 is behind block 2";
  EXPECT_EQ(store->counters().blocks_written, 5u);
  EXPECT_EQ(store->counters().payload_bytes_written, 5 * small.extent_bytes());
}

TEST_F(ExportTest, ImportPassesOverWhatIsThere) {
  const auto report = import_into(source_.files(), shape_, exported()).value();
  EXPECT_EQ(report.present, 5u);
  EXPECT_EQ(report.imported, 0u);
}

TEST_F(ExportTest, ImportTakesFreeSlotsOnlyAndTellsWhatDidNotFit) {
  const MemoryFiles target;
  StoreShape small = shape_;
  small.num_slots = 4;
  put_block(*open_loaded(target.files(), small), 1, {.hash = 100});
  const auto report = import_into(target.files(), small, exported()).value();
  EXPECT_EQ(report.imported, 3u);
  EXPECT_EQ(report.did_not_fit, 2u);
  const CheckReport checked = check(target.files(), {.deep = true}).value();
  EXPECT_EQ(checked.valid, 4u);
  EXPECT_EQ(checked.orphans, 0u) << "parents came first";
  SlotRecord record;
  ASSERT_EQ(DiskStore::open(target.files(), small).value()->read(1, record).value(),
            RecordState::Valid);
  EXPECT_EQ(record.sequence_hash, SequenceHash(100));
}

TEST_F(ExportTest, ImportUsesForgottenAndDamagedSlots) {
  const MemoryFiles target;
  StoreShape small = shape_;
  small.num_slots = 5;
  {
    const auto store = open_loaded(target.files(), small);
    for (Slot slot = 0; slot < 5; ++slot) put_block(*store, slot, {.hash = slot + 100});
    store->reset(std::nullopt).value();
  }
  target.index->contents()[10] ^= std::byte{1};
  EXPECT_EQ(import_into(target.files(), small, exported()).value().imported, 5u);
  EXPECT_EQ(check(target.files(), {.deep = true}).value().valid, 5u);
}

TEST_F(ExportTest, StoresOfAnotherKindAreRefusedNamingBoth) {
  const Bytes file = exported();
  const auto refused = [&](auto change, std::vector<std::string> words) {
    const MemoryFiles target;
    StoreShape other = shape_;
    change(other);
    const auto imported = import_into(target.files(), other, file);
    ASSERT_FALSE(imported.has_value());
    EXPECT_EQ(imported.error().code, ErrorCode::InvalidConfig);
    for (const std::string& word : words) {
      EXPECT_NE(imported.error().message.find(word), std::string::npos) << imported.error().message;
    }
  };
  refused([](StoreShape& s) { s.model = "another"; }, {"'another', the file 'a model'"});
  refused([](StoreShape& s) { s.layout_digest = 6; }, {"layout", "0005", "0006"});
  refused([](StoreShape& s) { s.region_bytes = {64}; }, {"block size", "64", "264"});
  refused([](StoreShape& s) { s.page_size = 8; }, {"page size", "8, the file 4"});
  refused([](StoreShape& s) { s.hash_profile = "vllm"; }, {"hash profile"});
  refused([](StoreShape& s) { s.key_fingerprint = 1; }, {"key"});
}

TEST_F(ExportTest, TokensMayBeKeptOnOneSideOnly) {
  const MemoryFiles without;
  StoreShape shape = shape_;
  shape.keeps_tokens = false;
  EXPECT_EQ(import_into(without.files(), shape, exported()).value().imported, 5u);
  Bytes file;
  export_blocks(without.files(), {}, sink_to(file)).value();
  const MemoryFiles with;
  EXPECT_EQ(import_into(with.files(), shape_, file).value().imported, 5u);
  EXPECT_EQ(check(with.files(), {.deep = true}).value().without_tokens, 5u);
}

TEST_F(ExportTest, PayloadsAreDurableBeforeTheirRecords) {
  const MemoryFiles target;
  open_loaded(target.files(), shape_);
  bool is_dirty = false;
  int records = 0;
  target.blocks->set_hook([&](const FakeFile::Call& call) {
    if (call.op != FakeFile::Op::Read) is_dirty = call.op == FakeFile::Op::Write;
    return FakeFile::Fault{};
  });
  target.index->set_hook([&](const FakeFile::Call& call) {
    if (call.op != FakeFile::Op::Write) return FakeFile::Fault{};
    ++records;
    EXPECT_FALSE(is_dirty);
    return FakeFile::Fault{};
  });
  ASSERT_TRUE(import_into(target.files(), shape_, exported()).has_value());
  EXPECT_EQ(records, 5);
}

// --- files that are not what they were -------------------------------------------------------

TEST_F(ExportTest, ACutFileIsRecognisedWhereverItWasCut) {
  const Bytes whole = exported({.ends = {SequenceHash(2)}});
  // What reading all of it comes to.
  const auto read_all = [](std::span<const std::byte> file) -> Result<void> {
    KVBM_TRY(auto reader, ExportReader::open(source_of(file)));
    while (true) {
      KVBM_TRY(const auto block, reader.next());
      if (!block) return {};
    }
  };
  ASSERT_TRUE(read_all(whole).has_value());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto read = read_all(std::span(whole).first(size));
    ASSERT_FALSE(read.has_value()) << size << " of " << whole.size() << " bytes";
    const std::string& told = read.error().message;
    const char* expected = size < 8 ? "no file of exported blocks" : "the file was cut";
    EXPECT_NE(told.find(expected), std::string::npos) << size << ": " << told;
  }
}

TEST_F(ExportTest, NoFlippedByteBringsInAnotherBlock) {
  const Bytes whole = exported({.ends = {SequenceHash(2)}});
  for (std::size_t at = 0; at < whole.size(); at += at < kExportHeaderBytes ? 97 : 1) {
    Bytes file = whole;
    file[at] ^= std::byte{0x10};
    const MemoryFiles target;
    StoreShape small = shape_;
    small.num_slots = 4;
    const auto imported = import_into(target.files(), small, file);
    EXPECT_TRUE(imported ? imported->damaged == 1 : !imported.error().message.empty())
        << "byte " << at;
    if (target.index->size() > 0) {
      EXPECT_EQ(check(target.files(), {.deep = true}).value().damage(), 0u) << "byte " << at;
    }
  }
}

TEST_F(ExportTest, WhatWasWholeBeforeTheDamageStays) {
  Bytes file = exported({.ends = {SequenceHash(2)}});
  file.erase(file.end() - kExportEntryBytes - 1, file.end());  // in the second block's payload
  const MemoryFiles target;
  const auto store = DiskStore::open(target.files(), shape_).value();
  auto reader = ExportReader::open(source_of(file)).value();
  ImportReport report;
  const auto imported = import_blocks(*store, reader, report);
  ASSERT_FALSE(imported.has_value());
  EXPECT_NE(imported.error().message.find("a block's bytes, behind 2 blocks of at most 2"),
            std::string::npos);
  EXPECT_EQ(report.blocks, 2u);
  EXPECT_EQ(report.imported, 1u);
  EXPECT_EQ(check(target.files(), {.deep = true}).value().valid, 1u);
}

TEST_F(ExportTest, NothingMayFollowTheEnd) {
  Bytes file = exported();
  file.push_back(std::byte{0});
  const auto imported = import_into(MemoryFiles().files(), shape_, file);
  ASSERT_FALSE(imported.has_value());
  EXPECT_NE(imported.error().message.find("something follows"), std::string::npos);
}

TEST_F(ExportTest, AMissingOrRepeatedBlockIsRecognised) {
  const Bytes whole = exported();
  const std::size_t block_bytes =
      kExportEntryBytes + shape_.page_size * sizeof(Token) + shape_.block_bytes();
  const auto begin = whole.begin() + kExportHeaderBytes;
  const auto next = begin + static_cast<std::ptrdiff_t>(block_bytes);
  Bytes missing = whole;
  missing.erase(missing.begin() + kExportHeaderBytes,
                missing.begin() + static_cast<std::ptrdiff_t>(kExportHeaderBytes + block_bytes));
  Bytes repeated = whole;
  repeated.insert(repeated.begin() + kExportHeaderBytes, begin, next);
  for (const Bytes& file : {missing, repeated}) {
    const auto imported = import_into(MemoryFiles().files(), shape_, file);
    ASSERT_FALSE(imported.has_value());
    EXPECT_NE(imported.error().message.find("a block is missing before it"), std::string::npos);
  }
}

TEST_F(ExportTest, AnotherVersionIsRefusedNamingBoth) {
  Bytes file = exported();
  file[8] = std::byte{9};
  const auto opened = ExportReader::open(source_of(file));
  ASSERT_FALSE(opened.has_value());
  EXPECT_NE(opened.error().message.find("version 9"), std::string::npos);
  EXPECT_NE(opened.error().message.find("version 1"), std::string::npos);
}

TEST_F(ExportTest, ErrorsOfTheSinkAndTheSourceComeThrough) {
  for (int calls = 0; calls < 6; ++calls) {
    int left = calls;
    const auto made =
        export_blocks(source_.files(), {}, [&](std::span<const std::byte>) -> Result<void> {
          if (left-- > 0) return {};
          return Error{ErrorCode::OperationFailed, ENOSPC, 0, 0, "the sink"};
        });
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().native, ENOSPC);
  }
  const auto opened = ExportReader::open([](std::span<std::byte>) -> Result<std::size_t> {
    return Error{ErrorCode::OperationFailed, EIO, 0, 0, "the source"};
  });
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().native, EIO);
}

TEST_F(ExportTest, TellsHowFarItIs) {
  std::vector<std::uint64_t> told;
  exported({.progress = [&](std::uint64_t done, std::uint64_t total) {
    EXPECT_EQ(total, 5u);
    told.push_back(done);
  }});
  EXPECT_EQ(told, (std::vector<std::uint64_t>{1, 2, 3, 4, 5}));
}

}  // namespace
}  // namespace kvbm::store
