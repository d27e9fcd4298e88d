// What a worker tells others of its memory, as a value and as bytes: docs/blocksets.md.
// Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kvbm/result.h"
#include "kvbm/types.h"
#include "platform/os/process_memory.h"
#include "remote/tier_blocks.h"

namespace kvbm::remote {

struct Blockset {
  static constexpr std::uint32_t kFormat = 1;
  static constexpr std::size_t kMaxBytes = 1u << 20;  // encoded
  static constexpr std::size_t kMaxTextBytes = 256;   // of each text
  static constexpr std::size_t kMaxNixlBytes = 256u << 10;

  std::string kvbm_version = {};
  std::string nixl_version = {};  // empty: no NIXL
  std::string address = {};       // "host:port" at which it answers peers; empty: nowhere
  std::string model = {};
  std::string hash_profile = {};
  WorkerID worker_id = 0;
  std::uint64_t incarnation = 0;    // random, of the process
  std::uint64_t started_at_ns = 0;  // when that began, in nanoseconds of Unix time; not 0
  std::uint64_t key_fingerprint = 0;
  std::uint64_t content_digest = 0;
  std::uint32_t block_size = 0;                 // tokens, 1 .. MAX_PAGE_SIZE
  std::optional<ProcessIdentity> process = {};  // none: its memory cannot be read by pid
  std::vector<std::byte> nixl_metadata = {};    // opaque
  std::vector<TierBlocks> tiers = {};           // of different tiers, the fastest first

  // Errors: InvalidConfig naming the first thing that is out of bounds, and the bounds.
  Result<void> validate() const;

  friend bool operator==(const Blockset&, const Blockset&) = default;
};

// Pure: equal blocksets are equal bytes. Requires: it is valid.
std::vector<std::byte> encode(const Blockset& blockset);

// Checks everything before it returns; what is decoded is valid and encodes to the same bytes.
// Errors: InvalidConfig naming what was found and what is allowed. Cost: that of
// TierBlocks::validate(); takes no more memory than a few times the bytes.
Result<Blockset> decode_blockset(std::span<const std::byte> bytes);

}  // namespace kvbm::remote
