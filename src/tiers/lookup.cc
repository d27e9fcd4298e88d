#include "tiers/lookup.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace kvbm {
namespace detail {

std::size_t LookupCore::size() const noexcept {
  std::size_t blocks = 0;
  for (const auto& [tier, count] : segments) blocks += count;
  return blocks;
}

std::size_t LookupCore::count(Tier tier) const noexcept {
  std::size_t blocks = 0;
  for (const auto& [its_tier, count] : segments) blocks += its_tier == tier ? count : 0;
  return blocks;
}

std::vector<RequestItem> remote_items(const Plan& plan) {
  std::vector<RequestItem> items;
  if (!plan.remote) return items;
  for (const BlockIdentity& identity : plan.remote->identities) {
    items.push_back({.at = Tier::Remote,
                     .remote = plan.remote->blocks,
                     .remote_block = static_cast<BlockId>(items.size()),
                     .identity = identity,
                     .tokens = identity.token_count});
  }
  return items;
}

std::unique_ptr<LookupCore> view_of(const Plan& plan) {
  auto core = std::make_unique<LookupCore>();
  core->segments = plan.counts();
  return core;
}

Result<Plan> LookupAccess::take(Lookup& lookup) {
  const std::unique_ptr<LookupCore> core = std::move(lookup.core_);
  if (!core || !core->table) return Plan();
  return core->table->take(core->id);
}

namespace {

// How many of the first `count` names no faster tier than `from` has, but for the first one.
std::size_t until_faster(const TierPools& pools, const TierPool* from, const Names& names,
                         std::size_t count) {
  const auto present = std::make_unique<bool[]>(count);
  for (TierPool* pool : {pools.device, pools.host}) {
    if (pool == from) break;
    const Names these(names.hashes.first(count),
                      names.digests.first(std::min(count, names.digests.size())), names.name_space);
    pool->store().contains(these, std::span(present.get(), count));
    for (std::size_t i = 1; i < count; ++i) {
      if (present[i]) count = i;
    }
  }
  return count;
}

}  // namespace

Plan lookup_tiers(const TierPools& pools, const Names& names) {
  Plan found;
  Names rest = names;
  TierPool* const disk =
      pools.disk && pools.disk->is_readable(pools.disk->time()) ? pools.disk : nullptr;
  // A tier is asked for one name after every gap, but that is one access.
  std::pair<TierPool*, Asked> fastest_first[] = {
      {pools.device, Asked::New}, {pools.host, Asked::New}, {disk, Asked::New}};
  for (const auto& [pool, asked] : fastest_first) {
    if (pool) pool->tell_time();
  }
  while (!rest.hashes.empty()) {
    RunHold run;
    TierPool* from = nullptr;
    for (auto& [pool, asked] : fastest_first) {
      if (!pool) continue;
      run = match_run(pool->store(), rest, std::exchange(asked, Asked::Again));
      from = pool;
      if (run) break;
    }
    if (!run) break;

    // A faster tier may go on in the middle of a slower one's run.
    const std::size_t count = until_faster(pools, from, rest, run.count());
    found.segments.push_back({from->tier(), std::move(run), count});
    rest.hashes = rest.hashes.subspan(count);
    if (!rest.digests.empty()) rest.digests = rest.digests.subspan(count);
  }
  return found;
}

}  // namespace detail

Lookup::Lookup() : core_(std::make_unique<detail::LookupCore>()) {}
Lookup::Lookup(std::unique_ptr<detail::LookupCore> core) : core_(std::move(core)) {}
Lookup::Lookup(Lookup&&) noexcept = default;
Lookup& Lookup::operator=(Lookup&& other) noexcept {
  const Lookup old(std::move(*this));  // releases its plan
  core_ = std::move(other.core_);
  return *this;
}
Lookup::~Lookup() {
  if (core_ && core_->table) core_->table->release(core_->id);
}

std::size_t Lookup::size() const noexcept { return core_ ? core_->size() : 0; }

std::size_t Lookup::count(Tier tier) const noexcept { return core_ ? core_->count(tier) : 0; }

Tier Lookup::tier(std::size_t i) const noexcept {
  for (const auto& [tier, count] : core_->segments) {
    if (i < count) return tier;
    i -= count;
  }
  return Tier::Disk;
}

void Lookup::truncate(std::size_t size) {
  if (!core_ || size >= core_->size()) return;
  // If the lease is over, onboarding will tell.
  if (core_->table) static_cast<void>(core_->table->truncate(core_->id, size));
  auto& segments = core_->segments;
  auto keep = segments.begin();
  for (; keep != segments.end() && size > 0; ++keep) {
    keep->second = std::min(keep->second, size);
    size -= keep->second;
  }
  segments.erase(keep, segments.end());
}

PlanId Lookup::plan_id() const noexcept { return core_ && core_->table ? core_->id : 0; }

PlanId Lookup::leave() noexcept {
  const std::unique_ptr<detail::LookupCore> core = std::move(core_);
  return core && core->table ? core->id : 0;
}

}  // namespace kvbm
