#include "manager/tier_plan_service.h"

#include <utility>

#include "base/random_bits.h"

namespace kvbm::detail {
namespace {

RankInfo with_new_epoch(RankInfo info) {
  info.epoch = random_bits();
  return info;
}

}  // namespace

TierPlanService::TierPlanService(TierDriver& driver, RankInfo info)
    : driver_(driver), info_(with_new_epoch(std::move(info))) {}

Result<leader::PlanAnswer> TierPlanService::lookup(std::span<const SequenceHash> hashes,
                                                   std::span<const std::uint64_t> digests,
                                                   NamespaceId name_space,
                                                   std::chrono::milliseconds lease) {
  const auto found = driver_.lookup(Names(hashes, digests, name_space), lease);
  leader::PlanAnswer answer{.plan = found->id};
  for (const auto& [tier, count] : found->segments) {
    answer.blocks += static_cast<std::uint32_t>(count);
    answer.by_tier[static_cast<std::size_t>(tier)] += static_cast<std::uint32_t>(count);
  }
  return answer;
}

Result<leader::PlanAnswer> TierPlanService::trim(std::uint64_t plan, std::uint32_t blocks) {
  const auto left = driver_.plans()->truncate(plan, blocks);
  if (!left) {
    return Error{ErrorCode::HandleNotFound, 0, plan, 0, "the plan is used, released or expired"};
  }
  leader::PlanAnswer answer{.plan = plan};
  for (std::size_t tier = 0; tier < kTierCount; ++tier) {
    answer.by_tier[tier] = static_cast<std::uint32_t>((*left)[tier]);
    answer.blocks += answer.by_tier[tier];
  }
  return answer;
}

void TierPlanService::release(std::uint64_t plan) { driver_.plans()->release(plan); }

}  // namespace kvbm::detail
