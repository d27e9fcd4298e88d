// What a rank's manager gives the server that answers leaders.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <span>

#include "kvbm/leader.h"
#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm::leader {

// A plan keeps the blocks of a prefix until it is used, released, or its lease ends.
struct PlanAnswer {
  std::uint64_t plan = 0;  // 0 for no blocks, and then only
  std::uint32_t blocks = 0;
  std::array<std::uint32_t, kTierCount> by_tier{};  // `blocks` in all
  friend bool operator==(const PlanAnswer&, const PlanAnswer&) = default;
};

// Called on the server's thread, one call at a time. A call that blocks blocks all leaders, and the
// server's stop().
class PlanService {
 public:
  virtual ~PlanService() = default;
  // The longest prefix of at most hashes.size() blocks that can be had here, as a plan that lasts
  // for the lease. Digests: none, or one per hash. Ids are never used again, also not by the next
  // process: they begin at random. Errors: any; the leader takes it for a miss.
  virtual Result<PlanAnswer> lookup(std::span<const SequenceHash> hashes,
                                    std::span<const std::uint64_t> digests, NamespaceId name_space,
                                    std::chrono::milliseconds lease) = 0;
  // Keeps the first `blocks` of a plan, at least one, under its id and lease. A plan that is no
  // longer stays as it is. Errors: HandleNotFound for a plan that is unknown, used or expired.
  virtual Result<PlanAnswer> trim(std::uint64_t plan, std::uint32_t blocks) = 0;
  // Gives the blocks of a plan back. Nothing for a plan that is unknown, used or expired.
  virtual void release(std::uint64_t plan) = 0;
  virtual RankInfo info() = 0;
};

}  // namespace kvbm::leader
