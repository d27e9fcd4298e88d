// What kvbm/manager.h asks of a manager's core.
#include "kvbm/manager.h"

#include <algorithm>
#include <utility>

#include "manager/manager_core.h"
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
    case Tier::Device: return core.device;
    case Tier::Host: return core.host;
    case Tier::Disk: return core.disk;
  }
  return nullptr;
}

Lookup lookup(ManagerCore& core, const Wanted& wanted) {
  const Gathered gathered(wanted);
  return Lookup(std::make_unique<LookupCore>(lookup_tiers(core.driver->pools(), gathered.names())));
}

Presence presence(const ManagerCore& core, SequenceHash hash, NamespaceId name_space) {
  const auto has = [&](const std::shared_ptr<TierPool>& pool) {
    return pool && pool->store().contains(hash, name_space);
  };
  return {has(core.device), has(core.host), has(core.disk)};
}

Result<void> reset(ManagerCore& core, std::optional<NamespaceId> name_space) {
  KVBM_CHECK_OK(core.device->check_open());
  const Result<void> durable = core.disk ? core.disk->forget_for_good(name_space) : Result<void>();
  // At once, or a block would be copied from a pool that has not forgotten it to one that has.
  core.driver->without_moves([&] {
    for (const auto& pool : {core.device, core.host, core.disk}) {
      if (pool) pool->reset(name_space);
    }
  });
  return durable;
}

// --- onboarding ------------------------------------------------------------------------------

// A lookup taken apart: blocks that the device has, and items that must be moved for the others.
struct OnboardWork {
  std::vector<ImmutableHold> held;  // one per block; empty where an item stands for it
  std::vector<OnboardItem> items;
};

void OnboardWorkDeleter::operator()(OnboardWork* work) const noexcept { delete work; }

bool needs_transfers(const OnboardWork& work) noexcept { return !work.items.empty(); }

namespace {

// A timeout that no clock can hold means for ever, or as good as.
TimePoint deadline_after(std::chrono::nanoseconds timeout) {
  constexpr std::chrono::hours kForEver{24 * 365};
  return std::chrono::steady_clock::now() + std::min<std::chrono::nanoseconds>(timeout, kForEver);
}

Onboarded put_together(std::vector<ImmutableHold> held, std::vector<Result<ImmutableHold>> loaded) {
  Onboarded blocks;
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

}  // namespace

Result<OnboardWorkPtr> prepare_onboard(ManagerCore& core, Lookup lookup) {
  KVBM_CHECK_OK(core.device->check_open());
  OnboardWorkPtr work(new OnboardWork);
  const std::unique_ptr<LookupCore> found = LookupAccess::take(lookup);
  if (!found) return work;
  const std::size_t missing = found->size() - found->count(Tier::Device);
  KVBM_CHECK_OK(core.device->check_open());
  KVBM_TRY(auto targets, allocate(core.device->store(), missing));
  work->held.reserve(found->size());
  auto target = targets.begin();
  for (LookupSegment& segment : found->segments) {
    std::vector<ImmutableHold> blocks = split(segment.run);
    blocks.resize(segment.count);
    for (ImmutableHold& block : blocks) {
      if (segment.tier == Tier::Device) {
        work->held.push_back(std::move(block));
      } else {
        work->held.emplace_back();
        work->items.push_back({std::move(block), segment.tier, std::move(*target++)});
      }
    }
  }
  return work;
}

Onboarded take_ready(OnboardWorkPtr work) { return put_together(std::move(work->held), {}); }

OnboardTicket start_onboard(ManagerCore& core, OnboardWorkPtr work, const OnboardOptions& options,
                            std::function<void(Onboarded)> answer) {
  auto held = std::make_shared<std::vector<ImmutableHold>>(std::move(work->held));
  const RequestId id = core.driver->onboard(
      std::move(work->items), deadline_after(options.timeout),
      [answer = std::move(answer), held](std::vector<Result<ImmutableHold>> loaded) {
        answer(put_together(std::move(*held), std::move(loaded)));
      });

  OnboardTicket ticket;
  ticket.cancel = [driver = std::weak_ptr(core.driver), id] {
    if (const auto alive = driver.lock()) alive->cancel(id);
  };
  if (options.stop.stop_possible()) {
    ticket.attachment =
        std::make_shared<std::stop_callback<std::function<void()>>>(options.stop, ticket.cancel);
  }
  return ticket;
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
