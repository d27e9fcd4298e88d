// What kvbm/manager.h asks of a manager's core.
#include "kvbm/manager.h"

#include <algorithm>
#include <utility>

#include "manager/manager_core.h"
#include "remote/pull_executor.h"
#include "tiers/disk_tier.h"
#include "tiers/lookup.h"

namespace kvbm::detail {

void ManagerCoreDeleter::operator()(ManagerCore* core) const noexcept { delete core; }

Result<ManagerCorePtr> make_manager(const KvBlockManagerConfig& config,
                                    const MetadataTable* metadata) {
  return build_manager(config, metadata, {});
}

std::size_t block_size(const ManagerCore& core) noexcept { return core.block_size; }
WorkerID worker_id(const ManagerCore& core) noexcept { return core.runtime.worker_id; }

std::shared_ptr<TierPool> pool_of(const ManagerCore& core, Tier tier) noexcept {
  switch (tier) {
    case Tier::Device: return core.external ? nullptr : core.device;
    case Tier::Host: return core.host_is_transit ? nullptr : core.host;
    case Tier::Disk: return core.disk;
    case Tier::Remote: break;
  }
  return nullptr;
}

namespace {

Names from(const Names& names, std::size_t first) {
  return Names(names.hashes.subspan(first),
               names.digests.empty() ? names.digests : names.digests.subspan(first),
               names.name_space);
}

// Without the block of a prompt's last token, unless that is wanted.
Names wanted_of(const ManagerCore& core, const Gathered& gathered, const LookupOptions& options) {
  Names names = gathered.names();
  if (!options.prompt_tokens || options.whole_prompt) return names;
  const std::size_t tokens = std::max<std::size_t>(*options.prompt_tokens, 1) - 1;
  const std::size_t blocks = std::min(names.hashes.size(), tokens / core.block_size);
  names.hashes = names.hashes.first(blocks);
  if (!names.digests.empty()) names.digests = names.digests.first(blocks);
  return names;
}

std::chrono::milliseconds peer_lease(std::chrono::nanoseconds lease) {
  using std::chrono::milliseconds;
  return std::clamp(std::chrono::ceil<milliseconds>(lease), milliseconds(1), leader::kMaxLease);
}

}  // namespace

Lookup lookup(ManagerCore& core, const Wanted& wanted, const LookupOptions& options) {
  const Gathered gathered(wanted);
  return Lookup(core.driver->lookup(wanted_of(core, gathered, options), options.lease));
}

void lookup_with_peers(ManagerCore& core, std::span<const TokenBlock> tokens,
                       NamespaceId name_space, const LookupOptions& options,
                       std::function<void(Lookup)> answer) {
  const Gathered gathered({.tokens = tokens, .name_space = name_space});
  const Names names = wanted_of(core, gathered, options);
  // Before anybody is asked: what is reset from here on is not found under its old name.
  const std::uint16_t epoch = core.driver->pools().host
                                  ? core.driver->pools().host->store().epoch(name_space)
                                  : std::uint16_t{0};
  Plan local = lookup_tiers(core.driver->pools(), names);
  const std::size_t found = local.size();
  if (!core.peers || found == names.hashes.size()) {
    return answer(Lookup(core.driver->keep(std::move(local), options.lease)));
  }
  // Shared, because a std::function must be copyable.
  auto plan = std::make_shared<Plan>(std::move(local));
  RemotePart rest;
  for (const TokenBlock& block : tokens.subspan(found, names.hashes.size() - found)) {
    rest.identities.push_back(identity_of(block, name_space));
    rest.identities.back().epoch = epoch;
  }
  const Names missing = from(names, found);
  core.peers->lookup(missing.hashes, missing.digests, name_space, peer_lease(options.lease),
                     deadline_after(options.peers_timeout),
                     [driver = core.driver, plan, rest = std::move(rest), lease = options.lease,
                      answer = std::move(answer)](remote::PeerPlan peers) mutable {
                       if (peers.blocks() > 0) {
                         rest.identities.resize(std::min(rest.identities.size(), peers.blocks()));
                         rest.blocks = std::make_shared<remote::PeerBlocks>(std::move(peers));
                         plan->remote = std::move(rest);
                       }
                       answer(Lookup(driver->keep(std::move(*plan), lease)));
                     });
}

std::vector<PeerHealth> peers(const ManagerCore& core) {
  return core.peers ? core.peers->health() : std::vector<PeerHealth>();
}

PeersStats peers_stats(const ManagerCore& core) {
  return core.peers ? core.peers->stats() : PeersStats();
}

std::string sharing_address(const ManagerCore& core) {
  return core.peer_server ? core.peer_server->address() : std::string();
}

Result<Lookup> take_plan(ManagerCore& core, PlanId id) {
  KVBM_TRY(auto view, core.driver->take_plan(id));
  return Lookup(std::move(view));
}

Presence presence(const ManagerCore& core, SequenceHash hash, NamespaceId name_space) {
  const auto has = [&](const std::shared_ptr<TierPool>& pool) {
    return pool && pool->store().contains(hash, name_space);
  };
  return {has(core.device), has(core.host), has(core.disk)};
}

Result<void> reset(ManagerCore& core, std::optional<Tier> tier,
                   std::optional<NamespaceId> name_space) {
  KVBM_CHECK_OK(core.device->check_open());
  const auto meant = [&](const std::shared_ptr<TierPool>& pool) {
    return pool && (!tier || *tier == pool->tier());
  };
  const Result<void> durable =
      meant(core.disk) ? core.disk->forget_for_good(name_space) : Result<void>();
  // At once, or a block would be copied from a pool that has not forgotten it to one that has.
  core.driver->without_moves([&] {
    for (const auto& pool : {core.device, core.host, core.disk}) {
      if (meant(pool)) pool->reset(name_space);
    }
  });
  return durable;
}

// --- requests --------------------------------------------------------------------------------

// A lookup taken apart: blocks that the device has, and items that must be moved for the others.
struct OnboardWork {
  std::vector<ImmutableHold> held;  // one per block; empty where an item stands for it
  std::vector<RequestItem> items;
  StreamOrder order;
};

void OnboardWorkDeleter::operator()(OnboardWork* work) const noexcept { delete work; }

bool needs_transfers(const OnboardWork& work) noexcept { return !work.items.empty(); }

namespace {

Moved put_together(std::vector<ImmutableHold> held, std::vector<Result<ImmutableHold>> loaded) {
  Moved blocks;
  blocks.reserve(held.size());
  auto next = loaded.begin();
  for (ImmutableHold& hold : held) {
    if (hold) {
      blocks.push_back(std::move(hold));
    } else {
      blocks.push_back(std::move(*next++));
    }
  }
  return blocks;
}

RequestTicket ticket_of(const ManagerCore& core, RequestId id, const std::stop_token& stop) {
  RequestTicket ticket;
  ticket.cancel = [driver = std::weak_ptr(core.driver), id] {
    if (const auto alive = driver.lock()) alive->cancel(id);
  };
  if (stop.stop_possible()) {
    ticket.attachment =
        std::make_shared<std::stop_callback<std::function<void()>>>(stop, ticket.cancel);
  }
  return ticket;
}

Result<void> check_external(const ManagerCore& core, const ExternalBlocks& blocks,
                            std::size_t needed, const char* what) {
  if (!core.external) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0,
                 "device_layout.external is not set: the device tier's pool hands out its blocks"};
  }
  if (blocks.ids.size() != needed) {
    return Error{ErrorCode::InvalidConfig, 0, blocks.ids.size(), needed,
                 std::to_string(blocks.ids.size()) + " external blocks for " +
                     std::to_string(needed) + what};
  }
  const std::size_t limit = core.device->layout()->config().num_blocks;
  for (const BlockId id : blocks.ids) {
    if (id >= limit) return Error{ErrorCode::InvalidBlockIndex, 0, id, limit, {}};
  }
  return {};
}

// The caller's blocks, or as many new ones, for `missing` blocks of a plan.
Result<std::vector<MutableHold>> device_targets(const ManagerCore& core, std::size_t missing,
                                                std::optional<std::vector<MutableHold>> given) {
  BlockStore& store = core.device->store();
  if (core.external) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0,
                 "device_layout.external is set: name the blocks to load into"};
  }
  if (!given) return allocate(store, missing);
  if (given->size() != missing) {
    return Error{ErrorCode::InvalidConfig, 0, given->size(), missing,
                 std::to_string(given->size()) + " device blocks for " + std::to_string(missing) +
                     " blocks that are not in the device tier"};
  }
  for (std::size_t i = 0; i < given->size(); ++i) {
    const MutableHold& block = (*given)[i];
    if (!block || block.store() != &store || store.is_complete(block.id())) {
      return Error{ErrorCode::InvalidMutableBlock, 0, i, 0,
                   "a block to load into must be of the device pool, and without a name"};
    }
  }
  return std::move(*given);
}

// Blocks that the plan has found in the device tier or above the disk are in use again, which may
// be a reason to offload them.
void offer_used(ManagerCore& core, const Plan& plan) {
  for (const PlanSegment& segment : plan.segments) {
    TierPool* const pool = (segment.tier == Tier::Device ? core.device : core.host).get();
    if (segment.tier == Tier::Disk || core.offload_rule(segment.tier) != AdmissionRule::SecondUse) {
      continue;
    }
    std::vector<OffloadOffer> offers;
    for (const ImmutableHold& block : split(segment.run)) {
      if (const auto priority = pool->store().offload_priority(block.id())) {
        offers.push_back({key_of(block), *priority});
      }
    }
    core.driver->offered(segment.tier, std::move(offers));
  }
}

}  // namespace

Result<OnboardWorkPtr> prepare_onboard(ManagerCore& core, Lookup lookup, OnboardTargets targets) {
  KVBM_CHECK_OK(core.device->check_open());
  if (targets.external) {
    KVBM_CHECK_OK(check_external(core, *targets.external, lookup.size(), " blocks of the plan"));
  }
  KVBM_TRY(Plan plan, LookupAccess::take(lookup));
  OnboardWorkPtr work(new OnboardWork);
  std::vector<MutableHold> blocks;
  if (targets.external) {
    work->order = {targets.external->stream, targets.external->after_event};
  } else {
    const std::size_t missing = plan.size() - plan.count(Tier::Device);
    KVBM_TRY(blocks, device_targets(core, missing, std::move(targets.given)));
  }
  offer_used(core, plan);
  work->held.reserve(plan.size());
  auto block = blocks.begin();
  const auto add = [&](RequestItem item) {
    if (targets.external) {
      item.external = targets.external->ids[work->held.size()];
    } else {
      item.target = std::move(*block++);
    }
    work->held.emplace_back();
    work->items.push_back(std::move(item));
  };
  for (PlanSegment& segment : plan.segments) {
    std::vector<ImmutableHold> sources = split(segment.run);
    sources.resize(segment.count);
    for (ImmutableHold& source : sources) {
      const std::uint32_t tokens = source.store()->identity(source.id()).token_count;
      if (segment.tier == Tier::Device) {
        work->held.push_back(std::move(source));
        if (!work->items.empty()) work->items.back().tokens += tokens;
        continue;
      }
      add({.source = std::move(source), .at = segment.tier, .tokens = tokens});
    }
  }
  for (RequestItem& item : remote_items(plan)) add(std::move(item));
  return work;
}

Moved take_ready(OnboardWorkPtr work) { return put_together(std::move(work->held), {}); }

RequestTicket start_onboard(ManagerCore& core, OnboardWorkPtr work, const OnboardOptions& options,
                            std::function<void(Moved)> answer) {
  auto held = std::make_shared<std::vector<ImmutableHold>>(std::move(work->held));
  RequestStarted request{
      .kind = RequestKind::Onboard,
      .items = std::move(work->items),
      .deadline = deadline_after(options.timeout),
      .layerwise = options.layers != nullptr,
      .prefill_tokens_per_second = static_cast<double>(
          options.prefill_tokens_per_second.value_or(core.runtime.prefill_tokens_per_second)),
      .order = work->order};
  TierDriver::Listener listener;
  listener.finished = [answer = std::move(answer), held,
                       layers = options.layers](std::vector<Result<ImmutableHold>> loaded) {
    if (layers) layers->end();
    answer(put_together(std::move(*held), std::move(loaded)));
  };
  if (options.layers) {
    listener.layers_arrived = [layers = options.layers](std::size_t count) { layers->set(count); };
  }
  const RequestId id = core.driver->start(std::move(request), std::move(listener));
  return ticket_of(core, id, options.stop);
}

namespace {

Result<void> check_offload(const ManagerCore& core) {
  KVBM_CHECK_OK(core.device->check_open());
  if (core.driver->pools().host) return {};
  return Error{ErrorCode::InvalidConfig, 0, 0, 0, "there is no host tier to offload to"};
}

RequestTicket offload_items(ManagerCore& core, std::vector<RequestItem> items,
                            const StreamOrder& order, const OffloadOptions& options,
                            std::function<void(Moved)> answer) {
  RequestStarted request{.kind = RequestKind::Offload,
                         .items = std::move(items),
                         .deadline = deadline_after(options.timeout),
                         .admission = options.admission,
                         .order = order};
  const RequestId id = core.driver->start(std::move(request), {.finished = std::move(answer)});
  return ticket_of(core, id, options.stop);
}

}  // namespace

Result<RequestTicket> start_offload(ManagerCore& core, std::vector<ImmutableHold> blocks,
                                    const OffloadOptions& options,
                                    std::function<void(Moved)> answer) {
  KVBM_CHECK_OK(check_offload(core));
  std::vector<RequestItem> items;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!blocks[i] || blocks[i].store() != &core.device->store()) {
      return Error{ErrorCode::InvalidMutableBlock, 0, i, 0,
                   "a block to offload must be of the device pool"};
    }
    items.push_back({.source = std::move(blocks[i]), .at = Tier::Device});
  }
  return offload_items(core, std::move(items), {}, options, std::move(answer));
}

Result<RequestTicket> start_offload(ManagerCore& core, const ExternalBlocks& blocks,
                                    std::span<const TokenBlock> tokens, NamespaceId name_space,
                                    const OffloadOptions& options,
                                    std::function<void(Moved)> answer) {
  KVBM_CHECK_OK(check_offload(core));
  KVBM_CHECK_OK(check_external(core, blocks, tokens.size(), " token blocks"));
  std::vector<RequestItem> items;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    items.push_back({.at = Tier::Device,
                     .external = blocks.ids[i],
                     .identity = identity_of(tokens[i], name_space)});
  }
  return offload_items(core, std::move(items), {blocks.stream, blocks.after_event}, options,
                       std::move(answer));
}

Result<RequestTicket> start_prefetch(ManagerCore& core, Lookup lookup,
                                     const PrefetchOptions& options,
                                     std::function<void(PrefetchResult)> answer) {
  KVBM_CHECK_OK(core.device->check_open());
  KVBM_TRY(Plan plan, LookupAccess::take(lookup));
  RequestStarted request{
      .kind = RequestKind::Stage, .items = {}, .deadline = deadline_after(options.timeout)};
  for (PlanSegment& segment : plan.segments) {
    if (segment.tier != Tier::Disk) continue;
    std::vector<ImmutableHold> sources = split(segment.run);
    sources.resize(segment.count);
    for (ImmutableHold& source : sources) {
      request.items.push_back({.source = std::move(source), .at = Tier::Disk});
    }
  }
  std::ranges::move(remote_items(plan), std::back_inserter(request.items));
  const auto finished = [answer = std::move(answer), hold_for = options.hold_for,
                         host = std::weak_ptr(core.host)](Moved blocks) {
    PrefetchResult result;
    const auto pool = host.lock();
    for (const auto& block : blocks) {
      ++(block ? result.staged : result.failed);
      if (!block || !pool || hold_for <= std::chrono::nanoseconds::zero()) continue;
      pool->tell_time();
      // Without a lease the block is merely the most recently used one.
      static_cast<void>(pool->store().lease(block->id(), deadline_after(hold_for)));
    }
    blocks.clear();  // whoever is told finds them as they will be
    answer(result);
  };
  const RequestId id = core.driver->start(std::move(request), {.finished = finished});
  return ticket_of(core, id, options.stop);
}

ExternalResult external_result(Moved moved) {
  ExternalResult result;
  result.blocks.reserve(moved.size());
  for (auto& block : moved) {
    result.blocks.push_back(block ? Result<void>() : Result<void>(std::move(block).error()));
  }
  return result;
}

bool is_external_busy(const ManagerCore& core, BlockId id) {
  return core.driver->is_external_busy(id);
}

bool drain(ManagerCore& core, std::chrono::nanoseconds timeout) {
  return core.driver->drain(deadline_after(timeout));
}

Result<void> wait_until_filled(const ManagerCore& core, std::chrono::nanoseconds timeout) {
  if (core.host_filler) KVBM_CHECK_OK(core.host_filler->wait(timeout));
  if (core.disk && core.disk->disk())
    core.disk->disk()->wait_until_restored();  // it never takes long
  return {};
}

TransferStats transfer_stats(const ManagerCore& core) { return core.driver->stats(); }

std::optional<DiskStats> disk_stats(const ManagerCore& core) {
  if (!core.disk || !core.disk->disk()) return std::nullopt;
  DiskStats stats = core.disk->disk()->stats();
  stats.blocks_refused_by_budget = core.driver->stats().offloads_over_budget;
  return stats;
}

const std::vector<std::string>& transfer_paths(const ManagerCore& core) noexcept {
  return core.transfer_paths;
}

void close(ManagerCore& core) { core.close(); }

}  // namespace kvbm::detail
