// The block store's operations over holds instead of bare ids. What the store's header says of
// errors, cost and threads goes for these.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "kvbm/detail/hold.h"
#include "kvbm/result.h"
#include "logical/pool/block_store.h"

namespace kvbm::detail {

Result<std::vector<MutableHold>> allocate(BlockStore& store, std::size_t count,
                                          std::vector<SequenceHash>* evicted = nullptr);

// The block takes its name; the hold moves from one state to the next.
CompleteHold complete(MutableHold block, const BlockIdentity& identity);

// Errors: InvalidMutableBlock{requested = position} if a hold is empty or of another store; then
// nothing is registered and every block is freed.
Result<std::vector<ImmutableHold>> register_blocks(BlockStore& store,
                                                   std::vector<CompleteHold> blocks);

RunHold match_run(BlockStore& store, const Names& chain, Asked asked = Asked::New);
std::vector<ImmutableHold> match(BlockStore& store, const Names& names);

// Those of the names that are registered, with their positions.
std::vector<std::pair<std::size_t, ImmutableHold>> scan(BlockStore& store, const Names& names);

// A hold that is no use of the block, until it is given back; empty if the name is not registered.
ImmutableHold borrow(BlockStore& store, const BlockKey& key);
void give_back(ImmutableHold block) noexcept;

WeakHold downgrade(const ImmutableHold& block) noexcept;
// A hold on the block that is registered under the remembered name now; empty if there is none.
ImmutableHold upgrade(const WeakHold& weak);

// Another hold on the same block.
ImmutableHold share(const ImmutableHold& block) noexcept;

// A hold on the first `count` blocks of a run alone. Requires: 0 < count <= run.count(). O(run).
RunHold first_of(const RunHold& run, std::size_t count);
// One hold on each block of a run, root first.
std::vector<ImmutableHold> split(const RunHold& run);
// A hold on the block at one place of a run, counted from the root. Requires: place < run.count().
// O(run).
ImmutableHold block_at(const RunHold& run, std::size_t place);
// The ids of a run's blocks, root first.
std::vector<BlockId> ids(const RunHold& run);

}  // namespace kvbm::detail
