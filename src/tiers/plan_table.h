// Plans that were made and not used yet: blocks found in the tiers, held until somebody comes for
// them or their lease is over.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "kvbm/tiers.h"
#include "logical/pool/hold_ops.h"
#include "physical/transfer/transfer.h"

namespace kvbm::detail {

// Consecutive blocks of one tier, held as one run; the first `count` of them are used.
struct PlanSegment {
  Tier tier;
  RunHold run;
  std::size_t count;
};
// What follows them, root first: the first so many of these blocks of a peer.
struct RemotePart {
  std::shared_ptr<RemoteBlocks> blocks;
  // By them the blocks are registered here; their epochs are those of the host tier when the peer
  // was asked.
  std::vector<BlockIdentity> identities;
};
// A prefix, root first.
struct Plan {
  std::vector<PlanSegment> segments;
  std::optional<RemotePart> remote;
  // Copies in the host tier of blocks that are in another one, by their places: brought there
  // since, and kept as long as the plan.
  std::map<std::size_t, ImmutableHold> brought;

  std::size_t size() const noexcept;
  std::size_t count(Tier tier) const noexcept;
  // What it has of each place, root first.
  std::vector<std::pair<Tier, std::size_t>> counts() const;
  // Keeps the first `size` blocks; what it returns holds the others. O(size of the segment that is
  // cut).
  Plan truncate(std::size_t size);
};

// Thread-safe. No hold is given back under the mutex.
class PlanTable {
 public:
  // Plans are numbered from `first_id` on. An id of another table should not be one of this.
  explicit PlanTable(PlanId first_id = 1) : next_id_(first_id) {}

  PlanId add(Plan plan, TimePoint expires);
  // The plan is the caller's from now on. Errors: PlanExpired{id}.
  Result<Plan> take(PlanId id);
  // The blocks at these places of a plan, which keeps them as before: each where it was found or,
  // if it was brought there since, in the host tier. Errors: PlanExpired{id}; per block,
  // InvalidBlockIndex{place, blocks of the plan that are in this worker}. O(places * segments), and
  // of long segments their blocks.
  struct Placed {
    Tier tier;
    ImmutableHold block;
  };
  Result<std::vector<Result<Placed>>> blocks(PlanId id,
                                             std::span<const std::uint32_t> places) const;
  // A block of a plan is in the host tier, too: the plan keeps it there. Drops it if the plan is
  // not there any more.
  void keep(PlanId id, std::size_t place, ImmutableHold in_host);
  // Whether it is there, and nothing that it found was reset since. O(segments).
  bool is_current(PlanId id) const;
  // Gives back all but the first `size` blocks; returns what is left in this worker's tiers.
  // Errors: PlanExpired{id}. O(size of the segment that is cut).
  Result<std::array<std::size_t, kTierCount>> truncate(PlanId id, std::size_t size);
  // The tiers and numbers of its blocks, root first. Errors: PlanExpired{id}.
  Result<std::vector<std::pair<Tier, std::size_t>>> segments(PlanId id) const;
  // Does nothing if it is not there any more.
  void release(PlanId id);
  // Releases the plans whose leases are over; how many.
  std::size_t expire(TimePoint now);
  std::optional<TimePoint> next_expiry() const;
  // Releases all; nothing is added any more.
  void close();

  std::size_t size() const;
  void check_invariants() const;

 private:
  struct Leased {
    Plan plan;
    TimePoint expires;
  };
  std::optional<Plan> extract(PlanId id) KVBM_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::map<PlanId, Leased> plans_ KVBM_GUARDED_BY(mutex_);
  std::set<std::pair<TimePoint, PlanId>> expiries_ KVBM_GUARDED_BY(mutex_);
  PlanId next_id_ KVBM_GUARDED_BY(mutex_);
  bool closed_ KVBM_GUARDED_BY(mutex_) = false;
};

}  // namespace kvbm::detail
