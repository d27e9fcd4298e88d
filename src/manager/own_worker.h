// What this worker tells its peers of itself, and whom of them it believes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "remote/blockset.h"
#include "remote/sharing_service.h"
#include "tiers/tier_pool.h"

namespace kvbm::detail {

// Thread-safe.
class OwnWorker final : public remote::LocalWorker {
 public:
  // The incarnation and the time at which it begins are chosen here. `tiers` are those whose memory
  // is told, fastest first. Errors: those of TierBlocks::of().
  static Result<std::unique_ptr<OwnWorker>> create(RankInfo rank, std::span<TierPool* const> tiers);

  // Where peers reach it, as soon as that is known.
  void set_address(std::string address) KVBM_EXCLUDES(mutex_);

  WorkerInfo info() override { return info_; }
  std::vector<std::byte> blockset() override KVBM_EXCLUDES(mutex_);
  // Errors: those of decode_blockset(); InvalidConfig for a blockset of another worker than the
  // peer says it is.
  Result<void> accept(const WorkerInfo& peer, std::span<const std::byte> blockset) override;

 private:
  OwnWorker(WorkerInfo info, remote::Blockset blockset)
      : info_(std::move(info)), blockset_(std::move(blockset)) {}

  const WorkerInfo info_;
  Mutex mutex_;
  remote::Blockset blockset_ KVBM_GUARDED_BY(mutex_);
};

}  // namespace kvbm::detail
