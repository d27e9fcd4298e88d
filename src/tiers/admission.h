// Whether a block that is offered to a tier may be copied there.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "kvbm/offload.h"
#include "logical/policy/ghosts.h"
#include "logical/pool/block_store.h"
#include "tiers/token_bucket.h"

namespace kvbm::detail {

// Not thread-safe; time comes in with every call. Calls are O(1).
class Admission {
 public:
  enum class Verdict : std::uint8_t { Admitted, Refused, OverBudget };

  // `target` must outlive it. Where the rule asks for uses, those of the newest twice as many
  // blocks as the target has are remembered, in 22 bytes each.
  Admission(const AdmissionConfig& config, const BlockStore& target);

  // The block was registered in the tier above, or found there.
  void used(SequenceHash hash) noexcept;
  // Whether it may be copied now; then its bytes are spent.
  Verdict admit(SequenceHash hash, std::uint32_t priority, std::uint64_t bytes,
                TimePoint now) noexcept;

 private:
  const AdmissionConfig config_;
  const BlockStore& target_;
  std::optional<Ghosts> uses_;
  std::optional<TokenBucket> budget_;
};

}  // namespace kvbm::detail
