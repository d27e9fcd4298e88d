// A store on disk: blocks in slots, each with a record that says what it is. It survives the end of
// its process at any instruction, torn writes and a loss of power: at worst a block is missing.
//
// Life of a slot:  clear() -> the payload is written -> put()
// so that a record never belongs to older bytes. After a loss of power it may; then the sum that it
// carries does not agree with the bytes, and whoever reads them finds out.
//
// Nothing that was not understood is ever overwritten.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/large_array.h"
#include "base/mutex.h"
#include "kvbm/result.h"
#include "kvbm/types.h"
#include "store/record.h"
#include "store/store_files.h"
#include "store/superblock.h"

namespace kvbm::store {

// What the records of a store amount to.
struct LoadCounts {
  std::uint64_t valid = 0;
  std::uint64_t empty = 0;
  std::uint64_t forgotten = 0;  // of before a reset
  std::uint64_t damaged = 0;
};

// Thread-safe: any slots at once, but calls about one slot one after the other.
class DiskStore {
 public:
  // Opens a store that is of this shape, or makes one where the files are new. Errors:
  // InvalidConfig naming what differs, with both values; AllocationFailed{requested, available
  // bytes} where a new store finds too little room; OperationFailed if the files cannot be read, or
  // are no store that this program understands. Nothing is changed then, but new files are left
  // with 0 bytes. What is there is durable on return. Cost: a sync of each file; a new store's
  // index is read once.
  static Result<std::unique_ptr<DiskStore>> open(StoreFiles files, const StoreShape& shape);

  // Calls visit(slot, record) for every valid record, in the order of slots. Must be called once,
  // before any put. Errors: those of File. Cost: 64 bytes a slot are read, 20 to 30 ns each.
  template <class Visit>
  Result<LoadCounts> load(Visit visit);

  // What was in the slot is gone, and its payload may be overwritten. Errors: those of File.
  // Cost: one write of 64 bytes into the page cache, nothing where there is no record.
  Result<void> clear(Slot slot);
  // The slot's payload is what `record` says. Its put sequence and time are filled in. `tokens` may
  // be empty. Errors: those of File; the slot holds nothing then. Cost: one write of 64 bytes into
  // the page cache, and one of the tokens.
  Result<void> put(Slot slot, SlotRecord record, std::span<const Token> tokens = {});
  // Errors: those of File.
  Result<RecordState> read(Slot slot, SlotRecord& record) const;
  // The tokens that were put with `record`; empty if they are not kept, or not whole.
  std::vector<Token> tokens(Slot slot, const SlotRecord& record) const;

  // The present one; records of another are void.
  std::uint32_t epoch(NamespaceId name_space) const noexcept {
    return epochs_[name_space].load(std::memory_order_acquire);
  }
  // Forgets every block of one namespace, or of all, durably. Blocks that are put later under the
  // epoch of before are forgotten, too. Cost: two writes of 8 KiB with a sync each. Errors: those
  // of File; then the blocks are forgotten by this process, and the next write of the manifest that
  // succeeds makes that durable.
  Result<void> reset(std::optional<NamespaceId> name_space) KVBM_EXCLUDES(manifest_mutex_);

  // Makes durable what was put, if anything was since the last time. Errors: those of File; what
  // was put since the last sync that succeeded may be missing after a loss of power.
  Result<void> sync() KVBM_EXCLUDES(manifest_mutex_);
  bool needs_sync() const noexcept { return needs_sync_.load(std::memory_order_acquire); }
  // Writes counters and epochs, durably. Errors: those of File.
  Result<void> write_manifest() KVBM_EXCLUDES(manifest_mutex_);

  void count_payload(std::uint64_t bytes) noexcept { payload_bytes_ += bytes; }
  void count_served(std::uint64_t bytes) noexcept { served_bytes_ += bytes; }

  const StoreShape& shape() const noexcept { return shape_; }
  std::uint64_t id() const noexcept { return id_; }
  double age_seconds() const noexcept;  // since the store was made
  // Since the store was made.
  StoreCounters counters() const noexcept;
  const std::shared_ptr<File>& blocks() const noexcept { return files_.blocks; }
  // Whether the file of the blocks has lost its name: nothing that is written will be found again.
  bool is_removed() const noexcept { return files_.blocks->is_removed(); }

  // Aborts with a message if the books disagree with the index. Requires: nothing is being put.
  void check_invariants() const;

 private:
  static constexpr std::size_t kLoadChunkSlots = 16384;

  DiskStore(StoreFiles files, const Superblock& superblock, std::size_t place);
  enum class Durable : std::uint8_t { No, Yes };

  // A row of atomic bits.
  class Bits {
   public:
    explicit Bits(std::uint64_t count) : words_((count + 63) / 64) {}
    bool get(std::uint64_t bit) const noexcept;
    void set(std::uint64_t bit, bool value) noexcept;
    // The same, in a third of the time. Requires: no other thread changes bits.
    void set_alone(std::uint64_t bit) noexcept;
    std::uint64_t take_all() noexcept;  // clears them and returns how many were set

   private:
    LargeArray<std::atomic<std::uint64_t>> words_;
  };

  // What load() learns from one record; true if it is to be visited.
  bool take_in(Slot slot, RecordState state, const SlotRecord& record, LoadCounts& counts) noexcept;
  Result<void> write_superblock(Durable durable) KVBM_REQUIRES(manifest_mutex_);
  void note_dirty(Slot slot) noexcept;
  Result<void> sync_files() KVBM_EXCLUDES(manifest_mutex_);

  const StoreFiles files_;
  const StoreShape shape_;
  const std::uint64_t id_;
  const std::uint64_t created_;  // seconds since 1970

  std::array<std::atomic<std::uint32_t>, 256> epochs_{};
  std::atomic<std::uint64_t> next_put_{1};
  Bits present_;        // by slot: its record may not be all zero
  Bits dirty_records_;  // by page of the index, since the last sync
  Bits dirty_tokens_;   // by slot, likewise
  std::atomic<bool> needs_sync_{false};

  std::atomic<std::uint64_t> blocks_written_;
  std::atomic<std::uint64_t> payload_bytes_;
  std::atomic<std::uint64_t> index_bytes_;
  std::atomic<std::uint64_t> served_bytes_;

  Mutex manifest_mutex_;
  Superblock superblock_ KVBM_GUARDED_BY(manifest_mutex_);
  // Of each namespace, the highest epoch that any record bears: none is used again.
  std::array<std::uint32_t, 256> used_epochs_ KVBM_GUARDED_BY(manifest_mutex_);
  std::size_t place_ KVBM_GUARDED_BY(manifest_mutex_);  // of the newest durable superblock
};

template <class Visit>
Result<LoadCounts> DiskStore::load(Visit visit) {
  std::vector<std::byte> chunk(std::min<std::size_t>(kLoadChunkSlots, shape_.num_slots) *
                               kRecordBytes);
  LoadCounts counts;
  SlotRecord record;
  for (std::uint64_t first = 0; first < shape_.num_slots; first += kLoadChunkSlots) {
    const std::size_t slots = std::min<std::size_t>(kLoadChunkSlots, shape_.num_slots - first);
    const std::span<std::byte> bytes(chunk.data(), slots * kRecordBytes);
    KVBM_CHECK_OK(files_.index->read(bytes, first * kRecordBytes));
    for (std::size_t i = 0; i < slots; ++i) {
      const auto slot = static_cast<Slot>(first + i);
      const std::span<const std::byte, kRecordBytes> raw(&bytes[i * kRecordBytes], kRecordBytes);
      if (take_in(slot, decode(raw, slot, id_, record), record, counts)) visit(slot, record);
    }
  }
  return counts;
}

// Opens or makes the store in a directory; see DiskStore::open(). What a failure made is removed.
Result<std::unique_ptr<DiskStore>> open_disk_store(const std::string& directory,
                                                   const StoreShape& shape);

struct Manifest {
  Superblock superblock;    // the newer one that is whole
  std::size_t place = 0;    // of it, 0 or 1
  std::string damage = {};  // what is wrong with the other one; empty if nothing
};
// Nothing if the file is all zero, or shorter than two superblocks: its store was never finished.
// Errors: those of File; OperationFailed if no superblock is whole, or it is no manifest.
Result<std::optional<Manifest>> read_manifest(File& file);

}  // namespace kvbm::store
