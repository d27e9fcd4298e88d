// What a replay and its simulation have in common: how the requests of a trace use the tiers, and
// what is counted of them. So both find the same blocks, or one of them is wrong.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "apps/kvbm/trace.h"
#include "kvbm/result.h"
#include "kvbm/tiers.h"
#include "kvbm/tokens.h"
#include "kvbm/types.h"

namespace kvbm::app {

// The edges that a run has, which are the first ones: it has no peers.
inline constexpr std::size_t kEdgesOfARun = static_cast<std::size_t>(Edge::PeerToHost);

// Three tiers, as one request after the other uses them.
class PromptTiers {
 public:
  virtual ~PromptTiers() = default;

  // Brings the longest prefix that the tiers have to the device, as far as there is room, and keeps
  // it. Returns the tier that each block came from; ends at the first one that could not be loaded.
  virtual Result<std::vector<Tier>> load(std::span<const SequenceHash> hashes) = 0;
  // Computes the rest, as far as the device has room, registers and keeps it. Returns the number of
  // blocks.
  virtual Result<std::size_t> compute(std::span<const TokenBlock> missing) = 0;
  // Waits until nothing is queued or moving.
  virtual Result<void> drain() = 0;
  // Gives up what was loaded and computed.
  virtual void release() = 0;
  virtual Presence presence(SequenceHash hash) const = 0;
};

// Requests in file order, one at a time: match, onboard, compute the rest, register, wait until the
// offloads have ended, release. So hits depend on the trace and the tiers, not on this machine's
// speed. A prompt's partial last block is cached like the others, as the trace names it.
class RequestLoop {
 public:
  // Errors: those of the tiers.
  Result<void> run(PromptTiers& tiers, const TraceRequest& request);

  std::uint64_t requests() const noexcept { return requests_; }
  std::uint64_t prompt_tokens() const noexcept { return prompt_tokens_; }
  // By the tier that served them.
  const std::array<std::uint64_t, kTierCount>& hit_tokens() const noexcept { return hit_tokens_; }
  // Over what every request found in which tier and computed, in order, and over where each of
  // their blocks is now. Equal for equal runs of a trace. O(different blocks).
  std::uint64_t run_digest(const PromptTiers& tiers) const;

 private:
  std::uint64_t requests_ = 0;
  std::uint64_t prompt_tokens_ = 0;
  std::array<std::uint64_t, kTierCount> hit_tokens_{};
  std::uint64_t digest_ = 0;                // of the requests
  std::vector<SequenceHash> blocks_;        // in the order in which they came first
  std::unordered_set<std::uint64_t> seen_;  // the same
};

// As it is printed: 16 hexadecimal digits.
std::string digest_text(std::uint64_t digest);

}  // namespace kvbm::app
