#include "apps/kvbm/sim_tiers.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "apps/kvbm/replay.h"
#include "apps/kvbm/request_loop.h"
#include "apps/kvbm/text.h"
#include "logical/pool/hold_ops.h"
#include "manager/manager_core.h"
#include "simulator/virtual_tiers.h"
#include "tiers/lookup.h"

namespace kvbm::app {
namespace {

using detail::CompleteHold;
using detail::ImmutableHold;
using detail::MutableHold;
using simulator::VirtualTiers;

constexpr std::chrono::minutes kRequestTimeout{5};  // nothing takes any time here

// What a manager does with its pools, done to those of the simulator, in the same order: it is by
// the order of uses that blocks are evicted.
class SimulatedTiers final : public PromptTiers {
 public:
  explicit SimulatedTiers(std::unique_ptr<VirtualTiers> tiers) : tiers_(std::move(tiers)) {}

  Result<std::vector<Tier>> load(std::span<const SequenceHash> hashes) override;
  Result<std::size_t> compute(std::span<const TokenBlock> missing) override;
  Result<void> drain() override {
    tiers_->drain();
    return {};
  }
  void release() override {
    computed_.clear();
    hits_.clear();
  }
  Presence presence(SequenceHash hash) const override {
    const auto has = [&](Tier tier) {
      const detail::TierPool* const pool = tiers_->pool(tier);
      return pool && pool->store().contains(hash, 0);
    };
    return {has(Tier::Device), has(Tier::Host), has(Tier::Disk)};
  }

  const VirtualTiers& tiers() const noexcept { return *tiers_; }

 private:
  detail::Plan find(std::span<const SequenceHash> hashes);
  std::vector<detail::RequestItem> take_apart(detail::Plan plan, std::vector<MutableHold> targets);

  std::unique_ptr<VirtualTiers> tiers_;
  std::vector<ImmutableHold> hits_;
  std::vector<ImmutableHold> computed_;
};

detail::Plan SimulatedTiers::find(std::span<const SequenceHash> hashes) {
  detail::Plan plan = detail::lookup_tiers(tiers_->pools(), {hashes, {}, 0});
  const std::size_t room = tiers_->pool(Tier::Device)->store().available_blocks();
  while (plan.size() - plan.count(Tier::Device) > room) plan.truncate(plan.size() - 1);
  return plan;
}

// Leaves in hits_ what the device has, and nothing where an item stands for the block.
std::vector<detail::RequestItem> SimulatedTiers::take_apart(detail::Plan plan,
                                                            std::vector<MutableHold> targets) {
  std::vector<detail::RequestItem> items;
  auto target = targets.begin();
  for (const detail::PlanSegment& segment : plan.segments) {
    std::vector<ImmutableHold> sources = detail::split(segment.run);
    sources.resize(segment.count);
    for (ImmutableHold& source : sources) {
      if (segment.tier == Tier::Device) {
        hits_.push_back(std::move(source));
        continue;
      }
      hits_.emplace_back();
      items.push_back({.source = std::move(source), .at = segment.tier});
      items.back().target = std::move(*target++);
    }
  }
  return items;
}

Result<std::vector<Tier>> SimulatedTiers::load(std::span<const SequenceHash> hashes) {
  detail::Plan plan = find(hashes);
  std::vector<Tier> tiers;
  for (const detail::PlanSegment& segment : plan.segments) {
    tiers.insert(tiers.end(), segment.count, segment.tier);
  }
  KVBM_TRY(auto targets, detail::allocate(tiers_->pool(Tier::Device)->store(),
                                          plan.size() - plan.count(Tier::Device)));
  auto items = take_apart(std::move(plan), std::move(targets));
  if (items.empty()) return tiers;

  detail::RequestStarted request{.items = std::move(items),
                                 .deadline = tiers_->now() + kRequestTimeout};
  tiers_->start(std::move(request), [this](std::vector<Result<ImmutableHold>> loaded) {
    auto next = loaded.begin();
    for (ImmutableHold& hit : hits_) {
      if (hit) continue;
      if (*next) hit = std::move(**next);
      ++next;
    }
  });
  tiers_->drain();
  const auto missing = std::ranges::find_if(hits_, [](const auto& hit) { return !hit; });
  hits_.erase(missing, hits_.end());
  tiers.resize(hits_.size());
  return tiers;
}

Result<std::size_t> SimulatedTiers::compute(std::span<const TokenBlock> missing) {
  detail::TierPool& device = *tiers_->pool(Tier::Device);
  const std::size_t count = std::min(missing.size(), device.store().available_blocks());
  KVBM_TRY(auto blocks, detail::allocate(device.store(), count));
  std::vector<CompleteHold> computed;
  for (std::size_t i = 0; i < count; ++i) {
    computed.push_back(detail::complete(std::move(blocks[i]), detail::identity_of(missing[i], 0)));
  }
  KVBM_TRY(computed_, device.register_blocks(std::move(computed)));
  return count;
}

// The engine that a manager for such a replay would have.
detail::EngineOptions engine_options(const SimTiersOptions& options) {
  KvBlockManagerConfig config;
  config.runtime.deterministic = true;
  config.device_layout = {.num_blocks = options.device_blocks};
  if (options.host_blocks > 0) config.host_layout = {.num_blocks = options.host_blocks};
  if (options.disk_blocks > 0) config.disk_layout = {.num_blocks = options.disk_blocks};
  return detail::engine_options(config, options.block_bytes, false);
}

template <class Values>
nlohmann::json by_tier(const Values& values) {
  nlohmann::json object = nlohmann::json::object();
  for (std::size_t i = 0; i < kTierCount; ++i) object[to_string(Tier(i))] = values[i];
  return object;
}

}  // namespace

Result<SimTiersReport> simulate_tiers(const Trace& trace, const SimTiersOptions& options,
                                      const std::function<void(std::size_t)>& after_request) {
  KVBM_TRY(auto virtual_tiers, VirtualTiers::create({.device_blocks = options.device_blocks,
                                                     .host_blocks = options.host_blocks,
                                                     .disk_blocks = options.disk_blocks,
                                                     .engine = engine_options(options)}));
  SimulatedTiers tiers(std::move(virtual_tiers));
  RequestLoop loop;
  for (std::size_t i = 0; i < trace.requests.size(); ++i) {
    KVBM_CHECK_OK(loop.run(tiers, trace.requests[i]));
    if (after_request) after_request(i + 1);
  }
  const TransferStats& transfers = tiers.tiers().engine().stats();
  SimTiersReport report{.requests = loop.requests(),
                        .prompt_tokens = loop.prompt_tokens(),
                        .hit_tokens = loop.hit_tokens(),
                        .dropped_offloads = transfers.offloads_dropped,
                        .run_digest = loop.run_digest(tiers)};
  for (std::size_t i = 0; i < kTierCount; ++i) {
    const detail::TierPool* const pool = tiers.tiers().pool(Tier(i));
    if (pool) report.evictions[i] = pool->store().stats().evictions;
  }
  for (std::size_t i = 0; i < kEdgeCount; ++i) report.edge_blocks[i] = transfers.edges[i].blocks;
  return report;
}

nlohmann::json to_json(const SimTiersReport& report) {
  nlohmann::json edges = nlohmann::json::object();
  for (std::size_t i = 0; i < kEdgesOfARun; ++i) {
    edges[to_string(Edge(i))] = {{"blocks", report.edge_blocks[i]}};
  }
  return {{"requests", report.requests},
          {"prompt_tokens", report.prompt_tokens},
          {"hit_tokens", by_tier(report.hit_tokens)},
          {"evictions", by_tier(report.evictions)},
          {"edges", std::move(edges)},
          {"dropped_offloads", report.dropped_offloads},
          {"run_digest", digest_text(report.run_digest)}};
}

std::string to_table(const SimTiersReport& report, const SimTiersOptions& options) {
  const std::array sizes = {options.device_blocks, options.host_blocks, options.disk_blocks};
  std::string out = fmt::format("{} requests with {} prompt tokens\n\n", grouped(report.requests),
                                grouped(report.prompt_tokens));
  out += fmt::format("{:<10}{:>13}{:>16}{:>8}{:>12}\n", "tier", "blocks", "tokens served", "",
                     "evictions");
  std::uint64_t served = 0;
  for (std::size_t i = 0; i < kTierCount; ++i) {
    served += report.hit_tokens[i];
    out += fmt::format("{:<10}{:>13}{:>16}{:>7.1f}%{:>12}\n", to_string(Tier(i)), grouped(sizes[i]),
                       grouped(report.hit_tokens[i]),
                       percent(report.hit_tokens[i], report.prompt_tokens),
                       grouped(report.evictions[i]));
  }
  const std::uint64_t computed = report.prompt_tokens - served;
  out += fmt::format("{:<10}{:>13}{:>16}{:>7.1f}%\n\n", "computed", "", grouped(computed),
                     percent(computed, report.prompt_tokens));
  out += fmt::format("{:<18}{:>11}\n", "moved", "blocks");
  for (std::size_t i = 0; i < kEdgesOfARun; ++i) {
    out += fmt::format("{:<18}{:>11}\n", edge_name(Edge(i), "->"), grouped(report.edge_blocks[i]));
  }
  return out + "\nrun digest: " + digest_text(report.run_digest) + "\n";
}

}  // namespace kvbm::app
