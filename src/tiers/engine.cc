#include "tiers/engine.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace kvbm {

const char* to_string(Edge edge) noexcept {
  switch (edge) {
    case Edge::DeviceToHost: return "device_to_host";
    case Edge::HostToDisk: return "host_to_disk";
    case Edge::DiskToHost: return "disk_to_host";
    case Edge::HostToDevice: return "host_to_device";
  }
  return "unknown";
}

namespace detail {
namespace {

Names names_of(const BlockKey& key) {
  return {std::span(&key.hash, 1), std::span(&key.digest, 1), key.name_space};
}

}  // namespace

TierEngine::TierEngine(TierPools pools, EngineOptions options) : pools_(pools), options_(options) {
  if (options.disk_bytes_per_day > 0) disk_budget_.emplace(options.disk_bytes_per_day);
}

std::vector<Command> TierEngine::step(TimePoint now, std::vector<Event> events) {
  now_ = now;
  commands_.clear();
  for (Event& event : events) {
    std::visit([this](auto& what) { on(what); }, event);
  }
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    ++stats_.requests_timed_out;
    end_request(deadlines_.begin()->second, ErrorCode::TimedOut);
  }
  pump();
  return std::move(commands_);
}

std::optional<TimePoint> TierEngine::next_deadline() const {
  if (deadlines_.empty()) return std::nullopt;
  return deadlines_.begin()->first;
}

bool TierEngine::idle() const noexcept {
  return requests_.empty() && transfers_.empty() && device_offers_.empty() && host_offers_.empty();
}

TierPool& TierEngine::source_pool(Edge edge) const {
  switch (edge) {
    case Edge::DeviceToHost: return *pools_.device;
    case Edge::DiskToHost: return *pools_.disk;
    default: return *pools_.host;
  }
}

TierPool& TierEngine::target_pool(Edge edge) const {
  switch (edge) {
    case Edge::HostToDevice: return *pools_.device;
    case Edge::HostToDisk: return *pools_.disk;
    default: return *pools_.host;
  }
}

// --- events ----------------------------------------------------------------------------------

void TierEngine::on(BlocksRegistered& event) {
  for (const OffloadOffer& wanted : event.offers) offer(event.tier, wanted);
}

void TierEngine::offer(Tier tier, OffloadOffer offer) {
  const TierPool* below = tier == Tier::Device ? pools_.host
                          : tier == Tier::Host ? pools_.disk
                                               : nullptr;
  if (!below || closed_) return;
  Offers& offers = tier == Tier::Device ? device_offers_ : host_offers_;
  offers.emplace(std::pair(~offer.priority, next_offer_++), offer.key);
  if (offers.size() <= options_.offload_queue_blocks) return;
  // Of the lowest priority, the one that was used longest ago.
  offers.erase(offers.lower_bound({offers.rbegin()->first.first, 0}));
  ++stats_.offloads_dropped;
}

void TierEngine::on(OnboardRequested& event) {
  Request request{event.deadline, std::move(event.items), {}, 0};
  request.outcomes.resize(request.items.size());
  request.open = request.items.size();
  for (std::size_t i = 0; i < request.items.size(); ++i) {
    auto& queue = request.items[i].source_tier == Tier::Host ? loads_ : stages_;
    queue.push_back({event.id, i});
  }
  deadlines_.emplace(event.deadline, event.id);
  requests_.emplace(event.id, std::move(request));
  if (closed_ || requests_.at(event.id).open == 0) {
    end_request(event.id, ErrorCode::ProgressEngineShutdown);
  }
}

void TierEngine::on(RequestCancelled& event) { end_request(event.id, ErrorCode::Cancelled); }

void TierEngine::on(CloseRequested&) {
  closed_ = true;
  device_offers_.clear();
  host_offers_.clear();
  while (!requests_.empty()) end_request(requests_.begin()->first, ErrorCode::Cancelled);
  for (auto& [id, transfer] : transfers_) {
    transfer.cancelled->store(true, std::memory_order_relaxed);
  }
}

void TierEngine::on(TransferEnded& event) {
  const auto found = transfers_.find(event.id);
  if (found == transfers_.end()) return;
  Transfer transfer = std::move(found->second);
  transfers_.erase(found);
  --in_flight(transfer.edge);
  edge_stats(transfer.edge).busy += event.result.busy;
  // What nobody waits for any more must not become visible.
  std::vector<Move> wanted;
  std::vector<CompleteHold> targets;
  std::vector<Result<TransferToken>> outcomes;
  for (std::size_t i = 0; i < transfer.moves.size(); ++i) {
    Move& move = transfer.moves[i];
    if (move.item && !find(*move.item)) continue;
    targets.push_back(std::move(move.target));
    outcomes.push_back(std::move(event.result.blocks[i]));
    wanted.push_back(std::move(move));
  }
  auto arrived =
      target_pool(transfer.edge).register_transferred(std::move(targets), std::move(outcomes));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (arrived[i]) {
      land(transfer.edge, wanted[i], std::move(*arrived[i]));
    } else {
      fail(transfer.edge, wanted[i], std::move(arrived[i]).error());
    }
  }
}

// --- requests --------------------------------------------------------------------------------

// Ends a request now; items without an outcome get `code`. Copies that still run for it keep their
// blocks until they have ended.
void TierEngine::end_request(RequestId id, ErrorCode code) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  Request request = std::move(found->second);
  requests_.erase(found);
  deadlines_.erase({request.deadline, id});
  cancel_unwanted_transfers();

  FinishRequest finish{id, {}};
  finish.blocks.reserve(request.outcomes.size());
  for (auto& outcome : request.outcomes) {
    finish.blocks.push_back(outcome ? std::move(*outcome)
                                    : Result<ImmutableHold>(Error{code, 0, 0, 0, {}}));
  }
  commands_.push_back(std::move(finish));
}

void TierEngine::cancel_unwanted_transfers() {
  for (auto& [id, transfer] : transfers_) {
    const bool wanted =
        std::any_of(transfer.moves.begin(), transfer.moves.end(),
                    [this](const Move& move) { return !move.item || find(*move.item); });
    if (!wanted) transfer.cancelled->store(true, std::memory_order_relaxed);
  }
}

OnboardItem* TierEngine::find(ItemRef item) {
  const auto found = requests_.find(item.request);
  return found == requests_.end() ? nullptr : &found->second.items[item.index];
}

void TierEngine::settle(ItemRef item, Result<ImmutableHold> outcome) {
  Request& request = requests_.at(item.request);
  request.outcomes[item.index] = std::move(outcome);
  request.items[item.index] = {};
  if (--request.open == 0) end_request(item.request, ErrorCode::Cancelled);
}

// --- the ends of transfers -------------------------------------------------------------------

void TierEngine::land(Edge edge, Move& move, ImmutableHold arrived) {
  TierPool& target = target_pool(edge);
  ++edge_stats(edge).blocks;
  edge_stats(edge).bytes += target.layout()->content()->bytes();
  switch (edge) {
    case Edge::DeviceToHost:
      if (const auto priority = target.store().offload_priority(arrived.id())) {
        offer(Tier::Host, {key_of(arrived), *priority});
      }
      break;
    case Edge::HostToDisk: break;
    case Edge::DiskToHost: {
      OnboardItem* const item = find(*move.item);
      if (!item) break;  // a block before this one has ended its request
      item->source = std::move(arrived);
      item->source_tier = Tier::Host;
      loads_.push_back(*move.item);
      break;
    }
    case Edge::HostToDevice:
      if (find(*move.item)) settle(*move.item, std::move(arrived));
      break;
  }
}

void TierEngine::fail(Edge edge, Move& move, Error error) {
  if (error.code != ErrorCode::Cancelled) ++edge_stats(edge).failed;
  if (error.code == ErrorCode::ChecksumMismatch) ++stats_.checksum_mismatches;
  // What cannot be read is not found again, or every request of its prefix would fail at it.
  if (error.code == ErrorCode::ChecksumMismatch ||
      (edge == Edge::DiskToHost && error.code == ErrorCode::OperationFailed)) {
    source_pool(edge).store().detach(move.source.id());
  }
  if (move.item && find(*move.item)) settle(*move.item, std::move(error));
}

// --- new transfers ---------------------------------------------------------------------------

// Onboarding first: somebody waits for it. Stages before loads, since a stage may turn out to be a
// load already.
void TierEngine::pump() {
  pump_edge(Edge::DiskToHost, options_.onboards_in_flight);
  pump_edge(Edge::HostToDevice, options_.onboards_in_flight);
  pump_edge(Edge::DeviceToHost, options_.offloads_in_flight);
  pump_edge(Edge::HostToDisk, options_.offloads_in_flight);
}

void TierEngine::pump_edge(Edge edge, std::size_t limit) {
  while (in_flight(edge) < limit) {
    std::vector<Move> moves;
    while (moves.size() < options_.blocks_per_transfer) {
      std::optional<Move> move = next_move(edge);
      if (!move) break;
      moves.push_back(std::move(*move));
    }
    if (moves.empty()) return;
    start(edge, std::move(moves));
  }
}

std::optional<TierEngine::Move> TierEngine::next_move(Edge edge) {
  switch (edge) {
    case Edge::DiskToHost: return next_stage();
    case Edge::HostToDevice: return next_load();
    case Edge::DeviceToHost: return next_offload(edge, device_offers_);
    case Edge::HostToDisk: return next_offload(edge, host_offers_);
  }
  return std::nullopt;
}

// The target takes its source's name now, not when the bytes have come: if the namespace is reset
// meanwhile, what arrives is of the time before.
TierEngine::Move TierEngine::make_move(TierPool& pool, ImmutableHold source, MutableHold target,
                                       std::optional<ItemRef> item) {
  const BlockStore& from = *source.store();
  pool.store().copy_metadata(target.id(), from, source.id());
  if (pool.set()->tokens && set_of(source).tokens) {
    std::ranges::copy(set_of(source).tokens_of(source.id()),
                      pool.set()->tokens_of(target.id()).begin());
  }
  CompleteHold named = complete(std::move(target), from.identity(source.id()));
  return Move{std::move(source), std::move(named), item};
}

std::optional<TierEngine::Move> TierEngine::next_load() {
  while (!loads_.empty()) {
    const ItemRef ref = loads_.front();
    loads_.pop_front();
    if (OnboardItem* item = find(ref)) {
      return make_move(*pools_.device, std::move(item->source), std::move(item->target), ref);
    }
  }
  return std::nullopt;
}

std::optional<TierEngine::Move> TierEngine::next_stage() {
  while (!stages_.empty()) {
    const ItemRef ref = stages_.front();
    OnboardItem* item = find(ref);
    if (!item) {
      stages_.pop_front();
      continue;
    }
    if (!pools_.disk->is_readable(now_)) {
      stages_.pop_front();
      settle(ref, Error{ErrorCode::OperationFailed, 0, 0, 0, "the disk tier is off"});
      continue;
    }
    const BlockKey key = key_of(item->source);
    if (auto present = match(pools_.host->store(), names_of(key)); !present.empty()) {
      item->source = std::move(present.front());
      item->source_tier = Tier::Host;
      loads_.push_back(ref);
      stages_.pop_front();
      continue;
    }
    auto target = allocate(pools_.host->store(), 1);
    if (target) {
      stages_.pop_front();
      return make_move(*pools_.host, std::move(item->source), std::move(target->front()), ref);
    }
    // Copies that run, or are about to, will give host blocks back; without any, waiting is vain.
    if (!transfers_.empty() || !loads_.empty()) return std::nullopt;
    stages_.pop_front();
    settle(ref, std::move(target).error());
  }
  return std::nullopt;
}

std::optional<TierEngine::Move> TierEngine::next_offload(Edge edge, Offers& offers) {
  while (!offers.empty()) {
    const BlockKey key = offers.begin()->second;
    offers.erase(offers.begin());
    if (target_pool(edge).store().contains(key.hash, key.name_space)) continue;
    if (!may_write(edge, key)) continue;
    auto source = match(source_pool(edge).store(), names_of(key));
    if (source.empty()) continue;  // evicted before its turn
    auto target = allocate(target_pool(edge).store(), 1);
    if (!target) {
      ++stats_.offloads_dropped;
      continue;
    }
    return make_move(target_pool(edge), std::move(source.front()), std::move(target->front()),
                     std::nullopt);
  }
  return std::nullopt;
}

bool TierEngine::may_write(Edge edge, const BlockKey& key) {
  if (edge != Edge::HostToDisk) return true;
  TierPool& disk = *pools_.disk;
  if (!disk.is_writable(now_)) {
    ++stats_.offloads_dropped;
    return false;
  }
  if (!disk_budget_ || disk_budget_->admit(key.hash, disk.layout()->block_stride(), now_))
    return true;
  ++stats_.offloads_over_budget;
  return false;
}

void TierEngine::start(Edge edge, std::vector<Move> moves) {
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  StartTransfer command{next_transfer_++, edge, {}, cancelled};
  command.blocks.reserve(moves.size());
  for (const Move& move : moves) {
    command.blocks.push_back(
        {move.source.id(), move.target.id(), source_pool(edge).payload_sum(move.source)});
  }
  ++in_flight(edge);
  transfers_.emplace(command.id, Transfer{edge, std::move(moves), std::move(cancelled)});
  commands_.push_back(std::move(command));
}

// --- invariants ------------------------------------------------------------------------------

namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "kvbm: tier engine invariant broken: %s\n", what);
  std::abort();
}

}  // namespace

void TierEngine::check_invariants() const {
  std::map<std::pair<RequestId, std::size_t>, int> places;
  for (const ItemRef& ref : loads_) ++places[{ref.request, ref.index}];
  for (const ItemRef& ref : stages_) ++places[{ref.request, ref.index}];
  std::array<std::size_t, kEdgeCount> moving{};
  for (const auto& [id, transfer] : transfers_) {
    ++moving[static_cast<std::size_t>(transfer.edge)];
    for (const Move& move : transfer.moves) {
      require(move.source && move.target, "a moving block is held at both ends");
      if (move.item) ++places[{move.item->request, move.item->index}];
    }
  }
  require(moving == in_flight_, "transfers in flight are counted by edge");

  for (const auto& [id, request] : requests_) {
    std::size_t open = 0;
    for (std::size_t i = 0; i < request.outcomes.size(); ++i) {
      const auto place = places.find({id, i});
      const int count = place == places.end() ? 0 : place->second;
      require(count == (request.outcomes[i] ? 0 : 1), "an open item is in exactly one place");
      open += request.outcomes[i] ? 0 : 1;
    }
    require(open == request.open && open > 0, "a request lives while items are open");
    require(deadlines_.count({request.deadline, id}) == 1, "every request has its deadline");
  }
  require(deadlines_.size() == requests_.size(), "every deadline has its request");
  require(device_offers_.size() <= options_.offload_queue_blocks &&
              host_offers_.size() <= options_.offload_queue_blocks,
          "offload queues are bounded");
}

}  // namespace detail
}  // namespace kvbm
