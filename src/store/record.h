// What the index of a store says about one slot: 64 bytes, overwritten in place. They never
// straddle a sector, so a torn write leaves the old record or the new one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kvbm/types.h"

namespace kvbm::store {

// A slot of the payload has the number of the block that lies in it.
using Slot = BlockId;

inline constexpr std::size_t kRecordBytes = 64;
using RecordBytes = std::array<std::byte, kRecordBytes>;

struct SlotRecord {
  SequenceHash sequence_hash;
  SequenceHash parent_hash;
  std::uint64_t digest = 0;        // keyed, of the whole prefix; 0 without a key
  std::uint64_t sealed_sum = 0;    // payload sum XOR seal()
  std::uint64_t put_sequence = 0;  // grows with every put of the store; 0: no record
  std::uint32_t position = 0;
  std::uint32_t epoch = 0;      // of the namespace, when the block was named
  std::uint32_t put_time = 0;   // seconds since 1970
  Slot parent_slot = kNoBlock;  // where the parent lay, a hint
  std::uint16_t token_count = 0;
  NamespaceId name_space = 0;
  std::uint8_t priority = 0;  // 0 .. MAX_PRIORITY
};

// Everything that says what a block is and where it belongs, hashed; XORed into its payload sum, so
// that the bytes can be summed before they have a name, and the bytes of another block, slot or
// time verify nothing.
struct SealedIdentity {
  std::uint64_t sequence_hash;
  std::uint64_t keyed_digest;
  std::uint64_t parent_hash;  // 0 at position 0
  std::uint64_t layout_digest;
  std::uint32_t name_space;
  std::uint32_t epoch;
  std::uint32_t position;
  std::uint32_t token_count;
  std::uint64_t slot;  // 0 where blocks have none
};
std::uint64_t seal(const SealedIdentity& identity) noexcept;
// The seal of the block that `record` describes.
std::uint64_t seal(const SlotRecord& record, Slot slot, std::uint64_t layout_digest) noexcept;

enum class RecordState : std::uint8_t {
  Empty,  // all bytes are zero: the slot holds nothing
  Valid,
  Damaged,  // written by nobody: its checksum, or a field, is wrong
};

// The checksum covers the store and the slot, so a record of another place is damaged here.
RecordBytes encode(const SlotRecord& record, Slot slot, std::uint64_t store_id) noexcept;
// `record` is changed only if the answer is Valid. Cost: some 10 ns.
RecordState decode(std::span<const std::byte, kRecordBytes> bytes, Slot slot,
                   std::uint64_t store_id, SlotRecord& record) noexcept;

}  // namespace kvbm::store
