// What a store is, in 8 KiB. A manifest holds two of them that are written in turns, so that one is
// whole whatever happens to the write of the other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm::store {

inline constexpr std::uint32_t kFormatVersion = 1;
inline constexpr std::size_t kSuperblockBytes = 8192;
inline constexpr std::size_t kManifestBytes = 2 * kSuperblockBytes;
inline constexpr std::size_t kExtentUnit = 4096;  // what direct I/O asks for everywhere
inline constexpr std::size_t kMaxModelBytes = 256;
inline constexpr std::size_t kMaxProfileBytes = 64;
inline constexpr std::size_t kMaxRegions = 1024;

// What a store and its owner must agree on, or one would serve the other wrong bytes.
struct StoreShape {
  std::string model;   // which weights computed the blocks
  std::string layout;  // for people; at most 1,000 bytes of it are kept
  std::uint64_t layout_digest = 0;
  std::vector<std::uint32_t> region_bytes;  // of a block, in the order of its content
  std::uint32_t page_size = 0;              // tokens per block
  std::string hash_profile;                 // how blocks get their names
  std::uint64_t key_fingerprint = 0;        // of the digest key; 0: none
  std::uint32_t num_slots = 0;
  bool keeps_tokens = false;

  std::uint64_t block_bytes() const noexcept;
  std::uint64_t extent_bytes() const noexcept;  // block_bytes() in whole kExtentUnits
  std::uint64_t payload_bytes() const noexcept { return num_slots * extent_bytes(); }
  // Errors: InvalidConfig naming the field that cannot be kept, and its limit.
  Result<void> validate() const;
};

// Since the store was made. They are brought up to date now and then, so a crash forgets a little.
struct StoreCounters {
  std::uint64_t blocks_written = 0;
  std::uint64_t payload_bytes_written = 0;
  std::uint64_t index_bytes_written = 0;
  std::uint64_t bytes_served = 0;

  double bytes_written() const noexcept;
  // Bytes written per byte of blocks; 0 before any.
  double write_amplification(std::uint64_t block_bytes) const noexcept;
  // At the pace of these seconds, of which one counts at least.
  double bytes_written_per_day(double seconds) const noexcept;
  // At that pace, until so many bytes were written; none where nothing is rated, or no block
  // written.
  std::optional<double> days_of_life_left(std::uint64_t rated_bytes, double seconds) const noexcept;
};

struct Superblock {
  StoreShape shape;
  std::uint64_t store_id = 0;               // random, never 0
  std::uint64_t sequence = 0;               // of the writes of superblocks; the higher one counts
  std::uint64_t created = 0;                // seconds since 1970
  std::uint64_t owner = 0;                  // process that wrote it; for people
  std::array<std::uint32_t, 256> epochs{};  // by namespace; records of another epoch are void
  StoreCounters counters;
};

// Requires: a valid shape.
std::array<std::byte, kSuperblockBytes> encode(const Superblock& superblock);
// Never reads beyond `bytes`, whatever they say. Errors: OperationFailed, saying what is wrong: no
// superblock of a store, of another version (both named), damaged, or not possible.
Result<Superblock> decode(std::span<const std::byte, kSuperblockBytes> bytes);

// Whether blocks of the one are blocks of the other; the number of slots may differ. Errors:
// InvalidConfig, naming the first thing in which they differ, with both values, and who wants the
// other one.
Result<void> check_same(const StoreShape& stored, const StoreShape& wanted,
                        const char* who = "the configuration");

}  // namespace kvbm::store
