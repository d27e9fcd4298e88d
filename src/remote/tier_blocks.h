// Where the blocks of a tier lie in the memory of their owner, for those who read them from there.
#pragma once

#include <cstdint>
#include <vector>

#include "kvbm/result.h"
#include "kvbm/storage.h"
#include "kvbm/types.h"
#include "physical/layout/fragments.h"
#include "physical/layout/layout.h"

namespace kvbm::remote {

// More than a layout has: one for each layer and outer part.
inline constexpr std::size_t kMaxMemoriesPerTier = MAX_NUM_LAYERS * MAX_OUTER_DIM;

// A value. Addresses are the owner's: nothing here may be looked at in this process.
struct TierBlocks {
  struct Range {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    friend bool operator==(const Range&, const Range&) = default;
  };

  Tier tier = Tier::Host;
  StorageType storage = {};  // System, Pinned or Device
  std::uint32_t num_blocks = 0;
  std::vector<Range> memories = {};
  // How many fragments each region of a block has, and all of them in the order of its content.
  std::vector<std::uint32_t> fragments_of_region = {};
  std::vector<Fragment> fragments = {};

  // Errors: NotAccessible for blocks in files; InvalidConfig for memories of several kinds.
  static Result<TierBlocks> of(Tier tier, const Layout& layout);

  // Errors: InvalidConfig naming the first thing that is out of bounds, and the bounds: unknown
  // kinds, counts, addresses that wrap, memories that overlap, runs that leave their memories or
  // overlap. Cost: see check_fragments().
  Result<void> validate() const;

  friend bool operator==(const TierBlocks&, const TierBlocks&) = default;
};

}  // namespace kvbm::remote
