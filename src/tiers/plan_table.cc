#include "tiers/plan_table.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace kvbm::detail {

std::size_t Plan::size() const noexcept {
  std::size_t blocks = 0;
  for (const PlanSegment& segment : segments) blocks += segment.count;
  return blocks + count(Tier::Remote);
}

std::size_t Plan::count(Tier tier) const noexcept {
  if (tier == Tier::Remote) return remote ? remote->identities.size() : 0;
  std::size_t blocks = 0;
  for (const PlanSegment& segment : segments) blocks += segment.tier == tier ? segment.count : 0;
  return blocks;
}

std::vector<std::pair<Tier, std::size_t>> Plan::counts() const {
  std::vector<std::pair<Tier, std::size_t>> counts;
  counts.reserve(segments.size() + 1);
  for (const PlanSegment& segment : segments) counts.emplace_back(segment.tier, segment.count);
  if (remote) counts.emplace_back(Tier::Remote, remote->identities.size());
  return counts;
}

Plan Plan::truncate(std::size_t size) {
  Plan given_up;
  const std::size_t kept = size;
  auto keep = segments.begin();
  for (; keep != segments.end() && size > 0; ++keep) {
    if (size < keep->count) {
      RunHold shorter = first_of(keep->run, size);
      given_up.segments.push_back({keep->tier, std::exchange(keep->run, std::move(shorter)), 0});
      keep->count = size;
    }
    size -= keep->count;
  }
  given_up.segments.insert(given_up.segments.end(), std::move_iterator(keep),
                           std::move_iterator(segments.end()));
  segments.erase(keep, segments.end());
  for (auto there = brought.lower_bound(kept); there != brought.end();) {
    given_up.brought.insert(brought.extract(there++));
  }
  if (remote && size == 0) given_up.remote = std::exchange(remote, std::nullopt);
  if (remote && size < remote->identities.size()) remote->identities.resize(size);
  return given_up;
}

PlanId PlanTable::add(Plan plan, TimePoint expires) {
  MutexLock lock(mutex_);
  const PlanId id = next_id_++;
  if (closed_) return id;
  plans_.emplace_hint(plans_.end(), id, Leased{std::move(plan), expires});
  expiries_.emplace(expires, id);
  return id;
}

std::optional<Plan> PlanTable::extract(PlanId id) {
  auto found = plans_.extract(id);
  if (!found) return std::nullopt;
  expiries_.erase({found.mapped().expires, id});
  return std::move(found.mapped().plan);
}

Result<Plan> PlanTable::take(PlanId id) {
  std::optional<Plan> plan;
  {
    MutexLock lock(mutex_);
    plan = extract(id);
  }
  if (plan) return std::move(*plan);
  return Error{ErrorCode::PlanExpired, 0, id, 0, {}};
}

Result<std::array<std::size_t, kTierCount>> PlanTable::truncate(PlanId id, std::size_t size) {
  Plan given_up;  // goes after the lock
  MutexLock lock(mutex_);
  const auto found = plans_.find(id);
  if (found == plans_.end()) return Error{ErrorCode::PlanExpired, 0, id, 0, {}};
  Plan& plan = found->second.plan;
  given_up = plan.truncate(size);
  return std::array{plan.count(Tier::Device), plan.count(Tier::Host), plan.count(Tier::Disk)};
}

namespace {

Result<PlanTable::Placed> block_of(const Plan& plan, std::size_t place) {
  if (const auto there = plan.brought.find(place); there != plan.brought.end()) {
    return PlanTable::Placed{Tier::Host, share(there->second)};
  }
  std::size_t at = place;
  for (const PlanSegment& segment : plan.segments) {
    if (at < segment.count) return PlanTable::Placed{segment.tier, block_at(segment.run, at)};
    at -= segment.count;
  }
  return Error{ErrorCode::InvalidBlockIndex, 0, place, place - at, {}};
}

}  // namespace

Result<std::vector<Result<PlanTable::Placed>>> PlanTable::blocks(
    PlanId id, std::span<const std::uint32_t> places) const {
  MutexLock lock(mutex_);
  const auto found = plans_.find(id);
  if (found == plans_.end()) return Error{ErrorCode::PlanExpired, 0, id, 0, {}};
  std::vector<Result<Placed>> blocks;
  blocks.reserve(places.size());
  for (const std::uint32_t place : places) blocks.push_back(block_of(found->second.plan, place));
  return blocks;
}

void PlanTable::keep(PlanId id, std::size_t place, ImmutableHold in_host) {
  ImmutableHold before;  // goes after the lock, as does what is not kept
  MutexLock lock(mutex_);
  const auto found = plans_.find(id);
  if (found == plans_.end() || place >= found->second.plan.size()) return;
  before = std::exchange(found->second.plan.brought[place], std::move(in_host));
}

bool PlanTable::is_current(PlanId id) const {
  MutexLock lock(mutex_);
  const auto found = plans_.find(id);
  if (found == plans_.end()) return false;
  return std::ranges::none_of(found->second.plan.segments, [](const PlanSegment& segment) {
    return segment.run.store()->identity(segment.run.id()).forgotten;
  });
}

Result<std::vector<std::pair<Tier, std::size_t>>> PlanTable::segments(PlanId id) const {
  MutexLock lock(mutex_);
  const auto found = plans_.find(id);
  if (found == plans_.end()) return Error{ErrorCode::PlanExpired, 0, id, 0, {}};
  return found->second.plan.counts();
}

void PlanTable::release(PlanId id) {
  std::optional<Plan> released;  // goes after the lock
  MutexLock lock(mutex_);
  released = extract(id);
}

std::size_t PlanTable::expire(TimePoint now) {
  std::vector<Plan> expired;  // goes after the lock
  MutexLock lock(mutex_);
  while (!expiries_.empty() && expiries_.begin()->first <= now) {
    expired.push_back(std::move(*extract(expiries_.begin()->second)));
  }
  return expired.size();
}

std::optional<TimePoint> PlanTable::next_expiry() const {
  MutexLock lock(mutex_);
  if (expiries_.empty()) return std::nullopt;
  return expiries_.begin()->first;
}

void PlanTable::close() {
  std::map<PlanId, Leased> released;  // goes after the lock
  MutexLock lock(mutex_);
  closed_ = true;
  released.swap(plans_);
  expiries_.clear();
}

std::size_t PlanTable::size() const {
  MutexLock lock(mutex_);
  return plans_.size();
}

void PlanTable::check_invariants() const {
  MutexLock lock(mutex_);
  bool balanced = plans_.size() == expiries_.size();
  for (const auto& [id, leased] : plans_) {
    balanced = balanced && expiries_.contains({leased.expires, id}) && id < next_id_;
  }
  if (balanced) return;
  std::fputs("kvbm: plan table invariant broken: every plan has its expiry\n", stderr);
  std::abort();
}

}  // namespace kvbm::detail
