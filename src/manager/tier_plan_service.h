// Answers leaders with plans of the blocks in one manager's tiers.
#pragma once

#include "leader/plan_service.h"
#include "tiers/driver.h"

namespace kvbm::detail {

// Plans are those that TierDriver::take_plan() takes up. Thread-safe.
class TierPlanService final : public leader::PlanService {
 public:
  // `info.epoch` is chosen here. The driver must outlive it.
  TierPlanService(TierDriver& driver, RankInfo info);

  Result<leader::PlanAnswer> lookup(std::span<const SequenceHash> hashes,
                                    std::span<const std::uint64_t> digests, NamespaceId name_space,
                                    std::chrono::milliseconds lease) override;
  Result<leader::PlanAnswer> trim(std::uint64_t plan, std::uint32_t blocks) override;
  void release(std::uint64_t plan) override;
  RankInfo info() override { return info_; }

 private:
  TierDriver& driver_;
  const RankInfo info_;
};

}  // namespace kvbm::detail
