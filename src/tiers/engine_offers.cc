// The tier engine's offers: blocks that may be copied to the tier below, and which of them are.
#include <algorithm>
#include <utility>

#include "tiers/engine.h"

namespace kvbm::detail {
namespace {

// Of a pool's blocks, those that are copied down before they have to be evicted.
constexpr std::size_t kCleanAheadFraction = 20;

}  // namespace

void TierEngine::offer(Edge edge, const OffloadOffer& wanted) {
  Offers& offers = path(edge).offers;
  offers.emplace(std::pair(~wanted.priority, next_offer_++), wanted.key);
  if (offers.size() <= options_.offload_queue_blocks) return;
  // Of the lowest priority, the one that was used longest ago.
  offers.erase(offers.lower_bound({offers.rbegin()->first.first, 0}));
  ++stats_.offloads_dropped;
  count(Transition::OfferDropped);
}

// Offers what would be evicted next, once little else could be: a clean block is evicted for
// nothing.
void TierEngine::offer_coldest(Edge edge) {
  OffloadPath& offloads = path(edge);
  const BlockStore& from = source_pool(edge).store();
  const BlockStoreStats stats = from.stats();
  const std::size_t ahead = std::max<std::size_t>(stats.total / kCleanAheadFraction, 1);
  if (stats.free > ahead || stats.allocations == offloads.scanned_at) return;
  offloads.scanned_at = stats.allocations;
  std::vector<BlockKey> coldest;
  from.coldest(ahead, coldest);
  for (const BlockKey& key : coldest) {
    if (target_pool(edge).store().contains(key.hash, key.name_space)) continue;
    count(Transition::PreCleaned);
    offer(edge, {key, 0});
  }
}

std::optional<TierEngine::Move> TierEngine::next_offer(Edge edge) {
  OffloadPath& offloads = path(edge);
  if (offloads.offers.empty() && offloads.policy.mode == OffloadMode::OnEviction && !closed_) {
    offer_coldest(edge);
  }
  while (!offloads.offers.empty()) {
    const BlockKey key = offloads.offers.begin()->second;
    offloads.offers.erase(offloads.offers.begin());
    if (target_pool(edge).store().contains(key.hash, key.name_space)) {
      count(Transition::OfferPresent);
      continue;
    }
    // Not a use of the block: what is copied down is evicted no later for that.
    ImmutableHold source = borrow(source_pool(edge).store(), key);
    if (!source) {
      count(Transition::OfferGone);
      continue;
    }
    if (auto move = move_of_offer(edge, key, source)) return move;
    give_back(std::move(source));
  }
  return std::nullopt;
}

// Leaves the source where it is if the block is not to be copied.
std::optional<TierEngine::Move> TierEngine::move_of_offer(Edge edge, const BlockKey& key,
                                                          ImmutableHold& source) {
  if (join({edge, false, 0, source.id(), 0}, std::nullopt)) {
    count(Transition::OfferPresent);
    return std::nullopt;
  }
  const BlockStore& from = source_pool(edge).store();
  if (!from.offload_priority(source.id())) return std::nullopt;  // its metadata forbids it
  if (!may_offload(edge, key, from.priority(source.id()))) return std::nullopt;
  auto target = allocate(target_pool(edge).store(), 1);
  if (!target) {
    ++stats_.offloads_dropped;
    count(Transition::OfferWithoutRoom);
    return std::nullopt;
  }
  RequestItem item;
  item.source = std::move(source);
  Move move = make_move(edge, item, std::move(target->front()));
  move.is_offer = true;
  move.is_borrowed = true;
  return move;
}

// Whether the block may take the edge now; what that costs is spent then.
bool TierEngine::may_offload(Edge edge, const BlockKey& key, std::uint32_t priority) {
  const std::uint64_t bytes = target_pool(edge).layout()->block_stride();
  if (edge == Edge::HostToDisk && !pools_.disk->is_writable(now_)) {
    ++stats_.offloads_dropped;
    count(Transition::OfferUnwritable);
    return false;
  }
  const auto verdict = path(edge).admission->admit(key.hash, priority, bytes, now_);
  const bool over_budget = verdict == Admission::Verdict::OverBudget ||
                           (verdict == Admission::Verdict::Admitted && edge == Edge::HostToDisk &&
                            disk_budget_ && !disk_budget_->admit(key.hash, bytes, now_));
  if (over_budget) {
    ++stats_.offloads_over_budget;
    count(Transition::OfferOverBudget);
    return false;
  }
  if (verdict == Admission::Verdict::Admitted) return true;
  ++stats_.offloads_not_admitted;
  count(Transition::OfferNotAdmitted);
  return false;
}

}  // namespace kvbm::detail
