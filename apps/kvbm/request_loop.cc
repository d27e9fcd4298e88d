#include "apps/kvbm/request_loop.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/xxh3.h"

namespace kvbm::app {
namespace {

// The tokens that a trace leaves out: any will do, as long as one id always has the same ones.
TokenBlockSequence tokens_of(const TraceRequest& request) {
  std::vector<Token> tokens;
  tokens.reserve(request.hash_ids.size() * kTraceBlockTokens);
  for (const std::uint64_t id : request.hash_ids) {
    const auto low = static_cast<Token>(id);
    const auto high = static_cast<Token>(id >> 32);
    tokens.push_back(low);
    tokens.push_back(high);
    for (Token i = 2; i < kTraceBlockTokens; ++i) tokens.push_back(low * 2654435761u + i);
  }
  return TokenBlockSequence::create(tokens, kTraceBlockTokens).value();
}

std::uint64_t digest_of(std::span<const std::uint64_t> values, std::uint64_t before) {
  return xxh3(values.data(), values.size_bytes(), before);
}

}  // namespace

Result<void> RequestLoop::run(PromptTiers& tiers, const TraceRequest& request) {
  const TokenBlockSequence tokens = tokens_of(request);
  const std::vector<SequenceHash> hashes = tokens.sequence_hashes();
  KVBM_TRY(const std::vector<Tier> hits, tiers.load(hashes));
  // What loading has left undone must not meet what computing begins.
  KVBM_CHECK_OK(tiers.drain());
  KVBM_TRY(const std::size_t computed, tiers.compute(tokens.blocks().subspan(hits.size())));
  KVBM_CHECK_OK(tiers.drain());
  tiers.release();

  std::array<std::uint64_t, kTierCount + 1> outcome{};
  for (std::size_t i = 0; i < hits.size(); ++i) {
    const auto tier = static_cast<std::size_t>(hits[i]);
    const std::size_t before = i * kTraceBlockTokens;
    hit_tokens_[tier] += std::min(kTraceBlockTokens, request.input_length - before);
    ++outcome[tier];
  }
  outcome[kTierCount] = computed;
  digest_ = digest_of(outcome, digest_);
  for (const SequenceHash hash : hashes) {
    if (seen_.insert(hash.value()).second) blocks_.push_back(hash);
  }
  ++requests_;
  prompt_tokens_ += request.input_length;
  return {};
}

std::uint64_t RequestLoop::run_digest(const PromptTiers& tiers) const {
  std::uint64_t digest = digest_;
  for (const SequenceHash hash : blocks_) {
    const Presence where = tiers.presence(hash);
    const std::uint64_t bits =
        (where.device ? 1U : 0U) | (where.host ? 2U : 0U) | (where.disk ? 4U : 0U);
    digest = digest_of(std::span(&bits, 1), digest);
  }
  return digest;
}

std::string digest_text(std::uint64_t digest) { return fmt::format("{:016x}", digest); }

}  // namespace kvbm::app
