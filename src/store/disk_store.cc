#include "store/disk_store.h"

#include <unistd.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/random_bits.h"
#include "store/token_entry.h"

namespace kvbm::store {
namespace {

constexpr std::uint64_t kPageBytes = 4096;

std::uint64_t unix_seconds() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

std::uint64_t random_id() { return random_bits() | 1; }

Error no_store(std::string why) {
  return Error{ErrorCode::OperationFailed, 0, 0, 0, std::move(why)};
}

Result<bool> is_zero(File& file) {
  std::vector<std::byte> chunk(std::min<std::uint64_t>(file.size(), 1 << 20));
  for (std::uint64_t at = 0; at < file.size(); at += chunk.size()) {
    const std::span bytes =
        std::span(chunk).first(std::min<std::uint64_t>(chunk.size(), file.size() - at));
    KVBM_CHECK_OK(file.read(bytes, at));
    for (const std::byte byte : bytes) {
      if (byte != std::byte{0}) return false;
    }
  }
  return true;
}

std::uint64_t token_bytes(const StoreShape& shape) {
  return shape.num_slots * token_entry_bytes(shape);
}

// Gives the files their sizes, durably. The index first: while it is empty, a file of blocks with a
// size is none of ours.
Result<void> size_files(const StoreFiles& files, const StoreShape& shape) {
  KVBM_CHECK_OK(files.index->resize(std::uint64_t{shape.num_slots} * kRecordBytes));
  KVBM_CHECK_OK(files.index->sync());
  if (shape.keeps_tokens) {
    KVBM_CHECK_OK(files.tokens->resize(token_bytes(shape)));
    KVBM_CHECK_OK(files.tokens->sync());
  }
  KVBM_CHECK_OK(files.blocks->resize(shape.payload_bytes()));
  return files.blocks->sync();
}

Result<void> write_durably(File& manifest, Superblock& superblock, std::size_t place) {
  ++superblock.sequence;
  KVBM_CHECK_OK(manifest.write(encode(superblock), place * kSuperblockBytes));
  return manifest.sync();
}

// Makes a store in files that hold none: new ones, or such as a process left that died here.
Result<Superblock> format(const StoreFiles& files, const StoreShape& shape) {
  KVBM_TRY(const bool is_new, is_zero(*files.index));
  if (!is_new || (files.blocks->size() > 0 && files.index->size() == 0)) {
    return no_store(files.blocks->description() + " has no manifest; what it holds is unknown");
  }
  if (auto sized = size_files(files, shape); !sized) {
    for (const auto& file : {files.blocks, files.tokens, files.index}) {
      if (file && !file->resize(0)) continue;  // the first failure says more
    }
    return std::move(sized).error();
  }
  Superblock superblock{.shape = shape,
                        .store_id = random_id(),
                        .sequence = 0,
                        .created = unix_seconds(),
                        .owner = static_cast<std::uint64_t>(::getpid()),
                        .epochs = {},
                        .counters = {}};
  // One superblock is whole before there is room for two: see read_manifest().
  KVBM_CHECK_OK(files.manifest->resize(kSuperblockBytes));
  KVBM_CHECK_OK(write_durably(*files.manifest, superblock, 0));
  KVBM_CHECK_OK(files.manifest->resize(kManifestBytes));
  KVBM_CHECK_OK(write_durably(*files.manifest, superblock, 1));
  return superblock;
}

// More is what a process left that died while it changed the size.
Result<void> check_size(const File& file, std::uint64_t bytes) {
  if (file.size() >= bytes) return {};
  return Error{ErrorCode::OperationFailed, 0, bytes, file.size(),
               file.description() + " has " + std::to_string(file.size()) +
                   " bytes; its store's manifest asks for " + std::to_string(bytes)};
}

Result<void> check_files(const StoreFiles& files, const StoreShape& shape) {
  KVBM_CHECK_OK(check_size(*files.index, std::uint64_t{shape.num_slots} * kRecordBytes));
  KVBM_CHECK_OK(check_size(*files.blocks, shape.payload_bytes()));
  if (!shape.keeps_tokens) return {};
  if (!files.tokens) return no_store("the store's file of tokens is missing");
  return check_size(*files.tokens, token_bytes(shape));
}

// Gives a store another number of slots. At no time does the manifest count a slot that the files
// do not have, and what lies behind the last one is cut off before it could be counted again.
Result<void> change_size(const StoreFiles& files, Manifest& manifest, std::uint32_t num_slots) {
  Superblock& superblock = manifest.superblock;
  const StoreShape before = superblock.shape;
  KVBM_CHECK_OK(size_files(files, before));
  superblock.shape.num_slots = num_slots;
  if (num_slots > before.num_slots) {
    if (auto sized = size_files(files, superblock.shape); !sized) {
      KVBM_CHECK_OK(size_files(files, before));
      return std::move(sized).error();
    }
  }
  // The newer one stays until the other one is whole.
  KVBM_CHECK_OK(write_durably(*files.manifest, superblock, 1 - manifest.place));
  KVBM_CHECK_OK(write_durably(*files.manifest, superblock, manifest.place));
  return size_files(files, superblock.shape);
}

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "kvbm: disk store invariant broken: %s\n", what);
  std::abort();
}

}  // namespace

// --- opening ---------------------------------------------------------------------------------

Result<std::optional<Manifest>> read_manifest(File& file) {
  // What is shorter than two superblocks may have none that is whole: its store was never finished.
  if (file.size() == 0 || file.size() == kSuperblockBytes) return std::optional<Manifest>();
  if (file.size() != kManifestBytes) {
    return no_store(file.description() + " has " + std::to_string(file.size()) +
                    " bytes; a manifest has " + std::to_string(kManifestBytes));
  }
  KVBM_TRY(const bool unfinished, is_zero(file));
  if (unfinished) return std::optional<Manifest>();

  std::array<Result<Superblock>, 2> found = {no_store(""), no_store("")};
  std::array<std::byte, kSuperblockBytes> bytes;
  for (std::size_t place : {0u, 1u}) {
    KVBM_CHECK_OK(file.read(bytes, place * kSuperblockBytes));
    found[place] = decode(bytes);
  }
  if (!found[0] && !found[1]) {
    return no_store(file.description() + ": " + found[0].error().message);
  }
  const std::size_t newer =
      found[1] && (!found[0] || found[1]->sequence > found[0]->sequence) ? 1 : 0;
  const auto& other = found[1 - newer];
  return std::optional(Manifest{.superblock = *found[newer],
                                .place = newer,
                                .damage = other ? std::string() : other.error().message});
}

Result<std::unique_ptr<DiskStore>> DiskStore::open(StoreFiles files, const StoreShape& shape) {
  KVBM_CHECK_OK(shape.validate());
  KVBM_TRY(auto manifest, read_manifest(*files.manifest));
  if (!manifest) {
    KVBM_TRY(const Superblock superblock, format(files, shape));
    manifest = Manifest{.superblock = superblock, .place = 1};
  } else {
    KVBM_CHECK_OK(check_same(manifest->superblock.shape, shape));
    KVBM_CHECK_OK(check_files(files, manifest->superblock.shape));
    // An owner that was killed left what it had not synced: the newer superblock, blocks that its
    // successor will offer, records that are gone and whose put sequences come again.
    for (const auto& file : {files.blocks, files.index, files.tokens, files.manifest}) {
      if (file) KVBM_CHECK_OK(file->sync());
    }
    if (manifest->superblock.shape.num_slots != shape.num_slots) {
      KVBM_CHECK_OK(change_size(files, *manifest, shape.num_slots));
    }
  }
  std::unique_ptr<DiskStore> store(
      new DiskStore(std::move(files), manifest->superblock, manifest->place));
  // Says who the owner is, and makes both superblocks whole again.
  KVBM_CHECK_OK(store->write_manifest());
  return store;
}

DiskStore::DiskStore(StoreFiles files, const Superblock& superblock, std::size_t place)
    : files_(std::move(files)),
      shape_(superblock.shape),
      id_(superblock.store_id),
      created_(superblock.created),
      present_(shape_.num_slots),
      dirty_records_(shape_.num_slots / (kPageBytes / kRecordBytes) + 1),
      dirty_tokens_(shape_.keeps_tokens ? shape_.num_slots : 0),
      blocks_written_(superblock.counters.blocks_written),
      payload_bytes_(superblock.counters.payload_bytes_written),
      index_bytes_(superblock.counters.index_bytes_written),
      served_bytes_(superblock.counters.bytes_served),
      superblock_(superblock),
      used_epochs_(superblock.epochs),
      place_(place) {
  for (std::size_t i = 0; i < epochs_.size(); ++i) epochs_[i] = superblock.epochs[i];
  superblock_.owner = static_cast<std::uint64_t>(::getpid());
}

namespace {

// Makes the names durable first: nothing in files without one would be.
Result<std::unique_ptr<DiskStore>> open_named(StoreFiles files, const std::string& directory,
                                              bool had_directory, const StoreShape& shape) {
  if (!had_directory) KVBM_CHECK_OK(sync_directory(directory + "/.."));
  KVBM_CHECK_OK(sync_directory(directory));
  return DiskStore::open(std::move(files), shape);
}

}  // namespace

Result<std::unique_ptr<DiskStore>> open_disk_store(const std::string& directory,
                                                   const StoreShape& shape) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const bool had_directory = fs::exists(directory, ignored);
  KVBM_TRY(StoreFiles files, open_store_files(directory, shape.keeps_tokens));
  const std::shared_ptr<File> manifest = files.manifest;
  auto store = open_named(std::move(files), directory, had_directory, shape);
  if (!store && manifest->size() == 0) {
    remove_empty_files(directory);
    if (!had_directory) fs::remove(directory, ignored);
  }
  return store;
}

bool DiskStore::take_in(Slot slot, RecordState state, const SlotRecord& record,
                        LoadCounts& counts) noexcept {
  if (state == RecordState::Empty) {
    ++counts.empty;
    return false;
  }
  present_.set_alone(slot);
  // Whole, but of no store of this shape: damage as well.
  if (state == RecordState::Damaged || record.token_count > shape_.page_size) {
    ++counts.damaged;
    return false;
  }
  // Also of a forgotten one: a number is never used again.
  if (record.put_sequence >= next_put_.load(std::memory_order_relaxed)) {
    next_put_.store(record.put_sequence + 1, std::memory_order_relaxed);
  }
  if (record.epoch == epoch(record.name_space)) {
    ++counts.valid;
    return true;
  }
  ++counts.forgotten;
  if (record.epoch > epoch(record.name_space)) {
    MutexLock lock(manifest_mutex_);
    std::uint32_t& used = used_epochs_[record.name_space];
    used = std::max(used, record.epoch);
  }
  return false;
}

// --- slots -----------------------------------------------------------------------------------

Result<void> DiskStore::clear(Slot slot) {
  if (!present_.get(slot)) return {};
  static constexpr RecordBytes kZero{};
  KVBM_CHECK_OK(files_.index->write(kZero, std::uint64_t{slot} * kRecordBytes));
  note_dirty(slot);
  present_.set(slot, false);
  return {};
}

Result<void> DiskStore::put(Slot slot, SlotRecord record, std::span<const Token> tokens) {
  record.put_sequence = next_put_.fetch_add(1, std::memory_order_relaxed);
  record.put_time = static_cast<std::uint32_t>(unix_seconds());
  // Without tokens, what lies there fits this record no more.
  if (shape_.keeps_tokens && !tokens.empty()) {
    KVBM_CHECK_OK(
        files_.tokens->write(encode_tokens(record, tokens), slot * token_entry_bytes(shape_)));
    dirty_tokens_.set(slot, true);
  }
  present_.set(slot, true);
  KVBM_CHECK_OK(files_.index->write(encode(record, slot, id_), std::uint64_t{slot} * kRecordBytes));
  note_dirty(slot);
  blocks_written_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

// After the write, so that the sync that sees the mark covers it.
void DiskStore::note_dirty(Slot slot) noexcept {
  dirty_records_.set(slot / (kPageBytes / kRecordBytes), true);
  needs_sync_.store(true, std::memory_order_release);
}

Result<RecordState> DiskStore::read(Slot slot, SlotRecord& record) const {
  RecordBytes bytes;
  KVBM_CHECK_OK(files_.index->read(bytes, std::uint64_t{slot} * kRecordBytes));
  return decode(bytes, slot, id_, record);
}

std::vector<Token> DiskStore::tokens(Slot slot, const SlotRecord& record) const {
  return read_tokens(files_.tokens.get(), shape_, slot, record);
}

// --- the manifest ----------------------------------------------------------------------------

// Into the place of the older superblock, so that the newer one stays if this write is torn. One
// that is not durable is overwritten itself the next time, or both might be torn.
Result<void> DiskStore::write_superblock(Durable durable) {
  Superblock next = superblock_;
  ++next.sequence;
  for (std::size_t i = 0; i < epochs_.size(); ++i) next.epochs[i] = epochs_[i];
  next.counters = counters();
  if (next.epochs != superblock_.epochs) durable = Durable::Yes;  // a reset could not be written
  const std::size_t place = 1 - place_;
  const auto bytes = encode(next);
  KVBM_CHECK_OK(files_.manifest->write(bytes, place * kSuperblockBytes));
  if (durable == Durable::Yes) {
    KVBM_CHECK_OK(files_.manifest->sync());
    place_ = place;
  }
  superblock_ = std::move(next);
  index_bytes_.fetch_add(kSuperblockBytes, std::memory_order_relaxed);
  return {};
}

Result<void> DiskStore::reset(std::optional<NamespaceId> name_space) {
  MutexLock lock(manifest_mutex_);
  for (std::size_t i = 0; i < epochs_.size(); ++i) {
    if (name_space && *name_space != i) continue;
    used_epochs_[i] = std::max(used_epochs_[i], epochs_[i].load(std::memory_order_relaxed)) + 1;
    epochs_[i].store(used_epochs_[i], std::memory_order_release);
  }
  needs_sync_ = true;  // should what follows fail
  // Twice: if the newer superblock rots, the older one must not bring back what is forgotten.
  KVBM_CHECK_OK(write_superblock(Durable::Yes));
  return write_superblock(Durable::Yes);
}

Result<void> DiskStore::sync() {
  if (!needs_sync_.exchange(false, std::memory_order_acq_rel)) return {};
  auto synced = sync_files();
  if (!synced) needs_sync_ = true;
  return synced;
}

Result<void> DiskStore::sync_files() {
  // Whole pages of the index; entries of tokens are smaller than a page, each counts as one.
  const std::uint64_t pages = dirty_records_.take_all() + dirty_tokens_.take_all();
  index_bytes_.fetch_add(pages * kPageBytes, std::memory_order_relaxed);
  KVBM_CHECK_OK(files_.blocks->sync());
  KVBM_CHECK_OK(files_.index->sync());
  if (files_.tokens) KVBM_CHECK_OK(files_.tokens->sync());
  MutexLock lock(manifest_mutex_);
  return write_superblock(Durable::No);
}

Result<void> DiskStore::write_manifest() {
  MutexLock lock(manifest_mutex_);
  return write_superblock(Durable::Yes);
}

double DiskStore::age_seconds() const noexcept {
  return static_cast<double>(unix_seconds()) - static_cast<double>(created_);
}

StoreCounters DiskStore::counters() const noexcept {
  return {.blocks_written = blocks_written_,
          .payload_bytes_written = payload_bytes_,
          .index_bytes_written = index_bytes_,
          .bytes_served = served_bytes_};
}

// --- bits ------------------------------------------------------------------------------------

bool DiskStore::Bits::get(std::uint64_t bit) const noexcept {
  return (words_[bit / 64].load(std::memory_order_relaxed) >> (bit % 64) & 1) != 0;
}

void DiskStore::Bits::set(std::uint64_t bit, bool value) noexcept {
  const std::uint64_t mask = std::uint64_t{1} << (bit % 64);
  if (value) {
    words_[bit / 64].fetch_or(mask, std::memory_order_relaxed);
  } else {
    words_[bit / 64].fetch_and(~mask, std::memory_order_relaxed);
  }
}

void DiskStore::Bits::set_alone(std::uint64_t bit) noexcept {
  std::atomic<std::uint64_t>& word = words_[bit / 64];
  const std::uint64_t mask = std::uint64_t{1} << (bit % 64);
  word.store(word.load(std::memory_order_relaxed) | mask, std::memory_order_relaxed);
}

std::uint64_t DiskStore::Bits::take_all() noexcept {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < words_.size(); ++i) {
    if (words_[i].load(std::memory_order_relaxed) == 0) continue;
    count +=
        static_cast<std::uint64_t>(std::popcount(words_[i].exchange(0, std::memory_order_relaxed)));
  }
  return count;
}

void DiskStore::check_invariants() const {
  SlotRecord record;
  for (std::uint64_t i = 0; i < shape_.num_slots; ++i) {
    const auto slot = static_cast<Slot>(i);
    const auto state = read(slot, record);
    require(state.has_value(), "every record can be read");
    require(*state == RecordState::Empty || present_.get(slot), "every record is known");
    require(*state != RecordState::Valid || record.put_sequence < next_put_,
            "no put sequence comes again");
  }
}

}  // namespace kvbm::store
