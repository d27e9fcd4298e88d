// Finding blocks in any tier and moving them between tiers.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
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

// Paths between tiers. A peer is another worker, which has the block in its host tier.
enum class Edge : std::uint8_t { DeviceToHost, HostToDisk, DiskToHost, HostToDevice, PeerToHost };
inline constexpr std::size_t kEdgeCount = 5;
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
  std::uint64_t offloads_over_budget = 0;   // because the tier may not be written so fast
  std::uint64_t offloads_not_admitted = 0;  // by the tier's admission rule
  std::uint64_t requests_timed_out = 0;
  // What the governor decided; blocks that were wanted and are computed instead.
  std::uint64_t loads_split = 0;    // requests of which the first blocks were loaded
  std::uint64_t loads_refused = 0;  // requests of which none was
  std::uint64_t loads_cut = 0;      // requests that fell behind while they were loaded
  std::uint64_t blocks_not_loaded = 0;
};

// Which tiers have a block.
struct Presence {
  bool device = false;
  bool host = false;
  bool disk = false;
  bool anywhere() const noexcept { return device || host || disk; }
};

// Names a plan in its manager, and in no other and no later one.
using PlanId = std::uint64_t;

struct LookupOptions {
  // The plan's blocks are held for so long, unless it is used or released before. Of times here
  // and below: 0 and less is over at once, and more than a year is a year.
  std::chrono::nanoseconds lease = std::chrono::seconds(60);
  // Tokens of the prompt, where the caller knows them: its last token is left out, since a model
  // must compute at least that one. With a TokenBlockSequence they are known.
  std::optional<std::size_t> prompt_tokens = std::nullopt;
  bool whole_prompt = false;  // the last token, too
  // How long lookup_with_peers() waits for peers.
  std::chrono::nanoseconds peers_timeout = std::chrono::milliseconds(50);
};

// A plan: the longest prefix of a list of hashes in which every block is in some tier, and where
// peers were asked, what one of them has of what follows (Tier::Remote). Its blocks
// are leased until it is onboarded, destroyed, or its lease is over; then onboarding it answers
// PlanExpired. Move-only; not thread-safe.
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
  // To take it up elsewhere in this process: KvBlockManager::take_plan(). 0 if nothing was found.
  PlanId plan_id() const noexcept;
  // Leaves the plan to whoever takes it up, or to the end of its lease. This Lookup is empty then.
  PlanId leave() noexcept;

 private:
  friend struct detail::LookupAccess;
  std::unique_ptr<detail::LookupCore> core_;
};

// How many layers of an onboarding have arrived. Thread-safe.
class LayerProgress {
 public:
  // Layers, from the first, that are there for all blocks that can still arrive. One load.
  std::size_t arrived() const noexcept { return state_.load(std::memory_order_acquire) & ~kEnded; }
  // Waits for the first `layers` layers, or for the end of the request, whichever is first. A
  // request that onboard() refuses, or that has nothing to move, has ended when it returns.
  void wait(std::size_t layers) const noexcept {
    for (;;) {
      const std::size_t state = state_.load(std::memory_order_acquire);
      if ((state & ~kEnded) >= layers || (state & kEnded) != 0) return;
      state_.wait(state, std::memory_order_acquire);
    }
  }

  // For whoever moves the layers: the number never goes down.
  void set(std::size_t layers) noexcept {
    std::size_t state = state_.load(std::memory_order_relaxed);
    while ((state & ~kEnded) < layers &&
           !state_.compare_exchange_weak(state, layers | (state & kEnded),
                                         std::memory_order_release)) {
    }
    state_.notify_all();
  }
  void end() noexcept {
    state_.fetch_or(kEnded, std::memory_order_release);
    state_.notify_all();
  }

 private:
  static constexpr std::size_t kEnded = ~(~std::size_t{0} >> 1);  // the request has
  std::atomic<std::size_t> state_{0};
};

struct OnboardOptions {
  // After that long the request ends, with whatever has arrived.
  std::chrono::nanoseconds timeout = std::chrono::seconds(30);
  std::stop_token stop = {};  // stopping it cancels the request
  // Set: every block is verified first, then all blocks arrive layer by layer, as is told there.
  // Needs room in the host tier for all blocks of the plan that are not in the device tier.
  std::shared_ptr<LayerProgress> layers = nullptr;
  // Prefill rate of this request, instead of the configured one: blocks that would be computed
  // sooner than loaded are answered with CheaperToCompute. 0: load everything.
  std::optional<std::uint64_t> prefill_tokens_per_second = std::nullopt;
};

// One answer per block of the lookup, in order. Blocks that failed were not loaded and are not
// visible to any match; recompute them. Errors per block: ChecksumMismatch, TimedOut, Cancelled,
// OperationFailed, NotEnoughBlocksAvailable (host tier full of held blocks), QueueFull,
// CheaperToCompute.
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

// Device blocks that the engine manages itself, by their ids in its own tensors. They are in use
// until the copy has really ended, which may be after its request has: see
// KvBlockManager::is_external_busy().
struct ExternalBlocks {
  std::vector<BlockId> ids;
  // Handles of the CUDA driver, or null: the stream that the copies run in, instead of the
  // library's own, and the event that they begin after. No CPU waits for them.
  void* stream = nullptr;
  void* after_event = nullptr;
};
// One answer per block, in order. Errors per block: as OnboardResult's, and InvalidMutableBlock{id}
// for a block that a copy still uses, NotAdmitted for an offload that the edge's rule refuses.
struct ExternalResult {
  std::vector<Result<void>> blocks;

  // Leading blocks that succeeded.
  std::size_t valid_prefix() const noexcept {
    std::size_t valid = 0;
    while (valid < blocks.size() && blocks[valid].has_value()) ++valid;
    return valid;
  }
};

struct OffloadOptions {
  // After that long the request ends, with whatever has arrived.
  std::chrono::nanoseconds timeout = std::chrono::seconds(30);
  std::stop_token stop = {};
  // Whether the admission rule of the device's edge is asked.
  bool admission = false;
};

// One answer per block, in order: its copy in the host tier. Errors per block: TimedOut, Cancelled,
// OperationFailed, NotEnoughBlocksAvailable (host tier full of held blocks), QueueFull,
// NotAdmitted.
template <BlockMetadata M = BasicMetadata>
struct OffloadResult {
  std::vector<Result<ImmutableBlock<PinnedStorage, locality::Local, M>>> blocks;
};

struct PrefetchOptions {
  std::chrono::nanoseconds timeout = std::chrono::seconds(30);
  std::stop_token stop = {};
  // What has arrived is held in the host tier for so long.
  std::chrono::nanoseconds hold_for = std::chrono::seconds(10);
};
// Of the blocks that were on disk: how many are in the host tier now, and are not.
struct PrefetchResult {
  std::size_t staged = 0;
  std::size_t failed = 0;
};

}  // namespace kvbm
