// The prefix of a list of hashes that the tiers hold together, gaps of one filled by another.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kvbm/tiers.h"
#include "tiers/engine.h"
#include "tiers/plan_table.h"

namespace kvbm::detail {

// What a Lookup knows of its plan, which lies in the table.
struct LookupCore {
  std::shared_ptr<PlanTable> table;
  PlanId id = 0;
  std::vector<std::pair<Tier, std::size_t>> segments;  // with so many blocks; root first

  std::size_t size() const noexcept;
  std::size_t count(Tier tier) const noexcept;
};

// The way of the layers above into a Lookup.
struct LookupAccess {
  // Its plan, with the blocks that the Lookup still wants; an empty one if it has found nothing.
  // Errors: PlanExpired{id}.
  static Result<Plan> take(Lookup& lookup);
};

// Each block comes from the fastest tier that has it; ends at the first name that no tier has.
Plan lookup_tiers(const TierPools& pools, const Names& names);

// Items for what a peer keeps for a plan, in order.
std::vector<RequestItem> remote_items(const Plan& plan);

// The same plan, seen from a Lookup.
std::unique_ptr<LookupCore> view_of(const Plan& plan);

}  // namespace kvbm::detail
