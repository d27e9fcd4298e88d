// The small vocabulary of the library: ids, hashes, tiers, element types and limits.
#pragma once

#include <compare>
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

// Names a block by the tokens of its whole prefix. A strong type, so that it is never mixed up
// with a BlockHash.
class SequenceHash {
 public:
  constexpr SequenceHash() = default;
  constexpr explicit SequenceHash(std::uint64_t value) : value_(value) {}
  constexpr std::uint64_t value() const { return value_; }
  friend constexpr bool operator==(SequenceHash, SequenceHash) = default;
  friend constexpr auto operator<=>(SequenceHash, SequenceHash) = default;

 private:
  std::uint64_t value_ = 0;
};

// Where a pool's blocks live: G1, G2, G3.
enum class Tier : std::uint8_t { Device, Host, Disk };
inline constexpr std::size_t kTierCount = 3;
const char* to_string(Tier tier) noexcept;  // "device", "host", "disk"

// Element type of the KV tensors.
enum class DType : std::uint8_t { FP16, FP32, BF16, INT8, INT16, INT32, INT64 };
std::size_t size_bytes(DType dtype) noexcept;

inline constexpr std::size_t DEFAULT_PAGE_SIZE = 16;    // tokens
inline constexpr std::size_t DEFAULT_INNER_DIM = 4096;  // elements per token
inline constexpr std::size_t DEFAULT_NUM_LAYERS = 32;
inline constexpr std::size_t DEFAULT_OUTER_DIM = 2;  // K and V
inline constexpr std::size_t MAX_PAGE_SIZE = 1024;
inline constexpr std::size_t MAX_INNER_DIM = 32768;
inline constexpr std::size_t MAX_NUM_LAYERS = 128;
inline constexpr std::size_t MAX_OUTER_DIM = 2;

}  // namespace kvbm
