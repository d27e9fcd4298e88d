// Shares the blocks of one manager's tiers with peers.
#pragma once

#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "manager/tier_plan_service.h"
#include "remote/sharing_service.h"

namespace kvbm::detail {

// What peers read lies in the host tier: blocks of other tiers are copied there when they are
// fetched, by requests like any other. Plans are those of the driver, whose thread ends their
// leases. Thread-safe.
class TierSharing final : public remote::SharingService {
 public:
  // Both must outlive it. Requires: a host tier.
  TierSharing(TierDriver& driver, remote::LocalWorker& self)
      : driver_(driver), self_(self), plans_(driver, {}) {}

  WorkerInfo info() override { return self_.info(); }
  std::vector<std::byte> blockset() override { return self_.blockset(); }
  Result<void> accept(const WorkerInfo& peer, std::span<const std::byte> blockset) override {
    return self_.accept(peer, blockset);
  }
  Result<leader::PlanAnswer> lookup(std::span<const SequenceHash> hashes,
                                    std::span<const std::uint64_t> digests, NamespaceId name_space,
                                    std::chrono::milliseconds lease) override {
    return plans_.lookup(hashes, digests, name_space, lease);
  }
  Result<leader::PlanAnswer> trim(std::uint64_t plan, std::uint32_t blocks) override {
    return plans_.trim(plan, blocks);
  }
  void release(std::uint64_t plan) override { plans_.release(plan); }
  std::vector<Result<remote::SharedBlock>> fetch(std::uint64_t plan,
                                                 std::span<const std::uint32_t> indexes,
                                                 TimePoint deadline, std::stop_token stop) override;
  bool is_current(std::uint64_t plan) override { return driver_.plans()->is_current(plan); }

 private:
  std::vector<Result<ImmutableHold>> bring(RequestKind kind, std::vector<RequestItem> items,
                                           TimePoint deadline, const std::stop_token& stop);
  remote::SharedBlock shared(ImmutableHold block) const;

  TierDriver& driver_;
  remote::LocalWorker& self_;
  TierPlanService plans_;
};

}  // namespace kvbm::detail
