// The small vocabulary of the library: ids, hashes, tiers, element types and limits.
#pragma once

#include <array>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace kvbm {

using Token = std::uint32_t;
using BlockHash = std::uint64_t;  // hash of the tokens of one block alone
using SaltHash = std::uint64_t;   // hash of the caller's salt; separates otherwise equal prompts
using WorkerID = std::uint64_t;

// Index of a block in its pool. Four bytes: a pool has fewer than 2^32 blocks, and handles of 16
// bytes travel in vectors of thousands.
using BlockId = std::uint32_t;
inline constexpr BlockId kNoBlock = ~BlockId{0};  // names no block of any pool

// Names a block by the tokens of its whole prefix. A strong type, so that it is never mixed up
// with a BlockHash.
class SequenceHash {
 public:
  constexpr SequenceHash() = default;
  constexpr explicit SequenceHash(std::uint64_t value) : value_(value) {}
  // From its eight bytes, least significant first.
  constexpr explicit SequenceHash(const std::array<std::uint8_t, 8>& bytes) {
    for (std::size_t i = 0; i < 8; ++i) value_ |= std::uint64_t{bytes[i]} << (8 * i);
  }
  constexpr std::uint64_t value() const { return value_; }
  // Least significant byte first, on every machine.
  constexpr std::array<std::uint8_t, 8> as_bytes() const {
    std::array<std::uint8_t, 8> bytes{};
    for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::uint8_t>(value_ >> (8 * i));
    return bytes;
  }
  friend constexpr bool operator==(SequenceHash, SequenceHash) = default;
  friend constexpr auto operator<=>(SequenceHash, SequenceHash) = default;

 private:
  std::uint64_t value_ = 0;
};

// One of at most 256 separate sets of names in a pool, each of which can be forgotten alone. Blocks
// of different namespaces never match each other, whatever their hashes.
using NamespaceId = std::uint8_t;

// Which evictable block goes first. All of them evict leaves only: never a block that a resident
// one builds on.
enum class EvictionPolicy : std::uint8_t {
  Lru,       // least recently used
  AgeIndex,  // least likely to be used soon, as learned from how long ago and how often it was used
  Fifo,      // longest in the pool
};
const char* to_string(EvictionPolicy policy) noexcept;  // "lru", "age-index", "fifo"

// Priorities of blocks: the lowest are evicted first, and among equals the policy decides.
inline constexpr std::uint32_t MAX_PRIORITY = 100;
inline constexpr std::uint32_t DEFAULT_PRIORITY = 35;

// Where blocks live: G1, G2, G3, and G4, which are the blocks of other workers. The first three
// have pools here.
enum class Tier : std::uint8_t { Device, Host, Disk, Remote };
inline constexpr std::size_t kTierCount = 3;  // that have pools
const char* to_string(Tier tier) noexcept;    // "device", "host", "disk", "remote"

// What becomes of a block that is registered under a name that its pool has already.
enum class BlockRegistrationDuplicationSetting : std::uint8_t {
  Disabled,  // it is free again; the answer is the block that was there first
  Allowed,   // it stays, for its holders only; the answer is the block itself
};

// Element type of the KV tensors. FP8 and U8 are extensions of the API reference.
enum class DType : std::uint8_t { FP16, FP32, BF16, INT8, INT16, INT32, INT64, FP8, U8 };
std::size_t size_bytes(DType dtype) noexcept;

// Where a pool's blocks live, seen from the process that asks. Local blocks have bytes here;
// logical ones have an identity here and their bytes in the processes of a parallel engine.
namespace locality {
struct Local {};
struct Logical {};
}  // namespace locality
template <class L>
concept LocalityProvider = std::same_as<L, locality::Local> || std::same_as<L, locality::Logical>;

inline constexpr std::size_t DEFAULT_PAGE_SIZE = 16;    // tokens
inline constexpr std::size_t DEFAULT_INNER_DIM = 4096;  // elements per token
inline constexpr std::size_t DEFAULT_NUM_LAYERS = 32;
inline constexpr std::size_t DEFAULT_OUTER_DIM = 2;  // K and V
inline constexpr std::size_t MAX_PAGE_SIZE = 1024;
inline constexpr std::size_t MAX_INNER_DIM = 32768;
inline constexpr std::size_t MAX_NUM_LAYERS = 128;
inline constexpr std::size_t MAX_OUTER_DIM = 2;

}  // namespace kvbm
