#include "store/record.h"

#include <cstring>

#include "base/xxh3.h"

namespace kvbm::store {
namespace {

// The record as it lies on disk, little-endian.
struct Packed {
  std::uint64_t sequence_hash;
  std::uint64_t parent_hash;
  std::uint64_t digest;
  std::uint64_t sealed_sum;
  std::uint64_t put_sequence;
  std::uint32_t position;
  std::uint32_t epoch;
  std::uint32_t put_time;
  std::uint32_t parent_slot;
  std::uint16_t token_count;
  std::uint8_t name_space;
  std::uint8_t priority;
  std::uint32_t checksum;  // of all before it
};
static_assert(sizeof(Packed) == kRecordBytes, "no padding: every byte is summed");

// No store lives that long; the next number must not be 0.
constexpr std::uint64_t kMaxPutSequence = std::uint64_t{1} << 63;

// Of a Packed, or the same bytes where they came from: a copy that was just stored is read slowly.
std::uint32_t checksum(const void* packed, Slot slot, std::uint64_t store_id) noexcept {
  const std::uint64_t seed = store_id ^ (std::uint64_t{slot} * 0x9e3779b97f4a7c15u);
  return static_cast<std::uint32_t>(xxh3(packed, offsetof(Packed, checksum), seed));
}

bool is_zero(const Packed& packed) noexcept {
  static constexpr Packed kZero{};
  return std::memcmp(&packed, &kZero, sizeof packed) == 0;
}

}  // namespace

std::uint64_t seal(const SealedIdentity& identity) noexcept {
  static_assert(sizeof identity == 56, "no padding: every byte is hashed");
  return xxh3(&identity, sizeof identity);
}

std::uint64_t seal(const SlotRecord& record, Slot slot, std::uint64_t layout_digest) noexcept {
  return seal({.sequence_hash = record.sequence_hash.value(),
               .keyed_digest = record.digest,
               .parent_hash = record.position == 0 ? 0 : record.parent_hash.value(),
               .layout_digest = layout_digest,
               .name_space = record.name_space,
               .epoch = record.epoch,
               .position = record.position,
               .token_count = record.token_count,
               .slot = slot});
}

RecordBytes encode(const SlotRecord& record, Slot slot, std::uint64_t store_id) noexcept {
  Packed packed{.sequence_hash = record.sequence_hash.value(),
                .parent_hash = record.parent_hash.value(),
                .digest = record.digest,
                .sealed_sum = record.sealed_sum,
                .put_sequence = record.put_sequence,
                .position = record.position,
                .epoch = record.epoch,
                .put_time = record.put_time,
                .parent_slot = record.parent_slot,
                .token_count = record.token_count,
                .name_space = record.name_space,
                .priority = record.priority,
                .checksum = 0};
  packed.checksum = checksum(&packed, slot, store_id);
  RecordBytes bytes;
  std::memcpy(bytes.data(), &packed, sizeof packed);
  return bytes;
}

RecordState decode(std::span<const std::byte, kRecordBytes> bytes, Slot slot,
                   std::uint64_t store_id, SlotRecord& record) noexcept {
  Packed packed;
  std::memcpy(&packed, bytes.data(), sizeof packed);
  if (packed.put_sequence == 0) {
    return is_zero(packed) ? RecordState::Empty : RecordState::Damaged;
  }
  if (packed.checksum != checksum(bytes.data(), slot, store_id) || packed.priority > MAX_PRIORITY ||
      packed.put_sequence > kMaxPutSequence || packed.token_count > MAX_PAGE_SIZE) {
    return RecordState::Damaged;
  }
  record = {.sequence_hash = SequenceHash(packed.sequence_hash),
            .parent_hash = SequenceHash(packed.parent_hash),
            .digest = packed.digest,
            .sealed_sum = packed.sealed_sum,
            .put_sequence = packed.put_sequence,
            .position = packed.position,
            .epoch = packed.epoch,
            .put_time = packed.put_time,
            .parent_slot = packed.parent_slot,
            .token_count = packed.token_count,
            .name_space = packed.name_space,
            .priority = packed.priority};
  return RecordState::Valid;
}

}  // namespace kvbm::store
