// One tier: the blocks of a store, the memory they name, and the sums of their bytes.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <unordered_map>
#include <vector>

#include "base/large_array.h"
#include "base/mutex.h"
#include "kvbm/pool.h"
#include "logical/pool/block_store.h"
#include "logical/pool/hold_ops.h"
#include "observe/event_dispatcher.h"
#include "physical/layout/layout.h"
#include "physical/transfer/transfer.h"

namespace kvbm::detail {

class DiskTier;

// What blocks are made of. Lives as long as any block of the pool is held.
struct BlockSet {
  Tier tier;
  LayoutConfig config;
  std::shared_ptr<const Layout> layout;  // null: the bytes are in other processes
  std::size_t block_bytes() const noexcept {
    return layout ? layout->content()->bytes() : config.block_bytes();
  }
  // Outside G1, one per block: its payload sum, sealed with its identity. Written by the owner of a
  // block before it is registered, read by those who hold it.
  std::optional<LargeArray<std::uint64_t>> sealed_sums;
  // Where they are kept, in memory: the tokens of each block, page_size apiece, or kUnknownToken
  // first where nobody knows them. Written and read as the sums.
  static constexpr Token kUnknownToken = ~Token{0};
  std::optional<LargeArray<Token>> tokens;
  // Of a tier that survives its manager, by namespace: what its store calls epoch 0 of the pool.
  // Null elsewhere.
  std::unique_ptr<std::array<std::atomic<std::uint32_t>, 256>> first_epochs;

  std::uint32_t lasting_epoch(const BlockIdentity& identity) const noexcept {
    return (*first_epochs)[identity.name_space].load(std::memory_order_relaxed) + identity.epoch;
  }
  // Requires: tokens, and a valid id.
  std::span<Token> tokens_of(BlockId id) noexcept {
    return {&(*tokens)[id * config.page_size], config.page_size};
  }

  // Blocks whose owner adds tokens one by one. An entry belongs to the allocation whose tick it
  // carries; an older one was forgotten with its handle.
  struct Partial {
    std::uint32_t acquired_tick;  // the low half, which is all that a block keeps of it
    PartialTokenBlock tokens;
    NamespaceId name_space;
  };
  Mutex partials_mutex;
  std::unordered_map<BlockId, Partial> partials KVBM_GUARDED_BY(partials_mutex);
};

// Blocks in these places. `config` is what their handles tell of their shape.
std::shared_ptr<BlockSet> make_block_set(Tier tier, std::shared_ptr<const Layout> layout,
                                         const LayoutConfig& config);

// As names to match.
inline Names names_of(const BlockKey& key) noexcept {
  return {std::span(&key.hash, 1), std::span(&key.digest, 1), key.name_space};
}
// What tells a held block from others, to remember it by.
BlockKey key_of(const Hold& hold) noexcept;

BlockIdentity identity_of(const TokenBlock& tokens, NamespaceId name_space);

// The block set of a hold. Requires: a hold that is not empty.
BlockSet& set_of(const Hold& hold) noexcept;

// Hashes and digests, gathered where the caller has token blocks.
class Gathered {
 public:
  explicit Gathered(const Wanted& wanted);
  Names names() const;

 private:
  const Wanted wanted_;
  std::vector<SequenceHash> hashes_;
  std::vector<std::uint64_t> digests_;
};

// A block that wants to be in the tier below, and how much: higher goes first.
struct OffloadOffer {
  BlockKey key;
  std::uint64_t priority;
};

// Thread-safe. There are two doors to registration and no third:
//   register_blocks       for the owner of blocks that it filled itself
//   register_transferred  for blocks that a transfer filled and can prove it
// Once closed, every call but the counts answers ProgressEngineShutdown.
class TierPool {
 public:
  // Called after a registration through the first door, with no lock held.
  using Listener = std::function<void(Tier, std::vector<OffloadOffer>)>;

  struct Options {
    BlockRegistrationDuplicationSetting duplicates = BlockRegistrationDuplicationSetting::Disabled;
    EvictionPolicy eviction = EvictionPolicy::Lru;
    bool start_empty = false;
    std::size_t ready_blocks = ~std::size_t{0};  // see BlockStoreOptions
    const MetadataTable* metadata = nullptr;
    std::shared_ptr<EventSink> events = nullptr;
    std::shared_ptr<Registry> metrics_registry = nullptr;
    std::function<TimePoint()> now = {};  // tells the time; empty: the steady clock
  };
  // Errors: those of BlockStore::create.
  static Result<std::shared_ptr<TierPool>> create(std::shared_ptr<BlockSet> set,
                                                  const Options& options);

  ~TierPool();

  // Ids with one hold each.
  Result<std::vector<BlockId>> allocate_blocks(std::size_t count,
                                               std::vector<SequenceHash>* evicted = nullptr);
  // kNoBlock if none is available or the pool is closed.
  BlockId allocate_block() noexcept;
  // Sums the bytes outside G1, then registers. Errors: as BlockPool::register_blocks_blocking.
  Result<std::vector<ImmutableHold>> register_blocks(std::vector<CompleteHold> blocks);
  Result<std::vector<BlockId>> match_blocks(const Names& names);
  Result<RunHold> match_chain(const Names& names);

  // For the blocks of one transfer, in order, an answer each: what the transfer says, or
  // FailedToRegisterBlock{block, the token's block} if the token proves another copy, or one of a
  // part of the block. One
  // registration for all: a chain that arrives block by block would be climbed for every one.
  std::vector<Result<ImmutableHold>> register_transferred(
      std::vector<CompleteHold> blocks, std::vector<Result<TransferToken>> tokens);

  // What a sum of a held block's bytes is XORed with before it is kept.
  std::uint64_t seal_of(BlockId id) const noexcept;
  // What the bytes of a held block must sum to; nothing in G1, where the engine owns the bytes.
  std::optional<std::uint64_t> payload_sum(const ImmutableHold& block) const;

  void set_listener(Listener listener) { listener_ = std::move(listener); }
  // Ends these events with the pool: the store, which may outlive it, must not wait for them when
  // its last block is dropped.
  void own(std::shared_ptr<EventDispatcher> events) { own_events_ = std::move(events); }
  // Closes the pool when `token` is stopped.
  void close_with(std::stop_token token);
  // Makes it a tier whose blocks survive, and takes in those that did. Before the pool is shared.
  // Errors: those of DiskTier::attach().
  Result<void> survive(std::shared_ptr<DiskTier> disk);
  // Null unless the blocks survive.
  DiskTier* disk() const noexcept { return disk_.get(); }
  // Whether blocks may be written to it, or read from it, at present.
  bool is_writable(TimePoint now) const noexcept;
  bool is_readable(TimePoint now) const noexcept;
  // Forgetting every block, or those of one namespace, takes two steps. First the store, if there
  // is one, so that no later life finds them: a block that is put in between is void for the store,
  // and forgotten here in a moment. Errors: those of DiskTier::forget(); the second step follows
  // all the same.
  Result<void> forget_for_good(std::optional<NamespaceId> name_space);
  // Then the pool. Cost: O(1), one lock.
  ResetCounts reset(std::optional<NamespaceId> name_space);

  void close() noexcept { closed_.store(true, std::memory_order_relaxed); }
  bool is_closed() const noexcept { return closed_.load(std::memory_order_relaxed); }
  Result<void> check_open() const;
  PoolStats stats() const;
  // Brings the metrics up to what the store has counted. Does nothing without metrics.
  void publish_metrics() const KVBM_EXCLUDES(metrics_mutex_);
  // The same where nobody asks for it before the metrics are read.
  void changed() const {
    if (metrics_ && !collector_) publish_metrics();
  }
  TimePoint time() const { return now_ ? now_() : std::chrono::steady_clock::now(); }
  // Tells the store the time, if it has a use for it.
  void tell_time() const {
    if (store_->wants_time()) store_->advance(time());
  }

  Tier tier() const noexcept { return set_->tier; }
  BlockStore& store() noexcept { return *store_; }
  const BlockStore& store() const noexcept { return *store_; }
  const std::shared_ptr<BlockSet>& set() const noexcept { return set_; }
  const std::shared_ptr<const Layout>& layout() const noexcept { return set_->layout; }

 private:
  TierPool(std::shared_ptr<BlockSet> set, BlockStore::Owner store);

  std::shared_ptr<BlockSet> set_;
  BlockStore::Owner store_;
  std::function<TimePoint()> now_;
  std::optional<BlockManagerMetrics> metrics_;
  mutable Mutex metrics_mutex_;
  mutable BlockStoreStats published_ KVBM_GUARDED_BY(metrics_mutex_);
  std::shared_ptr<void> collector_;  // publishes when the metrics are read
  Listener listener_;                // set before the pool is shared
  std::shared_ptr<EventDispatcher> own_events_;
  std::shared_ptr<DiskTier> disk_;
  std::atomic<bool> closed_{false};
  std::optional<std::stop_callback<std::function<void()>>> closer_;
};

}  // namespace kvbm::detail
