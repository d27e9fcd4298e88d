#include "store/disk_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>

#include "platform/os/fake_file.h"

namespace kvbm::store {
namespace {

StoreShape shape_of(std::uint32_t slots = 100) {
  return {.model = "a model",
          .layout = "2x(2xN16C4:fp16)",
          .layout_digest = 5,
          .region_bytes = {128, 128, 128, 128},
          .page_size = 16,
          .hash_profile = "kvbm",
          .key_fingerprint = 9,
          .num_slots = slots,
          .keeps_tokens = true};
}

// Files in memory that outlive the stores that are opened on them.
struct MemoryFiles {
  std::shared_ptr<FakeFile> manifest = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> index = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> tokens = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> blocks = std::make_shared<FakeFile>(0);
  StoreFiles files() const { return {manifest, index, tokens, blocks}; }
  Result<std::unique_ptr<DiskStore>> open(const StoreShape& shape = shape_of()) const {
    return DiskStore::open(files(), shape);
  }
};

SlotRecord record_of(std::uint64_t hash, std::uint32_t epoch = 0, NamespaceId name_space = 0) {
  return {.sequence_hash = SequenceHash(hash),
          .parent_hash = SequenceHash(),
          .digest = hash + 1,
          .sealed_sum = hash + 2,
          .epoch = epoch,
          .token_count = 16,
          .name_space = name_space};
}

std::map<Slot, std::uint64_t> load(DiskStore& store, LoadCounts* counts = nullptr) {
  std::map<Slot, std::uint64_t> found;
  const auto loaded = store.load(
      [&](Slot slot, const SlotRecord& record) { found[slot] = record.sequence_hash.value(); });
  EXPECT_TRUE(loaded.has_value());
  if (counts) *counts = *loaded;
  return found;
}

TEST(DiskStoreTest, WhatWasPutIsThereInTheNextLife) {
  const MemoryFiles files;
  std::uint64_t id = 0;
  {
    const auto store = files.open().value();
    id = store->id();
    EXPECT_TRUE(load(*store).empty());
    ASSERT_TRUE(store->put(3, record_of(30)).has_value());
    ASSERT_TRUE(store->put(99, record_of(990)).has_value());
    ASSERT_TRUE(store->put(4, record_of(40)).has_value());
    ASSERT_TRUE(store->clear(4).has_value());
    ASSERT_TRUE(store->put(3, record_of(31)).has_value());
    store->check_invariants();
  }
  const auto store = files.open().value();
  LoadCounts counts;
  EXPECT_EQ(load(*store, &counts), (std::map<Slot, std::uint64_t>{{3, 31}, {99, 990}}));
  EXPECT_EQ(counts.valid, 2u);
  EXPECT_EQ(counts.empty, 98u);
  EXPECT_EQ(store->id(), id);
  SlotRecord record;
  ASSERT_EQ(store->read(3, record).value(), RecordState::Valid);
  const std::uint64_t put = record.put_sequence;
  ASSERT_TRUE(store->put(5, record_of(50)).has_value());
  ASSERT_EQ(store->read(5, record).value(), RecordState::Valid);
  EXPECT_GT(record.put_sequence, put) << "the order of puts goes on";
  store->check_invariants();
}

TEST(DiskStoreTest, AClearedSlotCostsAWriteOnlyIfThereIsSomething) {
  const MemoryFiles files;
  const auto store = files.open().value();
  load(*store);
  const std::uint64_t before = files.index->writes();
  ASSERT_TRUE(store->clear(7).has_value());
  EXPECT_EQ(files.index->writes(), before);
  ASSERT_TRUE(store->put(7, record_of(1)).has_value());
  ASSERT_TRUE(store->clear(7).has_value());
  ASSERT_TRUE(store->clear(7).has_value());
  EXPECT_EQ(files.index->writes(), before + 2);
}

TEST(DiskStoreTest, TokensComeBackOnlyWithTheRecordTheyWerePutWith) {
  const MemoryFiles files;
  const auto store = files.open().value();
  load(*store);
  std::vector<Token> tokens(16);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<Token>(i * 3);
  ASSERT_TRUE(store->put(8, record_of(80), tokens).has_value());
  SlotRecord record;
  ASSERT_EQ(store->read(8, record).value(), RecordState::Valid);
  EXPECT_EQ(store->tokens(8, record), tokens);
  ASSERT_TRUE(store->put(8, record_of(81)).has_value()) << "a block whose tokens nobody knows";
  ASSERT_EQ(store->read(8, record).value(), RecordState::Valid);
  EXPECT_TRUE(store->tokens(8, record).empty());
}

TEST(DiskStoreTest, ARecordOfMoreTokensThanABlockHasIsDamage) {
  const MemoryFiles files;
  {
    const auto store = files.open().value();
    load(*store);
    SlotRecord record = record_of(10);
    record.token_count = 17;
    ASSERT_TRUE(store->put(1, record).has_value());
  }
  LoadCounts counts;
  EXPECT_TRUE(load(*files.open().value(), &counts).empty());
  EXPECT_EQ(counts.damaged, 1u);
}

TEST(DiskStoreTest, AResetForgetsItsNamespaceForGood) {
  const MemoryFiles files;
  {
    const auto store = files.open().value();
    load(*store);
    ASSERT_TRUE(store->put(1, record_of(10, store->epoch(0), 0)).has_value());
    ASSERT_TRUE(store->put(2, record_of(20, store->epoch(3), 3)).has_value());
    const std::uint32_t before = store->epoch(3);
    ASSERT_TRUE(store->reset(NamespaceId{3}).has_value());
    EXPECT_EQ(store->epoch(3), before + 1);
    // It was named before the reset, and arrives after it.
    ASSERT_TRUE(store->put(3, record_of(30, before, 3)).has_value());
    ASSERT_TRUE(store->put(4, record_of(40, store->epoch(3), 3)).has_value());
  }
  LoadCounts counts;
  {
    const auto store = files.open().value();
    EXPECT_EQ(load(*store, &counts), (std::map<Slot, std::uint64_t>{{1, 10}, {4, 40}}));
    EXPECT_EQ(counts.forgotten, 2u);
    ASSERT_TRUE(store->reset(std::nullopt).has_value());
  }
  const auto store = files.open().value();
  EXPECT_TRUE(load(*store, &counts).empty());
  EXPECT_EQ(counts.forgotten, 4u);
}

TEST(DiskStoreTest, NeitherSuperblockBringsBackWhatIsForgotten) {
  for (const std::size_t rotten : {0, 1}) {
    const MemoryFiles files;
    {
      const auto store = files.open().value();
      load(*store);
      ASSERT_TRUE(store->put(1, record_of(10)).has_value());
      ASSERT_TRUE(store->reset(std::nullopt).has_value());
    }
    files.manifest->contents()[rotten * kSuperblockBytes + 100] ^= std::byte{1};
    const auto store = files.open().value();
    EXPECT_TRUE(load(*store).empty());
  }
}

TEST(DiskStoreTest, AResetThatCouldNotBeWrittenIsWrittenLater) {
  const MemoryFiles files;
  {
    const auto store = files.open().value();
    load(*store);
    ASSERT_TRUE(store->put(1, record_of(10)).has_value());
    files.manifest->set_hook([](const FakeFile::Call&) { return FakeFile::fails(EIO); });
    const auto failed = store->reset(std::nullopt);
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error().native, EIO);
    EXPECT_EQ(store->epoch(0), 1u) << "forgotten by this process all the same";
    files.manifest->set_hook({});
    ASSERT_TRUE(store->sync().has_value());
  }
  const auto store = files.open().value();
  EXPECT_TRUE(load(*store).empty());
}

TEST(DiskStoreTest, AnEpochThatARecordBearsIsNeverUsedAgain) {
  const MemoryFiles files;
  {
    const auto store = files.open().value();
    load(*store);
    files.manifest->set_hook([](const FakeFile::Call&) { return FakeFile::fails(EIO); });
    ASSERT_FALSE(store->reset(std::nullopt).has_value());
    // Its epoch is known to this process only, which ends now.
    ASSERT_TRUE(store->put(1, record_of(10, store->epoch(0))).has_value());
  }
  files.manifest->set_hook({});
  const auto store = files.open().value();
  EXPECT_TRUE(load(*store).empty());
  ASSERT_TRUE(store->reset(std::nullopt).has_value());
  EXPECT_GT(store->epoch(0), 1u) << "or the reset would bring the block back";
}

TEST(DiskStoreTest, OneSuperblockIsEnoughAndIsMadeTwoAgain) {
  for (const std::size_t rotten : {0, 1}) {
    const MemoryFiles files;
    std::uint64_t id = files.open().value()->id();
    files.manifest->contents()[rotten * kSuperblockBytes + 50] ^= std::byte{1};
    EXPECT_EQ(files.open().value()->id(), id);
    files.manifest->contents()[(1 - rotten) * kSuperblockBytes + 50] ^= std::byte{1};
    EXPECT_EQ(files.open().value()->id(), id);
  }
}

TEST(DiskStoreTest, ATornSuperblockLeavesTheOneBefore) {
  const MemoryFiles files;
  const auto store = files.open().value();
  const std::uint64_t id = store->id();
  for (int i = 0; i < 3; ++i) {
    files.manifest->set_hook([](const FakeFile::Call& call) {
      return call.op == FakeFile::Op::Write ? FakeFile::stops_after(4096) : FakeFile::Fault{};
    });
    ASSERT_FALSE(store->write_manifest().has_value());
    files.manifest->set_hook({});
    EXPECT_EQ(read_manifest(*files.manifest).value()->superblock.store_id, id);
  }
  EXPECT_TRUE(store->write_manifest().has_value());
}

TEST(DiskStoreTest, RefusesAStoreOfAnotherKindNamingBoth) {
  const MemoryFiles files;
  ASSERT_TRUE(files.open().has_value());
  const auto contents = files.manifest->contents();
  const auto refused = [&](auto change, std::vector<std::string> words) {
    StoreShape other = shape_of();
    change(other);
    const auto opened = files.open(other);
    ASSERT_FALSE(opened.has_value());
    EXPECT_EQ(opened.error().code, ErrorCode::InvalidConfig);
    for (const std::string& word : words) {
      EXPECT_NE(opened.error().message.find(word), std::string::npos) << opened.error().message;
    }
    EXPECT_EQ(files.manifest->contents(), contents);
  };
  refused([](StoreShape& s) { s.model = "another"; }, {"model", "'a model'", "'another'"});
  refused([](StoreShape& s) { s.layout_digest = 6; }, {"layout", "0000000000000005", "06"});
  refused([](StoreShape& s) { s.key_fingerprint = 255; }, {"key", "0009", "00ff"});
  refused([](StoreShape& s) { s.hash_profile = "vllm"; }, {"hash profile", "'kvbm'", "'vllm'"});
  refused([](StoreShape& s) { s.page_size = 32; }, {"page size", "16", "32"});
  refused([](StoreShape& s) { s.region_bytes = {512, 512}; }, {"block size", "512", "1024"});
  refused([](StoreShape& s) { s.keeps_tokens = false; }, {"tokens", "on", "off"});
}

TEST(DiskStoreTest, RefusesAnotherVersionNamingBoth) {
  const MemoryFiles files;
  ASSERT_TRUE(files.open().has_value());
  for (const std::size_t place : {0, 1}) {
    files.manifest->contents()[place * kSuperblockBytes + 8] = std::byte{9};
  }
  const auto opened = files.open();
  ASSERT_FALSE(opened.has_value());
  EXPECT_NE(opened.error().message.find("version 9"), std::string::npos);
  EXPECT_NE(opened.error().message.find("version 1"), std::string::npos);
}

TEST(DiskStoreTest, OverwritesNothingThatItDoesNotUnderstand) {
  const auto fill = [](FakeFile& file, std::size_t bytes) {
    file.contents().assign(bytes, std::byte{7});
  };
  {
    const MemoryFiles files;  // somebody's file under our name
    fill(*files.manifest, kManifestBytes);
    EXPECT_FALSE(files.open().has_value());
    EXPECT_EQ(files.manifest->writes(), 0u);
  }
  {
    const MemoryFiles files;
    fill(*files.manifest, 10);
    EXPECT_FALSE(files.open().has_value());
    EXPECT_EQ(files.manifest->writes(), 0u);
  }
  {
    const MemoryFiles files;  // records, but the manifest is gone
    ASSERT_TRUE(files.open().value()->put(1, record_of(10)).has_value());
    files.manifest->contents().clear();
    const auto blocks = files.blocks->contents();
    EXPECT_FALSE(files.open().has_value());
    EXPECT_EQ(files.blocks->contents(), blocks);
  }
  {
    const MemoryFiles files;
    fill(*files.blocks, 8192);
    EXPECT_FALSE(files.open().has_value());
    EXPECT_EQ(files.blocks->writes(), 0u);
    EXPECT_EQ(files.blocks->size(), 8192u);
  }
}

TEST(DiskStoreTest, FilesThatAreShorterThanTheManifestSaysAreRefused) {
  const MemoryFiles files;
  ASSERT_TRUE(files.open().has_value());
  for (const auto& file : {files.index, files.blocks, files.tokens, files.manifest}) {
    const auto contents = file->contents();
    file->contents().resize(contents.size() - 1);
    EXPECT_FALSE(files.open().has_value());
    file->contents() = contents;
  }
  EXPECT_TRUE(files.open().has_value());
}

TEST(DiskStoreTest, GrowsAndShrinksKeepingWhatFits) {
  const MemoryFiles files;
  {
    const auto store = files.open(shape_of(100)).value();
    load(*store);
    ASSERT_TRUE(store->put(10, record_of(10)).has_value());
    ASSERT_TRUE(store->put(90, record_of(90)).has_value());
  }
  {
    const auto store = files.open(shape_of(200)).value();
    EXPECT_EQ(load(*store), (std::map<Slot, std::uint64_t>{{10, 10}, {90, 90}}));
    ASSERT_TRUE(store->put(190, record_of(190)).has_value());
    EXPECT_EQ(files.blocks->size(), 200u * 4096);
  }
  {
    const auto store = files.open(shape_of(50)).value();
    EXPECT_EQ(load(*store), (std::map<Slot, std::uint64_t>{{10, 10}}));
    EXPECT_EQ(files.index->size(), 50u * kRecordBytes);
  }
  const auto store = files.open(shape_of(200)).value();
  EXPECT_EQ(load(*store), (std::map<Slot, std::uint64_t>{{10, 10}})) << "nothing comes back";
}

TEST(DiskStoreTest, RecordsBehindTheLastSlotNeverComeBack) {
  const MemoryFiles files;
  {
    const auto store = files.open(shape_of(200)).value();
    load(*store);
    ASSERT_TRUE(store->put(190, record_of(190)).has_value());
  }
  const auto index = files.index->contents();
  ASSERT_TRUE(files.open(shape_of(100)).has_value());
  files.index->contents() = index;  // as if the process had died before the file was cut
  LoadCounts counts;
  EXPECT_TRUE(load(*files.open(shape_of(300)).value(), &counts).empty());
  EXPECT_EQ(counts.empty, 300u);
}

TEST(DiskStoreTest, CreationThatDiedIsBegunAgain) {
  const MemoryFiles files;
  const StoreShape shape = shape_of();
  ASSERT_TRUE(files.index->resize(shape.num_slots * kRecordBytes).has_value());
  ASSERT_TRUE(files.blocks->resize(4096).has_value());
  ASSERT_TRUE(files.manifest->resize(kManifestBytes).has_value());
  EXPECT_TRUE(files.open().has_value());
}

TEST(DiskStoreTest, CreationThatDiedInTheFirstSuperblockIsBegunAgain) {
  const MemoryFiles files;
  files.manifest->set_hook([](const FakeFile::Call& call) {
    return call.op == FakeFile::Op::Write ? FakeFile::stops_after(4096) : FakeFile::Fault{};
  });
  ASSERT_FALSE(files.open().has_value());
  files.manifest->set_hook({});
  EXPECT_TRUE(files.open().has_value());
}

TEST(DiskStoreTest, DamagedRecordsAreCountedAndCanBeUsedAgain) {
  const MemoryFiles files;
  {
    const auto store = files.open().value();
    load(*store);
    for (Slot slot = 0; slot < 10; ++slot) {
      ASSERT_TRUE(store->put(slot, record_of(slot + 1)).has_value());
    }
  }
  files.index->contents()[5 * kRecordBytes + 3] ^= std::byte{4};
  const auto store = files.open().value();
  LoadCounts counts;
  EXPECT_EQ(load(*store, &counts).count(5), 0u);
  EXPECT_EQ(counts.damaged, 1u);
  EXPECT_EQ(counts.valid, 9u);
  ASSERT_TRUE(store->clear(5).has_value());
  SlotRecord record;
  EXPECT_EQ(store->read(5, record).value(), RecordState::Empty);
}

TEST(DiskStoreTest, CountsWhatItWroteOverItsWholeLife) {
  const MemoryFiles files;
  {
    const auto store = files.open().value();
    load(*store);
    for (Slot slot = 0; slot < 100; slot += 50) {
      ASSERT_TRUE(store->put(slot, record_of(slot + 1)).has_value());
      store->count_payload(4096);
    }
    const std::uint64_t before = store->counters().index_bytes_written;
    ASSERT_TRUE(store->sync().has_value());
    // One page of records holds 64 of them; then the manifest.
    EXPECT_EQ(store->counters().index_bytes_written - before, 4096u + kSuperblockBytes);
    store->count_served(1000);
    ASSERT_TRUE(store->sync().has_value());
    EXPECT_EQ(store->counters().index_bytes_written - before, 4096u + kSuperblockBytes)
        << "nothing was put since the last sync";
    ASSERT_TRUE(store->write_manifest().has_value());
  }
  const StoreCounters counters = files.open().value()->counters();
  EXPECT_EQ(counters.blocks_written, 2u);
  EXPECT_EQ(counters.payload_bytes_written, 8192u);
  EXPECT_EQ(counters.bytes_served, 1000u);
}

// --- in a directory --------------------------------------------------------------------------

class StoreDirectoryTest : public testing::Test {
 protected:
  StoreDirectoryTest() {
    std::string name = testing::TempDir() + "kvbm-store-XXXXXX";
    parent_ = ::mkdtemp(name.data());
  }
  ~StoreDirectoryTest() override { std::filesystem::remove_all(parent_); }
  std::string directory() const { return parent_ + "/store"; }
  std::string parent_;
};

TEST_F(StoreDirectoryTest, ADirectoryHasOneOwner) {
  auto first = open_disk_store(directory(), shape_of());
  ASSERT_TRUE(first.has_value()) << first.error().to_string();
  const auto second = open_disk_store(directory(), shape_of());
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().message.find("in use"), std::string::npos);
  EXPECT_TRUE(open_store_files_to_read(directory()).has_value());
  first->reset();
  EXPECT_TRUE(open_disk_store(directory(), shape_of()).has_value());
}

TEST_F(StoreDirectoryTest, WhatDoesNotFitLeavesNothingBehind) {
  StoreShape large = shape_of(0xFFFF0000);
  large.region_bytes = {1u << 20};
  const auto opened = open_disk_store(directory(), large);
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::AllocationFailed);
  EXPECT_GT(opened.error().available, 0u);
  EXPECT_FALSE(std::filesystem::exists(directory()));
  EXPECT_TRUE(open_disk_store(directory(), shape_of()).has_value());
}

TEST_F(StoreDirectoryTest, AMissingParentIsNamed) {
  const auto opened = open_disk_store(parent_ + "/a/b", shape_of());
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().native, ENOENT);
  EXPECT_NE(opened.error().message.find(parent_ + "/a/b"), std::string::npos);
}

}  // namespace
}  // namespace kvbm::store
