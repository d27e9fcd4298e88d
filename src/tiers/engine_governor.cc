// Where the tier engine asks its governor: how much of a request to load, and whether to go on.
#include <algorithm>
#include <utility>

#include "tiers/engine.h"

namespace kvbm::detail {

std::uint64_t TierEngine::block_bytes() const { return pools_.host->layout()->content()->bytes(); }

// Of the request's items, the first so many; before any of them is queued.
std::size_t TierEngine::blocks_to_load(RequestId id, double prefill_tokens_per_second) {
  Request& request = requests_.at(id);
  const std::size_t all = request.items.size();
  if (request.kind != RequestKind::Onboard || !(prefill_tokens_per_second > 0)) return all;

  std::vector<Governor::LoadStep> prefix;
  prefix.reserve(all);
  for (const RequestItem& item : request.items) prefix.push_back(step_of(item));
  const auto tell_queue = [this](Edge edge, const Queue& queue) {
    governor_.queue(edge, block_bytes() * (queue.items.size() + meter(edge).blocks));
  };
  tell_queue(Edge::DiskToHost, stages_);
  tell_queue(Edge::PeerToHost, pulls_);
  tell_queue(Edge::HostToDevice, loads_);
  Watch watch{.prefill_tokens_per_second = prefill_tokens_per_second,
              .decision = governor_.decide(prefix, prefill_tokens_per_second),
              .rest = {},
              .ahead = {stages_.pushed, pulls_.pushed, loads_.pushed},
              .last_arrival = now_};
  const std::size_t to_load = watch.decision.blocks;
  if (watch.decision.is_trial) count(Transition::LoadTried);
  if (to_load < all) {
    count(to_load == 0 ? Transition::LoadNotWorth : Transition::LoadSplit);
    ++(to_load == 0 ? stats_.loads_refused : stats_.loads_split);
    stats_.blocks_not_loaded += all - to_load;
  }
  for (std::size_t i = 0; i < to_load; ++i) {
    watch.rest.bytes_from_disk += prefix[i].bytes_from_disk;
    watch.rest.bytes_from_peer += prefix[i].bytes_from_peer;
    watch.rest.bytes_from_host += prefix[i].bytes_from_host;
    watch.rest.tokens += prefix[i].tokens;
  }
  request.watch = watch;
  if (to_load > 0) arrived_.push_back(id);  // to know when to look for the first time
  return to_load;
}

// An item that was not queued.
void TierEngine::leave_to_compute(ItemRef ref) {
  RequestItem& item = requests_.at(ref.request).items[ref.index];
  item = {.at = Tier::Device};  // nothing of it counts as arrived, or as claimed
  settle(ref, Error{ErrorCode::CheaperToCompute, 0, 0, 0, {}});
}

// What it takes to load the block from where it is.
Governor::LoadStep TierEngine::step_of(const RequestItem& item) const {
  Governor::LoadStep step{.tokens = item.tokens};
  if (item.at == Tier::Disk) step.bytes_from_disk = block_bytes();
  if (item.at == Tier::Remote) step.bytes_from_peer = block_bytes();
  if (item.at == Tier::Host) step.bytes_from_host = block_bytes();
  return step;
}

// So much of what is waited for need not come any more.
void TierEngine::note_arrival(RequestId id, const Governor::LoadStep& arrived) {
  auto& watch = requests_.at(id).watch;
  if (!watch) return;
  Governor::LoadStep& rest = watch->rest;
  rest.bytes_from_disk -= std::min(arrived.bytes_from_disk, rest.bytes_from_disk);
  rest.bytes_from_peer -= std::min(arrived.bytes_from_peer, rest.bytes_from_peer);
  rest.bytes_from_host -= std::min(arrived.bytes_from_host, rest.bytes_from_host);
  rest.tokens -= arrived.tokens;
  watch->last_arrival = now_;
  if (arrived_.empty() || arrived_.back() != id) arrived_.push_back(id);
}

void TierEngine::check_loads() {
  for (const RequestId id : std::exchange(arrived_, {})) check_load(id);
  while (!checks_.empty() && checks_.begin()->first <= now_) check_load(checks_.begin()->second);
}

// Ends a request whose rest is computed sooner than it would come.
void TierEngine::check_load(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  Watch& watch = *found->second.watch;
  const std::uint64_t bytes = block_bytes();
  Governor::LoadStep rest = watch.rest;
  const auto add_waiting = [&](std::uint64_t& own, const Queue& queue, std::uint64_t position,
                               Edge edge) {
    const std::uint64_t before = queue.waiting_before(position);
    if (own > 0 && before > 0) own += bytes * (before + meter(edge).blocks);
  };
  add_waiting(rest.bytes_from_disk, stages_, watch.ahead[0], Edge::DiskToHost);
  add_waiting(rest.bytes_from_peer, pulls_, watch.ahead[1], Edge::PeerToHost);
  add_waiting(rest.bytes_from_host, loads_, watch.ahead[2], Edge::HostToDevice);
  const Governor::Check check = governor_.check(
      watch.decision, rest, watch.prefill_tokens_per_second, watch.last_arrival, now_);
  checks_.erase({watch.next_check, id});
  watch.next_check = TimePoint::max();
  if (check.is_behind) {
    ++stats_.loads_cut;
    stats_.blocks_not_loaded += found->second.open;
    return end_request(id, ErrorCode::CheaperToCompute, Transition::RequestCut);
  }
  if (check.next_check == TimePoint::max()) return;
  watch.next_check = check.next_check;
  checks_.emplace(watch.next_check, id);
}

// --- how fast paths are ----------------------------------------------------------------------

void TierEngine::path_begins(Edge edge, std::size_t blocks) {
  PathMeter& path = meter(edge);
  path.blocks += blocks;
  if (path.transfers++ > 0) return;
  path.since = now_;
  path.bytes = 0;
  path.ends = 0;
}

void TierEngine::path_ends(Edge edge, std::size_t blocks, std::uint64_t bytes_arrived) {
  PathMeter& path = meter(edge);
  path.blocks -= blocks;
  path.bytes += bytes_arrived;
  if (path.ends == 0) path.ends = path.transfers;
  --path.ends;
  --path.transfers;
  path.last_end = now_;
  if ((path.ends > 0 && path.transfers > 0) || now_ == path.since) return;
  governor_.observe(edge, path.bytes, now_ - path.since, 1);
  path.since = now_;
  path.bytes = 0;
  path.ends = 0;
}

}  // namespace kvbm::detail
