// KvBlockManager: the pools of one worker and the engine that moves blocks between them.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kvbm/completion.h"
#include "kvbm/config.h"
#include "kvbm/peers.h"
#include "kvbm/pool.h"
#include "kvbm/remote.h"
#include "kvbm/result.h"
#include "kvbm/tiers.h"

namespace kvbm {

namespace detail {

struct ManagerCore;
struct ManagerAccess;

struct ManagerCoreDeleter {
  void operator()(ManagerCore* core) const noexcept;
};
using ManagerCorePtr = std::unique_ptr<ManagerCore, ManagerCoreDeleter>;

// An onboarding that is ready to start: blocks that are there and blocks that must be moved.
struct OnboardWork;
struct OnboardWorkDeleter {
  void operator()(OnboardWork* work) const noexcept;
};
using OnboardWorkPtr = std::unique_ptr<OnboardWork, OnboardWorkDeleter>;
using Moved = std::vector<Result<ImmutableHold>>;

// Where the blocks of an onboarding go: to new blocks of the device pool unless one is set.
struct OnboardTargets {
  std::optional<std::vector<MutableHold>> given = std::nullopt;
  const ExternalBlocks* external = nullptr;
};

// How to end a request early, and what must live until it has ended.
struct RequestTicket {
  std::function<void()> cancel;
  std::shared_ptr<void> attachment;
};

Result<ManagerCorePtr> make_manager(const KvBlockManagerConfig& config,
                                    const MetadataTable* metadata);
std::size_t block_size(const ManagerCore& core) noexcept;
WorkerID worker_id(const ManagerCore& core) noexcept;
std::shared_ptr<TierPool> pool_of(const ManagerCore& core, Tier tier) noexcept;
Lookup lookup(ManagerCore& core, const Wanted& wanted, const LookupOptions& options);
void lookup_with_peers(ManagerCore& core, std::span<const TokenBlock> tokens,
                       NamespaceId name_space, const LookupOptions& options,
                       std::function<void(Lookup)> answer);
std::string sharing_address(const ManagerCore& core);
std::vector<PeerHealth> peers(const ManagerCore& core);
PeersStats peers_stats(const ManagerCore& core);
Result<Lookup> take_plan(ManagerCore& core, PlanId id);
Presence presence(const ManagerCore& core, SequenceHash hash, NamespaceId name_space);
Result<void> reset(ManagerCore& core, std::optional<Tier> tier,
                   std::optional<NamespaceId> name_space);
Result<OnboardWorkPtr> prepare_onboard(ManagerCore& core, Lookup lookup, OnboardTargets targets);
bool needs_transfers(const OnboardWork& work) noexcept;
Moved take_ready(OnboardWorkPtr work);
RequestTicket start_onboard(ManagerCore& core, OnboardWorkPtr work, const OnboardOptions& options,
                            std::function<void(Moved)> answer);
Result<RequestTicket> start_offload(ManagerCore& core, std::vector<ImmutableHold> blocks,
                                    const OffloadOptions& options,
                                    std::function<void(Moved)> answer);
Result<RequestTicket> start_offload(ManagerCore& core, const ExternalBlocks& blocks,
                                    std::span<const TokenBlock> tokens, NamespaceId name_space,
                                    const OffloadOptions& options,
                                    std::function<void(Moved)> answer);
Result<RequestTicket> start_prefetch(ManagerCore& core, Lookup lookup,
                                     const PrefetchOptions& options,
                                     std::function<void(PrefetchResult)> answer);
ExternalResult external_result(Moved moved);
bool is_external_busy(const ManagerCore& core, BlockId id);
bool drain(ManagerCore& core, std::chrono::nanoseconds timeout);
Result<void> wait_until_filled(const ManagerCore& core, std::chrono::nanoseconds timeout);
TransferStats transfer_stats(const ManagerCore& core);
std::optional<DiskStats> disk_stats(const ManagerCore& core);
const std::vector<std::string>& transfer_paths(const ManagerCore& core) noexcept;
void close(ManagerCore& core);

}  // namespace detail

// Thread-safe but for moving. Blocks registered in a tier are copied to the tier below in the
// background.
//
// Destroying it closes it: requests end with Cancelled, queued offloads are dropped, running copies
// are waited for, then pools, layouts and memory go, each as soon as nobody holds a block of it.
template <BlockMetadata Metadata>
class KvBlockManager {
 public:
  using DevicePool = BlockPool<DeviceStorage, locality::Local, Metadata>;
  using HostPool = BlockPool<PinnedStorage, locality::Local, Metadata>;
  using DiskPool = BlockPool<DiskStorage, locality::Local, Metadata>;

  // Allocates every tier; ready when it returns. Errors: InvalidConfig with every problem named;
  // errors of the allocators; those of the disk tier's store, which is refused if it is somebody
  // else's or was made for something else; NixlError if NIXL is asked for
  // and cannot be loaded, naming what is missing; OperationFailed naming the path where leaders
  // cannot be answered, because somebody else serves it or the system refuses.
  static Result<KvBlockManager> create(const KvBlockManagerConfig& config) {
    KVBM_TRY(auto core, detail::make_manager(config, detail::metadata_table<Metadata>()));
    return KvBlockManager(std::move(core));
  }
  KvBlockManager(KvBlockManager&&) noexcept = default;
  KvBlockManager& operator=(KvBlockManager&&) noexcept = default;

  std::size_t block_size() const noexcept { return detail::block_size(*core_); }  // tokens
  WorkerID worker_id() const noexcept { return detail::worker_id(*core_); }
  // Null where the tier is not configured. Valid as long as the manager.
  DevicePool* device() const noexcept { return device_ ? &*device_ : nullptr; }
  HostPool* host() const noexcept { return host_ ? &*host_ : nullptr; }
  DiskPool* disk() const noexcept { return disk_ ? &*disk_ : nullptr; }

  // The longest prefix that the tiers hold together. Cost: one hash probe per block and tier tried.
  Lookup lookup(std::span<const SequenceHash> hashes, NamespaceId name_space = 0,
                const LookupOptions& options = {}) const {
    return detail::lookup(*core_, {.hashes = hashes, .name_space = name_space}, options);
  }
  // The same by token blocks, whose digests must agree as well; see DigestKey.
  Lookup lookup(std::span<const TokenBlock> tokens, NamespaceId name_space = 0,
                const LookupOptions& options = {}) const {
    return detail::lookup(*core_, {.tokens = tokens, .name_space = name_space}, options);
  }
  // The same of a whole prompt, without its last token unless options.whole_prompt.
  Lookup lookup(const TokenBlockSequence& prompt, NamespaceId name_space = 0,
                LookupOptions options = {}) const {
    options.prompt_tokens = prompt.total_tokens();
    return lookup(prompt.blocks(), name_space, options);
  }
  // What lookup() finds, and what one of the peers has of the blocks that follow: the one that has
  // most of them keeps those for this plan (Tier::Remote). All peers are asked at once and nobody
  // is waited for longer than options.peers_timeout; a peer that is down, slow or wrong is a miss.
  // Returns at once. Where there are no peers it is what lookup() finds. Names are compared with
  // their digests.
  Completion<Lookup> lookup_with_peers(std::span<const TokenBlock> tokens,
                                       NamespaceId name_space = 0,
                                       const LookupOptions& options = {}) const {
    auto state = std::make_shared<detail::CompletionState<Lookup>>();
    detail::lookup_with_peers(*core_, tokens, name_space, options,
                              [state](Lookup lookup) { state->finish(std::move(lookup)); });
    return Completion<Lookup>(std::move(state));
  }
  // The same of a whole prompt, without its last token unless options.whole_prompt.
  Completion<Lookup> lookup_with_peers(const TokenBlockSequence& prompt, NamespaceId name_space = 0,
                                       LookupOptions options = {}) const {
    options.prompt_tokens = prompt.total_tokens();
    return lookup_with_peers(prompt.blocks(), name_space, options);
  }
  // "host:port" at which this worker answers peers; empty: nowhere.
  std::string sharing_address() const { return detail::sharing_address(*core_); }
  // The peers whose blocks may be loaded, in the order in which they were configured, and what came
  // of asking them. Cost: one lock per peer, or in all.
  std::vector<PeerHealth> peers() const { return detail::peers(*core_); }
  PeersStats peers_stats() const { return detail::peers_stats(*core_); }
  // Takes up a plan that Lookup::leave() left, or that a Leader asked for. Its lease goes on. Cost:
  // one lock. Errors: PlanExpired{id}.
  Result<Lookup> take_plan(PlanId id) const { return detail::take_plan(*core_, id); }
  // Which tiers have this one block now. Takes nothing and does not count as use. Cost: one lock
  // and probe per tier.
  Presence presence(SequenceHash hash, NamespaceId name_space = 0) const {
    return detail::presence(*core_, hash, name_space);
  }

  // Forgets every block of every tier, or of one namespace, at once for lookups that begin later.
  // Copies under way arrive forgotten. Blocks that are held stay valid for their holders. In a disk
  // tier that is a store they are forgotten for good when this returns.
  // Cost: O(tiers), and in a store two small synced writes. Errors: ProgressEngineShutdown after
  // close(); OperationFailed if the store could not be written: its blocks may be found again by
  // the next manager.
  Result<void> reset() { return detail::reset(*core_, std::nullopt, std::nullopt); }
  Result<void> reset(NamespaceId name_space) {
    return detail::reset(*core_, std::nullopt, name_space);
  }
  // The same for one tier alone.
  Result<void> reset(Tier tier) { return detail::reset(*core_, tier, std::nullopt); }

  // Brings every block of the lookup into the device tier; blocks that are there stay. Returns at
  // once. Errors: PlanExpired{id}; NotEnoughBlocksAvailable{requested, available} if the device
  // tier has too few blocks; InvalidConfig where the device's blocks are external;
  // ProgressEngineShutdown after close().
  Result<Completion<OnboardResult<Metadata>>> onboard(Lookup lookup, OnboardOptions options = {}) {
    return onboard_to({}, std::move(lookup), options);
  }
  // The same into these blocks, one for each block of the lookup that is not in the device tier.
  // What arrived for another request meanwhile is shared, and the given block is free again.
  // Errors, besides: InvalidConfig{given, needed}; InvalidMutableBlock{position} for a block of
  // another pool.
  Result<Completion<OnboardResult<Metadata>>> onboard(
      Lookup lookup, std::vector<MutableBlock<DeviceStorage, locality::Local, Metadata>> targets,
      OnboardOptions options = {}) {
    return onboard_to({.given = unwrap(std::move(targets))}, std::move(lookup), options);
  }
  // The same into the engine's own blocks, one for each block of the lookup. Errors, besides:
  // InvalidConfig unless the device layout is external; InvalidBlockIndex{id, limit}.
  Result<Completion<ExternalResult>> onboard(Lookup lookup, const ExternalBlocks& targets,
                                             OnboardOptions options = {}) {
    KVBM_TRY(auto work, prepare(std::move(lookup), {.external = &targets}, options));
    if (!detail::needs_transfers(*work)) return Completion<ExternalResult>(ExternalResult{});
    auto state = std::make_shared<detail::CompletionState<ExternalResult>>();
    attach(*state,
           detail::start_onboard(*core_, std::move(work), options, [state](detail::Moved blocks) {
             state->finish(detail::external_result(std::move(blocks)));
           }));
    return Completion<ExternalResult>(std::move(state));
  }

  // Copies these blocks to the host tier, whatever the offload mode is. Returns at once. Errors:
  // InvalidConfig without a host tier; InvalidMutableBlock{position} for a block of another
  // pool; ProgressEngineShutdown after close().
  Result<Completion<OffloadResult<Metadata>>> offload(
      std::vector<ImmutableBlock<DeviceStorage, locality::Local, Metadata>> blocks,
      OffloadOptions options = {}) {
    auto state = std::make_shared<detail::CompletionState<OffloadResult<Metadata>>>();
    KVBM_TRY(auto ticket,
             detail::start_offload(*core_, unwrap(std::move(blocks)), options,
                                   [state](detail::Moved moved) {
                                     state->finish({wrap<PinnedStorage>(std::move(moved))});
                                   }));
    attach(*state, std::move(ticket));
    return Completion<OffloadResult<Metadata>>(std::move(state));
  }
  // The same of the engine's own blocks, which hold what `tokens` names, one each. Errors, besides:
  // InvalidConfig unless the device layout is external, and for numbers that differ;
  // InvalidBlockIndex{id, limit}.
  Result<Completion<ExternalResult>> offload(const ExternalBlocks& blocks,
                                             std::span<const TokenBlock> tokens,
                                             NamespaceId name_space = 0,
                                             OffloadOptions options = {}) {
    auto state = std::make_shared<detail::CompletionState<ExternalResult>>();
    KVBM_TRY(auto ticket,
             detail::start_offload(*core_, blocks, tokens, name_space, options,
                                   [state](detail::Moved moved) {
                                     state->finish(detail::external_result(std::move(moved)));
                                   }));
    attach(*state, std::move(ticket));
    return Completion<ExternalResult>(std::move(state));
  }
  // Whether a copy reads or writes the external block, or is about to. One lock.
  bool is_external_busy(BlockId id) const { return detail::is_external_busy(*core_, id); }

  // Brings what the lookup found on disk into the host tier, for a request that is queued. Returns
  // at once. Errors: PlanExpired{id}; ProgressEngineShutdown after close().
  Result<Completion<PrefetchResult>> prefetch(Lookup lookup, PrefetchOptions options = {}) {
    auto state = std::make_shared<detail::CompletionState<PrefetchResult>>();
    KVBM_TRY(auto ticket,
             detail::start_prefetch(*core_, std::move(lookup), options,
                                    [state](PrefetchResult result) { state->finish(result); }));
    attach(*state, std::move(ticket));
    return Completion<PrefetchResult>(std::move(state));
  }

  // Waits until nothing is queued or moving, also what others begin meanwhile; false if that took
  // longer than `timeout`. After close() nothing is.
  bool drain(std::chrono::nanoseconds timeout) { return detail::drain(*core_, timeout); }

  // Waits until every tier can hand out all its blocks. A manager can be used at once, whatever its
  // size: blocks of the host tier become available as the kernel gives their pages, and those that
  // a disk tier found can be evicted when their order is known. Who measures, or wants the same
  // hits in every run, waits. Errors: TimedOut{bytes, bytes so far}; ProgressEngineShutdown;
  // AllocationFailed with errno if the kernel has no more pages, and then the tier stays as it is.
  Result<void> wait_until_filled(std::chrono::nanoseconds timeout) const {
    return detail::wait_until_filled(*core_, timeout);
  }

  // Cost of these: one lock.
  TransferStats transfer_stats() const { return detail::transfer_stats(*core_); }
  // Of a disk tier that is a store; nothing otherwise.
  std::optional<DiskStats> disk_stats() const { return detail::disk_stats(*core_); }
  // How bytes are moved, as it was found out when the manager was made: a line for people per kind
  // of transfer, such as "files: io_uring, 32 requests deep".
  const std::vector<std::string>& transfer_paths() const noexcept {
    return detail::transfer_paths(*core_);
  }

  // Ends every request with Cancelled, drops queued offloads, waits for running copies. Later calls
  // of the manager and its pools answer ProgressEngineShutdown; handles stay valid. Idempotent.
  void close() { detail::close(*core_); }

  // Remote blocksets. Errors: NixlError; see remote.h.
  Result<SerializedNixlBlockSet> export_local_blockset() const {
    return detail::nixl_is_absent("export_local_blockset");
  }
  Result<void> import_remote_blockset(const SerializedNixlBlockSet&) {
    return detail::nixl_is_absent("import_remote_blockset");
  }
  Result<std::vector<RemoteBlock<IsImmutable>>> get_remote_blocks_immutable(
      const BlockDescriptorList&) const {
    return detail::nixl_is_absent("get_remote_blocks_immutable");
  }
  Result<std::vector<RemoteBlock<IsMutable>>> get_remote_blocks_mutable(
      const BlockDescriptorList&) const {
    return detail::nixl_is_absent("get_remote_blocks_mutable");
  }

 private:
  friend struct detail::ManagerAccess;
  explicit KvBlockManager(detail::ManagerCorePtr core) : core_(std::move(core)) {
    if (auto pool = detail::pool_of(*core_, Tier::Device)) device_.emplace(std::move(pool));
    if (auto pool = detail::pool_of(*core_, Tier::Host)) host_.emplace(std::move(pool));
    if (auto pool = detail::pool_of(*core_, Tier::Disk)) disk_.emplace(std::move(pool));
  }

  // Whoever waits for layers must not wait for a request that is never begun.
  Result<detail::OnboardWorkPtr> prepare(Lookup lookup, detail::OnboardTargets targets,
                                         const OnboardOptions& options) {
    auto work = detail::prepare_onboard(*core_, std::move(lookup), std::move(targets));
    const bool begins = work && detail::needs_transfers(**work);
    if (!begins && options.layers) options.layers->end();
    return work;
  }

  Result<Completion<OnboardResult<Metadata>>> onboard_to(detail::OnboardTargets targets,
                                                         Lookup lookup,
                                                         const OnboardOptions& options) {
    KVBM_TRY(auto work, prepare(std::move(lookup), std::move(targets), options));
    if (!detail::needs_transfers(*work)) {
      return Completion<OnboardResult<Metadata>>(
          {wrap<DeviceStorage>(detail::take_ready(std::move(work)))});
    }
    auto state = std::make_shared<detail::CompletionState<OnboardResult<Metadata>>>();
    attach(*state,
           detail::start_onboard(*core_, std::move(work), options, [state](detail::Moved blocks) {
             state->finish({wrap<DeviceStorage>(std::move(blocks))});
           }));
    return Completion<OnboardResult<Metadata>>(std::move(state));
  }

  template <class T>
  static void attach(detail::CompletionState<T>& state, detail::RequestTicket ticket) {
    state.cancel = std::move(ticket.cancel);
    state.attachment = std::move(ticket.attachment);
  }
  template <class Handle>
  static auto unwrap(std::vector<Handle> blocks) {
    std::vector<decltype(blocks.front().take_hold())> holds;
    holds.reserve(blocks.size());
    for (Handle& block : blocks) holds.push_back(block.take_hold());
    return holds;
  }
  template <class S>
  static auto wrap(detail::Moved moved) {
    std::vector<Result<ImmutableBlock<S, locality::Local, Metadata>>> blocks;
    blocks.reserve(moved.size());
    for (auto& block : moved) {
      if (block) {
        blocks.push_back(ImmutableBlock<S, locality::Local, Metadata>(std::move(*block)));
      } else {
        blocks.push_back(std::move(block).error());
      }
    }
    return blocks;
  }

  detail::ManagerCorePtr core_;
  // Handles to pools that any thread may use: a constant manager gives them as well.
  mutable std::optional<DevicePool> device_;
  mutable std::optional<HostPool> host_;
  mutable std::optional<DiskPool> disk_;
};

using ReferenceBlockManager = KvBlockManager<BasicMetadata>;

}  // namespace kvbm
