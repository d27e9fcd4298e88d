// A pool hands out the fixed set of blocks of one tier and takes them back.
//
// The calls of the API reference that are asynchronous there return a Completion that is ready at
// once: co_await it, poll it, or take it with get(). The _blocking ones return the value. Both do
// the same; none waits for anything but the pool's mutex.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include "kvbm/block.h"
#include "kvbm/completion.h"
#include "kvbm/events.h"
#include "kvbm/layout.h"
#include "kvbm/metrics.h"
#include "kvbm/result.h"
#include "kvbm/retention.h"
#include "kvbm/types.h"

namespace kvbm {

// Counters since the pool was made, and sizes now; all in blocks.
struct PoolStats {
  std::uint64_t total_blocks = 0;
  std::uint64_t available_blocks = 0;   // free or evictable
  std::uint64_t free_blocks = 0;        // without content
  std::uint64_t registered_blocks = 0;  // can be matched
  std::uint64_t allocations = 0;
  std::uint64_t registrations = 0;
  std::uint64_t duplicates = 0;  // registrations of a block that was there already
  std::uint64_t matches = 0;     // blocks found
  std::uint64_t evictions = 0;
  std::uint64_t bookkeeping_bytes = 0;  // memory of what the pool knows of its blocks
  std::uint64_t quarantined = 0;        // taken out of matching because their bytes were wrong
  std::uint64_t collisions = 0;  // registrations of a hash that was there with another digest
};

// What a pool forgot.
struct PoolReset {
  std::size_t evictable = 0;   // the first to be evicted
  std::size_t still_held = 0;  // valid for their holders, never matched again
};

namespace detail {

class TierPool;
struct BlockSet;

// What a match asks for: hashes alone, or token blocks, whose digests must agree as well.
struct Wanted {
  std::span<const SequenceHash> hashes = {};
  std::span<const TokenBlock> tokens = {};
  NamespaceId name_space = 0;
};

std::size_t total_blocks(const TierPool& pool) noexcept;
std::size_t available_blocks(const TierPool& pool);
PoolStats stats(const TierPool& pool);
// kNoBlock if there is none; why_no_block() says why.
BlockId allocate_block(TierPool& pool) noexcept;
Error why_no_block(const TierPool& pool);
// Ids with one hold each, for the caller to adopt.
Result<std::vector<BlockId>> allocate_blocks(TierPool& pool, std::size_t count,
                                             std::vector<SequenceHash>* evicted);
Result<std::vector<ImmutableHold>> register_blocks(TierPool& pool,
                                                   std::vector<CompleteHold> blocks);
Result<std::vector<ImmutableHold>> register_blocks(TierPool& pool, std::vector<MutableHold> blocks);
// The ids of what was found, one hold each, for the caller to adopt.
Result<std::vector<BlockId>> match_blocks(TierPool& pool, const Wanted& wanted);
BlockStore* store_of(TierPool& pool) noexcept;
Result<std::vector<std::pair<std::size_t, ImmutableHold>>> scan_blocks(TierPool& pool,
                                                                       const Wanted& wanted);
Result<RunHold> match_chain(TierPool& pool, const Wanted& wanted);
Result<std::size_t> touch_blocks(TierPool& pool, const Wanted& wanted);
Result<std::vector<bool>> contains_blocks(TierPool& pool, const Wanted& wanted);
Result<PoolReset> reset_pool(TierPool& pool, std::optional<NamespaceId> name_space);
Result<void> retain(TierPool& pool, const Hold& block, const RetentionOptions& options);
Result<void> retain(TierPool& pool, const RunHold& run, const TokenRange& tokens,
                    const RetentionOptions& options);
Result<std::size_t> protect(TierPool& pool, const Wanted& wanted);
Result<LeaseId> lease(TierPool& pool, const Hold& block, std::chrono::nanoseconds duration);
bool release_lease(TierPool& pool, LeaseId lease);
double hit_ratio_at(const TierPool& pool, std::size_t blocks);
std::vector<HitRatioPoint> miss_ratio_curve(const TierPool& pool);

Result<std::shared_ptr<BlockSet>> make_block_set(Tier tier, LayoutType type,
                                                 const LayoutConfig& config,
                                                 std::vector<std::shared_ptr<Memory>> memories);
Result<std::shared_ptr<BlockSet>> make_logical_set(Tier tier, const LayoutConfig& config);
struct PoolOptions {
  BlockRegistrationDuplicationSetting duplicates;
  EvictionPolicy eviction;
  std::shared_ptr<EventManager> event_manager;
  std::shared_ptr<Registry> metrics_registry;
  std::stop_token cancellation_token;
  const MetadataTable* metadata;
};
Result<std::shared_ptr<TierPool>> make_pool(std::shared_ptr<BlockSet> set,
                                            const PoolOptions& options);
Result<void> add_blocks(TierPool& pool, const std::vector<std::pair<BlockSet*, BlockId>>& blocks);

template <class BlockType>
std::vector<BlockType> blocks_of(std::shared_ptr<BlockSet> set, std::size_t count) {
  std::vector<BlockType> blocks;
  blocks.reserve(count);
  for (std::size_t id = 0; id < count; ++id) blocks.emplace_back(set, static_cast<BlockId>(id));
  return blocks;
}

template <class To, class From>
std::vector<To> wrap_all(std::vector<From> holds) {
  std::vector<To> wrapped;
  wrapped.reserve(holds.size());
  for (From& hold : holds) wrapped.emplace_back(std::move(hold));
  return wrapped;
}

template <Storage S>
inline constexpr Tier kTierOf = Tier::Host;
template <>
inline constexpr Tier kTierOf<DeviceStorage> = Tier::Device;
template <>
inline constexpr Tier kTierOf<DiskStorage> = Tier::Disk;

}  // namespace detail

// A block that no pool has yet. Move-only.
template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
class Block {
 public:
  Block(std::shared_ptr<detail::BlockSet> set, BlockId id) : set_(std::move(set)), id_(id) {}
  Block(Block&&) noexcept = default;
  Block& operator=(Block&&) noexcept = default;
  BlockId block_id() const noexcept { return id_; }
  const std::shared_ptr<detail::BlockSet>& set() const noexcept { return set_; }

 private:
  std::shared_ptr<detail::BlockSet> set_;
  BlockId id_;
};

// The blocks of one layout in this process's memory. Errors: InvalidConfig as
// LayoutConfig::validate(), or if the storages are too few, too many or too small.
template <Storage S, BlockMetadata M = BasicMetadata>
Result<std::vector<Block<S, locality::Local, M>>> make_blocks(LayoutType type,
                                                              const LayoutConfig& config,
                                                              const std::vector<S>& storages) {
  std::vector<std::shared_ptr<detail::Memory>> memories;
  for (const S& storage : storages) memories.push_back(storage.memory());
  KVBM_TRY(auto set, detail::make_block_set(detail::kTierOf<S>, type, config, std::move(memories)));
  return detail::blocks_of<Block<S, locality::Local, M>>(std::move(set), config.num_blocks);
}

// Blocks without bytes in this process: identities only; their views answer
// ViewsNotAvailableOnLogicalBlocks. Errors: InvalidConfig as LayoutConfig::validate().
template <Storage S, BlockMetadata M = BasicMetadata>
Result<std::vector<Block<S, locality::Logical, M>>> make_logical_blocks(
    const LayoutConfig& config) {
  KVBM_TRY(auto set, detail::make_logical_set(detail::kTierOf<S>, config));
  return detail::blocks_of<Block<S, locality::Logical, M>>(std::move(set), config.num_blocks);
}

// What a pool that stands alone is made from. The pools of a KvBlockManager need none of this.
template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
struct BlockPoolArgs {
  std::vector<Block<S, L, M>> blocks;  // at least one; all of one make_blocks() call
  BlockRegistrationDuplicationSetting duplicates = BlockRegistrationDuplicationSetting::Disabled;
  EvictionPolicy eviction = EvictionPolicy::Lru;
  std::shared_ptr<EventManager> event_manager = nullptr;
  std::shared_ptr<Registry> metrics_registry = nullptr;
  std::stop_token cancellation_token = {};
};

// Thread-safe; one mutex. Every call but the counts, and those that give back, answers
// ProgressEngineShutdown once the cancellation token was stopped or the manager closed. Movable;
// the last owner ends the pool, and handles live on.
template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
class BlockPool {
 public:
  using Mutable = MutableBlock<S, L, M>;
  using Complete = CompleteBlock<S, L, M>;
  using Immutable = ImmutableBlock<S, L, M>;

  // Errors: InvalidConfig without blocks; InvalidMutableBlock as add_blocks().
  static Result<BlockPool> create(BlockPoolArgs<S, L, M> args) {
    if (args.blocks.empty()) {
      return Error{ErrorCode::InvalidConfig, 0, 0, 0, "a pool needs at least one block"};
    }
    KVBM_TRY(auto pool,
             detail::make_pool(args.blocks.front().set(),
                               {args.duplicates, args.eviction, std::move(args.event_manager),
                                std::move(args.metrics_registry),
                                std::move(args.cancellation_token), detail::metadata_table<M>()}));
    BlockPool made(std::move(pool));
    KVBM_CHECK_OK(made.add_blocks_blocking(std::move(args.blocks)));
    return made;
  }
  explicit BlockPool(std::shared_ptr<detail::TierPool> pool) : pool_(std::move(pool)) {}
  BlockPool(BlockPool&&) noexcept = default;
  BlockPool& operator=(BlockPool&&) noexcept = default;

  std::uint64_t total_blocks() const noexcept { return detail::total_blocks(*pool_); }
  // Free plus evictable blocks at one instant; stale as soon as it is returned.
  std::uint64_t available_blocks() const { return detail::available_blocks(*pool_); }
  PoolStats stats() const { return detail::stats(*pool_); }

  // Takes `count` writable blocks: free ones first, then evictable leaves as the eviction policy
  // says. All or nothing; 0 blocks are none. Their bytes are whatever was there. The names that
  // were evicted for them are appended to `evicted`, if given. Cost: O(count), one lock. Errors:
  // NotEnoughBlocksAvailable{requested, available}; nothing is evicted.
  BlockPoolResult<std::vector<Mutable>> allocate_blocks_blocking(
      std::size_t count, std::vector<SequenceHash>* evicted = nullptr) const {
    KVBM_TRY(const auto ids, detail::allocate_blocks(*pool_, count, evicted));
    return adopt<Mutable, detail::MutableHold>(ids);
  }
  // One block, without a list around it.
  BlockPoolResult<Mutable> allocate_block() const {
    const BlockId id = detail::allocate_block(*pool_);
    if (id == kNoBlock) return detail::why_no_block(*pool_);
    return Mutable(detail::MutableHold(detail::store_of(*pool_), id));
  }

  // Makes blocks that you filled visible to matches, in order, and offers them to the tier below.
  // Where a name is registered already, BlockRegistrationDuplicationSetting says what happens.
  // Outside the device tier the bytes are summed now, on this thread.
  // Cost: O(blocks), one lock, plus the summing.
  // Errors: BlockNotComplete{position, count}; InvalidMutableBlock{position, count} for an empty
  // handle or one of another pool; NotAccessible in the disk tier, whose blocks only a transfer can
  // fill. Then nothing is registered and the blocks are free.
  BlockPoolResult<std::vector<Immutable>> register_blocks_blocking(
      std::vector<Mutable> blocks) const {
    return registered(unwrap<detail::MutableHold>(std::move(blocks)));
  }
  BlockPoolResult<std::vector<Immutable>> register_blocks_blocking(
      std::vector<Complete> blocks) const {
    return registered(unwrap<detail::CompleteHold>(std::move(blocks)));
  }

  // Longest prefix of `hashes` that is registered here; empty if the first one misses. A miss is an
  // answer, and so is a hash of another namespace or of before a reset. Cost: O(hits), one lock.
  BlockPoolResult<std::vector<Immutable>> match_sequence_hashes_blocking(
      std::span<const SequenceHash> hashes, NamespaceId name_space = 0) const {
    return matched({.hashes = hashes, .name_space = name_space});
  }
  // The same by token blocks: a block is found only if its digest agrees as well, so that a prompt
  // crafted to collide with another one's hash is a miss. See DigestKey.
  BlockPoolResult<std::vector<Immutable>> match_token_blocks(std::span<const TokenBlock> tokens,
                                                             NamespaceId name_space = 0) const {
    return matched({.tokens = tokens, .name_space = name_space});
  }
  // Either as one run; each hash must name the child of the one before it. The fast way: one hold,
  // nothing allocated.
  BlockPoolResult<BlockRun<S, L, M>> match_run(std::span<const SequenceHash> hashes,
                                               NamespaceId name_space = 0) const {
    KVBM_TRY(auto hold, detail::match_chain(*pool_, {.hashes = hashes, .name_space = name_space}));
    return BlockRun<S, L, M>(std::move(hold));
  }
  BlockPoolResult<BlockRun<S, L, M>> match_run(std::span<const TokenBlock> tokens,
                                               NamespaceId name_space = 0) const {
    KVBM_TRY(auto hold, detail::match_chain(*pool_, {.tokens = tokens, .name_space = name_space}));
    return BlockRun<S, L, M>(std::move(hold));
  }
  // Every one of `hashes` that is registered, misses skipped, with its position in `hashes`.
  BlockPoolResult<std::vector<std::pair<std::size_t, Immutable>>> scan_matches(
      std::span<const SequenceHash> hashes, NamespaceId name_space = 0) const {
    KVBM_TRY(auto holds, detail::scan_blocks(*pool_, {.hashes = hashes, .name_space = name_space}));
    std::vector<std::pair<std::size_t, Immutable>> found;
    found.reserve(holds.size());
    for (auto& [position, hold] : holds) found.emplace_back(position, Immutable(std::move(hold)));
    return found;
  }
  // Which of `hashes` are registered here now. Takes nothing and does not count as use.
  BlockPoolResult<std::vector<bool>> contains_blocks(std::span<const SequenceHash> hashes,
                                                     NamespaceId name_space = 0) const {
    return detail::contains_blocks(*pool_, {.hashes = hashes, .name_space = name_space});
  }
  // Makes the longest registered prefix the most recently used; returns its length.
  BlockPoolResult<std::size_t> touch_blocks(std::span<const SequenceHash> hashes,
                                            NamespaceId name_space = 0) const {
    return detail::touch_blocks(*pool_, {.hashes = hashes, .name_space = name_space});
  }

  // Drops handles at once: one lock, where dropping them one by one may take one each. Handles of
  // other pools are dropped as well.
  static void return_blocks(std::vector<Mutable> blocks) noexcept { return_all(blocks); }
  static void return_blocks(std::vector<Immutable> blocks) noexcept { return_all(blocks); }

  // How much a block, or the blocks of a run that hold any of these tokens, are wanted from now on.
  // Errors: InvalidConfig{priority, MAX_PRIORITY}, for a duration that is not positive, or for a
  // range that begins after the run {begin, tokens of the run} or is empty; InvalidMutableBlock for
  // an empty handle or one of another pool. Then nothing changes.
  BlockPoolResult<void> retain(const Mutable& block, const RetentionOptions& options) const {
    return detail::retain(*pool_, block.hold(), options);
  }
  BlockPoolResult<void> retain(const Immutable& block, const RetentionOptions& options) const {
    return detail::retain(*pool_, block.hold(), options);
  }
  BlockPoolResult<void> retain(const BlockRun<S, L, M>& run, const RetentionOptions& options,
                               const TokenRange& tokens = {}) const {
    return detail::retain(*pool_, run.hold(), tokens, options);
  }
  // The registered prefix of `hashes` is evicted last of all until it is matched, say because a
  // request that needs it waits in a queue. Returns its length. A mark, not a hold: when nothing
  // else is left, protected blocks go too.
  BlockPoolResult<std::size_t> protect(std::span<const SequenceHash> hashes,
                                       NamespaceId name_space = 0) const {
    return detail::protect(*pool_, {.hashes = hashes, .name_space = name_space});
  }
  // Keeps a block, or a run, in the pool for `duration`, whatever becomes of the handle, or until
  // the lease is given back. Errors: InvalidConfig for a duration that is not positive;
  // InvalidMutableBlock for an empty handle or one of another pool.
  BlockPoolResult<LeaseId> lease(const Immutable& block, std::chrono::nanoseconds duration) const {
    return detail::lease(*pool_, block.hold(), duration);
  }
  BlockPoolResult<LeaseId> lease(const BlockRun<S, L, M>& run,
                                 std::chrono::nanoseconds duration) const {
    return detail::lease(*pool_, run.hold(), duration);
  }
  // False if the lease has ended before, or never was.
  bool release_lease(LeaseId lease) const { return detail::release_lease(*pool_, lease); }

  // What share of the blocks that were asked for so far a pool of `blocks` blocks under LRU would
  // have found, estimated from a sample in fixed memory; NaN before anything was asked.
  double hit_ratio_at(std::size_t blocks) const { return detail::hit_ratio_at(*pool_, blocks); }
  // The same as a curve, for plotting; ascending in blocks.
  std::vector<HitRatioPoint> miss_ratio_curve() const { return detail::miss_ratio_curve(*pool_); }

  // Blocks of the pool's own set that it did not have yet; total_blocks() grows.
  // Errors: InvalidMutableBlock if one is of another set {position, count} or in the pool already
  // {block id, blocks of the set}; none is added then.
  BlockPoolResult<void> add_blocks_blocking(std::vector<Block<S, L, M>> blocks) const {
    std::vector<std::pair<detail::BlockSet*, BlockId>> ids;
    ids.reserve(blocks.size());
    for (const auto& block : blocks) ids.emplace_back(block.set().get(), block.block_id());
    return detail::add_blocks(*pool_, ids);
  }

  // Forgets every registered block, of all namespaces or of one. What was registered, or only
  // named, before is never matched again. Forgotten blocks are evicted before all others; of one
  // namespace, when the turn of their priority comes. Cost: O(1), one lock.
  BlockPoolResult<PoolReset> reset() const { return detail::reset_pool(*pool_, std::nullopt); }
  BlockPoolResult<PoolReset> reset(NamespaceId name_space) const {
    return detail::reset_pool(*pool_, name_space);
  }

  // The reference's asynchronous forms.
  Completion<BlockPoolResult<std::vector<Mutable>>> allocate_blocks(std::size_t count) const {
    return ready(allocate_blocks_blocking(count));
  }
  Completion<BlockPoolResult<std::vector<Immutable>>> register_blocks(
      std::vector<Mutable> blocks) const {
    return ready(register_blocks_blocking(std::move(blocks)));
  }
  Completion<BlockPoolResult<std::vector<Immutable>>> register_blocks(
      std::vector<Complete> blocks) const {
    return ready(register_blocks_blocking(std::move(blocks)));
  }
  Completion<BlockPoolResult<std::vector<Immutable>>> match_sequence_hashes(
      std::span<const SequenceHash> hashes) const {
    return ready(match_sequence_hashes_blocking(hashes));
  }
  Completion<BlockPoolResult<void>> add_blocks(std::vector<Block<S, L, M>> blocks) const {
    return ready(add_blocks_blocking(std::move(blocks)));
  }

 private:
  template <class T>
  static Completion<T> ready(T value) {
    return Completion<T>(std::move(value));
  }
  template <class HoldType, class Handle>
  static std::vector<HoldType> unwrap(std::vector<Handle> blocks) {
    std::vector<HoldType> holds;
    holds.reserve(blocks.size());
    for (Handle& block : blocks) holds.push_back(block.take_hold());
    return holds;
  }
  template <class Handle>
  static void return_all(std::vector<Handle>& blocks) noexcept {
    detail::release_all(std::span(blocks),
                        [](Handle& block) -> detail::Hold { return block.take_hold(); });
  }
  BlockPoolResult<std::vector<Immutable>> matched(const detail::Wanted& wanted) const {
    KVBM_TRY(const auto ids, detail::match_blocks(*pool_, wanted));
    return adopt<Immutable, detail::ImmutableHold>(ids);
  }
  template <class Handle, class HoldType>
  std::vector<Handle> adopt(const std::vector<BlockId>& ids) const {
    BlockStore* const store = detail::store_of(*pool_);
    std::vector<Handle> blocks;
    blocks.reserve(ids.size());
    for (const BlockId id : ids) blocks.emplace_back(HoldType(store, id));
    return blocks;
  }
  template <class HoldType>
  BlockPoolResult<std::vector<Immutable>> registered(std::vector<HoldType> holds) const {
    KVBM_TRY(auto immutable, detail::register_blocks(*pool_, std::move(holds)));
    return detail::wrap_all<Immutable>(std::move(immutable));
  }

  std::shared_ptr<detail::TierPool> pool_;
};

}  // namespace kvbm
