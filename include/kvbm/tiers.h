// Finding blocks in any tier and bringing them to the device.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <vector>

#include "kvbm/block.h"
#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm {

namespace detail {
struct LookupCore;
struct LookupAccess;
}  // namespace detail

// Paths between tiers.
enum class Edge : std::uint8_t { DeviceToHost, HostToDisk, DiskToHost, HostToDevice };
inline constexpr std::size_t kEdgeCount = 4;
const char* to_string(Edge edge) noexcept;  // "device_to_host" ...

// Counters since the manager was made. Counted when a transfer has ended, by how it ended.
struct EdgeStats {
  std::uint64_t blocks = 0;  // moved and registered, or moved in time for their request
  std::uint64_t bytes = 0;
  std::uint64_t failed = 0;          // blocks whose transfer failed
  std::chrono::nanoseconds busy{0};  // summed over the transfers, also where several ran at once
};
struct TransferStats {
  std::array<EdgeStats, kEdgeCount> edges;  // by Edge
  std::uint64_t checksum_mismatches = 0;    // blocks whose bytes were wrong; none was served
  std::uint64_t offloads_dropped = 0;  // because a queue was full or the target had no free block
  std::uint64_t offloads_over_budget = 0;  // because the disk may not be written so fast
  std::uint64_t requests_timed_out = 0;
};

// Which tiers have a block.
struct Presence {
  bool device = false;
  bool host = false;
  bool disk = false;
  bool anywhere() const noexcept { return device || host || disk; }
};

// The longest prefix of a list of hashes in which every block is in some tier. Holds the blocks
// until it is destroyed or onboarded. Move-only; not thread-safe.
class Lookup {
 public:
  Lookup();
  explicit Lookup(std::unique_ptr<detail::LookupCore> core);
  Lookup(Lookup&&) noexcept;
  Lookup& operator=(Lookup&&) noexcept;
  ~Lookup();

  std::size_t size() const noexcept;  // blocks found
  // Where block i will be read from: the fastest tier that has it. Requires: i < size().
  Tier tier(std::size_t i) const noexcept;
  std::size_t count(Tier tier) const noexcept;
  // Gives up all but the first `size` blocks.
  void truncate(std::size_t size);

 private:
  friend struct detail::LookupAccess;
  std::unique_ptr<detail::LookupCore> core_;
};

struct OnboardOptions {
  // After that long the request ends, with whatever has arrived.
  std::chrono::nanoseconds timeout = std::chrono::seconds(30);
  std::stop_token stop = {};  // stopping it cancels the request
};

// One answer per block of the lookup, in order. Blocks that failed were not loaded and are not
// visible to any match; recompute them. Errors per block: ChecksumMismatch, TimedOut, Cancelled,
// OperationFailed, NotEnoughBlocksAvailable (host tier full of held blocks).
template <BlockMetadata M = BasicMetadata>
struct OnboardResult {
  std::vector<Result<ImmutableBlock<DeviceStorage, locality::Local, M>>> blocks;

  // Leading blocks that are there.
  std::size_t valid_prefix() const noexcept {
    std::size_t valid = 0;
    while (valid < blocks.size() && blocks[valid].has_value()) ++valid;
    return valid;
  }
};

}  // namespace kvbm
