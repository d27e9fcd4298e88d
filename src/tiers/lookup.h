// The prefix of a list of hashes that the tiers hold together, gaps of one filled by another.
#pragma once

#include <span>
#include <vector>

#include "kvbm/tiers.h"
#include "tiers/engine.h"

namespace kvbm::detail {

// Consecutive blocks of one tier, held as one run; the first `count` of them are used.
struct LookupSegment {
  Tier tier;
  RunHold run;
  std::size_t count;
};

struct LookupCore {
  std::vector<LookupSegment> segments;  // root first

  std::size_t size() const noexcept;
  std::size_t count(Tier tier) const noexcept;
};

// The way of the layers above into a Lookup.
struct LookupAccess {
  static std::unique_ptr<LookupCore> take(Lookup& lookup) { return std::move(lookup.core_); }
};

// Each block comes from the fastest tier that has it; ends at the first name that no tier has.
LookupCore lookup_tiers(const TierPools& pools, const Names& names);

}  // namespace kvbm::detail
