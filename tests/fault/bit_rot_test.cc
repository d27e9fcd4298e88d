// A disk that lies: a store in memory is damaged in thousands of ways, one at a time. Whatever the
// damage, no block is served with other bytes than were put, and a check in depth names exactly
// what was hit.
#include <gtest/gtest.h>

#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>

#include "store/check.h"
#include "store/test_store.h"
#include "store/token_entry.h"

namespace kvbm::store {
namespace {

constexpr std::size_t kPage = 4096;
constexpr Slot kSlots = 256;
constexpr NamespaceId kNamespaces = 3;

enum class Kind {
  FlipBits,
  Garble,    // a run of random bytes
  ZeroPage,  // a page that was never written
  CopyPage,  // a page written to the place of another
  SwapPages,
  SwapEntries,  // two records, or what lies where two of them say
  LosePage,     // a page that is as it was before it was written last
  CutFile,
};
constexpr int kKinds = 8;
const char* to_string(Kind kind) {
  constexpr const char* kNames[] = {"flipped bits", "garbled run",   "zeroed page",
                                    "copied page",  "swapped pages", "swapped entries",
                                    "lost page",    "cut file"};
  return kNames[static_cast<int>(kind)];
}

using Bytes = std::vector<std::byte>;
// As spread as names of blocks are.
std::uint64_t hash_of(std::uint64_t block) { return block * 0x9e3779b97f4a7c15u; }

enum Place : std::size_t { kManifest, kIndex, kTokens, kBlocks, kPlaces };

class BitRot {
 public:
  explicit BitRot(std::uint64_t seed) : random_(seed) {
    shape_ = test_shape(kSlots);
    shape_.page_size = 16;
    fill();
    for (std::size_t i = 0; i < kPlaces; ++i) now_[i] = file(i).contents();
    remember_puts();
  }

  // Damages the store, looks at it, and makes it whole again.
  void round() {
    damage();
    SCOPED_TRACE(testing::Message() << to_string(kind_) << " in file " << place_);
    find();
    expect_found();
    expect_served_right();  // opens the store, which makes its manifest whole again
    heal();
  }

  std::uint64_t hits(Kind kind) const { return hits_[static_cast<std::size_t>(kind)]; }
  std::uint64_t refusals() const { return refusals_; }

 private:
  FakeFile& file(std::size_t place) const {
    const std::array<FakeFile*, kPlaces> files = {files_.manifest.get(), files_.index.get(),
                                                  files_.tokens.get(), files_.blocks.get()};
    return *files[place];
  }
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }

  // A store with a past: blocks that were overwritten, cleared, put twice and reset.
  void fill() {
    const auto store = open_loaded(files_.files(), shape_);
    const auto put = [&](Slot slot) {
      const auto name_space = static_cast<NamespaceId>(slot % kNamespaces);
      ++num_blocks_;
      put_block(*store, slot,
                {.hash = hash_of(num_blocks_),
                 .parent = hash_of(num_blocks_ - 1),
                 .position = 1,
                 .name_space = name_space});
    };
    for (Slot slot = 0; slot < kSlots; ++slot) {
      if (below(8) != 0) put(slot);
    }
    store->reset(NamespaceId{1}).value();
    for (int i = 0; i < 100; ++i) put(static_cast<Slot>(below(kSlots)));
    store->sync().value();
    for (std::size_t i = 0; i < kPlaces; ++i) before_[i] = file(i).contents();
    for (int i = 0; i < 60; ++i) put(static_cast<Slot>(below(kSlots)));
    for (int i = 0; i < 20; ++i) store->clear(static_cast<Slot>(below(kSlots))).value();
    store->reset(NamespaceId{2}).value();
    for (int i = 0; i < 20; ++i) put(static_cast<Slot>(below(kSlots)));
    store->sync().value();
    store->sync().value();  // both superblocks of now
  }

  void remember_puts() {
    const auto store = DiskStore::open(files_.files(), shape_).value();
    puts_.assign(kSlots, {});
    store->load([&](Slot slot, const SlotRecord& record) { puts_[slot] = record; }).value();
    now_[kManifest] = file(kManifest).contents();
    for (std::uint64_t block = 1; block <= num_blocks_; ++block) numbers_[hash_of(block)] = block;
    for (NamespaceId name_space = 0; name_space < kNamespaces; ++name_space) {
      for (std::uint64_t block = 1; block <= num_blocks_; ++block) {
        bytes_.push_back(TestBlock{.hash = hash_of(block), .name_space = name_space}.bytes(shape_));
      }
    }
  }
  const Bytes& bytes_of(const SlotRecord& record) const {
    const std::uint64_t number = numbers_.at(record.sequence_hash.value());
    return bytes_.at(record.name_space * num_blocks_ + number - 1);
  }

  // --- damage --------------------------------------------------------------------------------

  std::size_t entry_bytes(std::size_t place) const {
    const std::size_t sizes[] = {kSuperblockBytes, kRecordBytes, token_entry_bytes(shape_),
                                 shape_.extent_bytes()};
    return sizes[place];
  }
  // Most of a payload file is padding, which nobody reads.
  std::size_t some_byte(std::size_t place) {
    const std::size_t size = file(place).size();
    if (place != kBlocks || below(8) == 0) return below(size);
    return below(kSlots) * shape_.extent_bytes() + below(shape_.block_bytes());
  }
  void write(std::size_t at, const Bytes& bytes) {
    Bytes& contents = file(place_).contents();
    const std::size_t count = std::min(bytes.size(), contents.size() - at);
    std::copy_n(bytes.begin(), count, contents.begin() + static_cast<std::ptrdiff_t>(at));
    touched_.emplace_back(at, count);
  }
  Bytes read(const Bytes& contents, std::size_t at, std::size_t count) const {
    const auto begin = contents.begin() + static_cast<std::ptrdiff_t>(at);
    return {begin, begin + static_cast<std::ptrdiff_t>(std::min(count, contents.size() - at))};
  }
  void swap(std::size_t unit) {
    const Bytes& contents = file(place_).contents();
    const std::size_t count = contents.size() / unit;
    const std::size_t a = below(count) * unit;
    const std::size_t b = below(count) * unit;
    const Bytes first = read(contents, a, unit);
    write(a, read(contents, b, unit));
    write(b, first);
  }

  void damage() {
    kind_ = static_cast<Kind>(below(kKinds));
    place_ = below(kPlaces);
    touched_.clear();
    const Bytes& contents = file(place_).contents();
    const std::size_t page = below(contents.size() / kPage) * kPage;
    switch (kind_) {
      case Kind::FlipBits:
        for (std::uint64_t i = below(8) + 1; i > 0; --i) {
          const std::size_t at = some_byte(place_);
          write(at, {contents[at] ^ std::byte(1u << below(8))});
        }
        break;
      case Kind::Garble: {
        Bytes run(below(600) + 1);
        for (std::byte& byte : run) byte = std::byte(random_());
        write(some_byte(place_), run);
        break;
      }
      case Kind::ZeroPage: write(page, Bytes(kPage)); break;
      case Kind::CopyPage:
        write(below(contents.size() / kPage) * kPage, read(contents, page, kPage));
        break;
      case Kind::SwapPages: swap(kPage); break;
      case Kind::SwapEntries: swap(entry_bytes(place_)); break;
      case Kind::LosePage: write(page, read(before_[place_], page, kPage)); break;
      case Kind::CutFile: file(place_).contents().resize(below(contents.size())); break;
    }
    ++hits_[static_cast<std::size_t>(kind_)];
  }

  // Opening a store writes its manifest, and a repair its index, too.
  void heal() {
    file(kManifest).contents() = now_[kManifest];
    file(kIndex).contents() = now_[kIndex];
    Bytes& contents = file(place_).contents();
    if (contents.size() != now_[place_].size()) contents = now_[place_];
    for (const auto& [at, count] : touched_) {
      std::copy_n(now_[place_].begin() + static_cast<std::ptrdiff_t>(at), count,
                  contents.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }

  // --- what was hit, by comparing bytes --------------------------------------------------------

  bool differs(std::size_t place, std::uint64_t at, std::uint64_t count) const {
    return std::memcmp(&file(place).contents()[at], &now_[place][at], count) != 0;
  }

  void find() {
    unusable_ = file(place_).size() != now_[place_].size();
    damaged_superblocks_ = 0;
    damaged_records_.clear();
    damaged_payloads_.clear();
    damaged_tokens_ = 0;
    if (unusable_) return;
    for (const std::size_t place : {0u, 1u}) {
      const bool differs_here = differs(kManifest, place * kSuperblockBytes, kSuperblockBytes);
      damaged_superblocks_ += differs_here && !is_whole_superblock(place);
    }
    unusable_ = damaged_superblocks_ == 2;
    for (Slot slot = 0; slot < kSlots; ++slot) {
      const std::uint64_t at = slot * kRecordBytes;
      if (differs(kIndex, at, kRecordBytes)) {
        static constexpr RecordBytes kZero{};
        const bool is_zero =
            std::memcmp(&file(kIndex).contents()[at], kZero.data(), kRecordBytes) == 0;
        if (!is_zero) damaged_records_.push_back(slot);
        continue;
      }
      if (!puts_[slot]) continue;
      if (differs(kBlocks, slot * shape_.extent_bytes(), shape_.block_bytes())) {
        damaged_payloads_.push_back(slot);
      }
      const std::uint64_t entry = token_entry_bytes(shape_);
      damaged_tokens_ += differs(kTokens, slot * entry, entry);
    }
  }

  // The two may have changed places.
  bool is_whole_superblock(std::size_t place) const {
    const std::byte* const bytes = &file(kManifest).contents()[place * kSuperblockBytes];
    for (const auto& manifest : {now_[kManifest], before_[kManifest]}) {
      for (const std::size_t other : {0u, 1u}) {
        if (std::memcmp(bytes, &manifest[other * kSuperblockBytes], kSuperblockBytes) == 0) {
          return true;
        }
      }
    }
    return false;
  }

  // --- what it must come to --------------------------------------------------------------------

  void expect_served_right() {
    auto opened = DiskStore::open(files_.files(), shape_);
    ASSERT_EQ(opened.has_value(), !unusable_);
    if (!opened) {
      ++refusals_;
      return;
    }
    const Bytes& payload = file(kBlocks).contents();
    const auto counts = (*opened)->load([&](Slot slot, const SlotRecord& record) {
      const std::byte* const found = &payload[slot * shape_.extent_bytes()];
      const Bytes& put = bytes_of(record);
      if (std::memcmp(found, put.data(), put.size()) == 0) return;
      PayloadSum sum(shape_.region_bytes);
      sum.add({found, put.size()});
      EXPECT_FALSE(verifies(sum.finish(), record, slot, shape_)) << "slot " << slot;
    });
    ASSERT_TRUE(counts.has_value());
    if (kind_ == Kind::LosePage) return;
    EXPECT_EQ(counts->damaged, damaged_records_.size());
  }

  void expect_found() {
    const auto checked = check(files_.files(), {.deep = true});
    ASSERT_EQ(checked.has_value(), !unusable_);
    if (!checked) return;
    // An older page of the index has records that were right once: there is nothing to find.
    if (kind_ == Kind::LosePage && place_ == kIndex) return;
    EXPECT_EQ(checked->damaged_superblock.empty(), damaged_superblocks_ == 0);
    EXPECT_EQ(checked->damaged_records, damaged_records_);
    EXPECT_EQ(checked->damaged_payloads, damaged_payloads_);
    EXPECT_EQ(checked->without_tokens, damaged_tokens_);
    EXPECT_EQ(checked->repeated_puts, std::vector<Slot>());
    if (below(8) == 0) expect_repaired(*checked);
  }

  void expect_repaired(const CheckReport& found) {
    const auto repaired = check(files_.files(), {.deep = true, .repair = true});
    ASSERT_TRUE(repaired.has_value());
    EXPECT_EQ(repaired->repaired, found.damage());
    const auto after = check(files_.files(), {.deep = true});
    ASSERT_TRUE(after.has_value());
    EXPECT_EQ(after->damage(), 0u);
    EXPECT_EQ(after->valid, found.valid - found.damaged_payloads.size());
    EXPECT_EQ(after->forgotten, found.forgotten) << "nobody else's records were touched";
    damaged_records_.clear();
  }

  std::mt19937_64 random_;
  StoreShape shape_;
  MemoryFiles files_;
  std::array<Bytes, kPlaces> before_;  // some time before the last puts
  std::array<Bytes, kPlaces> now_;
  std::uint64_t num_blocks_ = 0;                    // numbered from 1
  std::map<std::uint64_t, std::uint64_t> numbers_;  // of blocks, by hash
  std::vector<Bytes> bytes_;                        // of blocks, by namespace and number
  std::vector<std::optional<SlotRecord>> puts_;     // by slot, what the whole store offers
  std::array<std::uint64_t, kKinds> hits_{};
  std::uint64_t refusals_ = 0;

  Kind kind_{};
  std::size_t place_ = 0;                                     // the file that is damaged
  std::vector<std::pair<std::size_t, std::size_t>> touched_;  // offset and length
  bool unusable_ = false;
  std::uint64_t damaged_superblocks_ = 0;
  std::vector<Slot> damaged_records_;
  std::vector<Slot> damaged_payloads_;
  std::uint64_t damaged_tokens_ = 0;
};

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST(BitRotTest, NoDamageServesAWrongBlockAndEachIsFound) {
  const std::uint64_t seed = number_from("KVBM_SEED", std::random_device{}());
  const std::uint64_t damages = number_from("KVBM_DAMAGES", 10'000);
  std::printf("KVBM_SEED=%" PRIu64 " KVBM_DAMAGES=%" PRIu64 "\n", seed, damages);
  BitRot rot(seed);
  for (std::uint64_t i = 0; i < damages && !testing::Test::HasFailure(); ++i) rot.round();
  if (testing::Test::HasFailure() || damages < 1000) return;
  for (int kind = 0; kind < kKinds; ++kind) EXPECT_GT(rot.hits(static_cast<Kind>(kind)), 0u);
  EXPECT_GT(rot.refusals(), 0u);
  EXPECT_LT(rot.refusals(), damages / 2) << "most damage should be looked at, not refused";
}

}  // namespace
}  // namespace kvbm::store
