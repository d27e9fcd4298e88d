#include "tiers/lookup.h"

#include <algorithm>
#include <chrono>

namespace kvbm {
namespace detail {

std::size_t LookupCore::size() const noexcept {
  std::size_t blocks = 0;
  for (const LookupSegment& segment : segments) blocks += segment.count;
  return blocks;
}

std::size_t LookupCore::count(Tier tier) const noexcept {
  std::size_t blocks = 0;
  for (const LookupSegment& segment : segments) blocks += segment.tier == tier ? segment.count : 0;
  return blocks;
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

LookupCore lookup_tiers(const TierPools& pools, const Names& names) {
  LookupCore found;
  Names rest = names;
  TierPool* const disk = pools.disk && pools.disk->is_readable(std::chrono::steady_clock::now())
                             ? pools.disk
                             : nullptr;
  for (TierPool* pool : {pools.device, pools.host, disk}) {
    if (pool) pool->tell_time();
  }
  while (!rest.hashes.empty()) {
    RunHold run;
    TierPool* from = nullptr;
    for (TierPool* pool : {pools.device, pools.host, disk}) {
      if (!pool) continue;
      run = match_run(pool->store(), rest);
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
Lookup& Lookup::operator=(Lookup&&) noexcept = default;
Lookup::~Lookup() = default;

std::size_t Lookup::size() const noexcept { return core_ ? core_->size() : 0; }

std::size_t Lookup::count(Tier tier) const noexcept { return core_ ? core_->count(tier) : 0; }

Tier Lookup::tier(std::size_t i) const noexcept {
  for (const detail::LookupSegment& segment : core_->segments) {
    if (i < segment.count) return segment.tier;
    i -= segment.count;
  }
  return Tier::Disk;
}

void Lookup::truncate(std::size_t size) {
  if (!core_) return;
  auto& segments = core_->segments;
  for (auto segment = segments.begin(); segment != segments.end(); ++segment) {
    segment->count = std::min(segment->count, size);
    size -= segment->count;
    if (segment->count == 0) {
      segments.erase(segment, segments.end());
      return;
    }
  }
}

}  // namespace kvbm
