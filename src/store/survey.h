// A store seen from outside: without owning it, and while its owner works.
#pragma once

#include <algorithm>
#include <vector>

#include "kvbm/result.h"
#include "store/disk_store.h"
#include "store/record.h"
#include "store/store_files.h"

namespace kvbm::store {

// Errors: those of File; OperationFailed if there is no finished store, no superblock is whole, or
// a file is shorter than the manifest asks for. Changes nothing.
Result<Manifest> survey_manifest(const StoreFiles& files);

// Whether a valid record counts: of no namespace that was reset since.
inline bool is_present(const SlotRecord& record, const Superblock& superblock) noexcept {
  return record.epoch == superblock.epochs[record.name_space];
}

// Calls visit(slot, state, record) for every slot, in order; `record` has a meaning if it is valid,
// also if it is of before a reset. Requires: a file of that size. Errors: those of File. Cost: as
// DiskStore::load().
template <class Visit>
Result<void> survey_records(File& index, const Superblock& superblock, Visit visit) {
  constexpr std::uint64_t kChunkSlots = 16384;
  const std::uint64_t slots = superblock.shape.num_slots;
  std::vector<std::byte> chunk(std::min(kChunkSlots, slots) * kRecordBytes);
  SlotRecord record;
  for (std::uint64_t first = 0; first < slots; first += kChunkSlots) {
    const std::uint64_t count = std::min(kChunkSlots, slots - first);
    const std::span bytes = std::span(chunk).first(count * kRecordBytes);
    KVBM_CHECK_OK(index.read(bytes, first * kRecordBytes));
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto slot = static_cast<Slot>(first + i);
      const auto raw = bytes.subspan(i * kRecordBytes).template first<kRecordBytes>();
      RecordState state = decode(raw, slot, superblock.store_id, record);
      if (state == RecordState::Damaged) {
        // Its owner may have been writing it just now.
        KVBM_CHECK_OK(index.read(raw, slot * kRecordBytes));
        state = decode(raw, slot, superblock.store_id, record);
      }
      if (state == RecordState::Valid && record.token_count > superblock.shape.page_size) {
        state = RecordState::Damaged;  // whole, but of no store of this shape
      }
      visit(slot, state, record);
    }
  }
  return {};
}

}  // namespace kvbm::store
