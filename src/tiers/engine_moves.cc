// Which copies the tier engine begins, and in which order.
#include <algorithm>
#include <cmath>
#include <utility>

#include "tiers/engine.h"

namespace kvbm::detail {
namespace {

bool is_same(const StreamOrder& a, const StreamOrder& b) {
  return a.stream == b.stream && a.after_event == b.after_event;
}

}  // namespace

std::size_t TierEngine::SourceKeyHash::operator()(const SourceKey& key) const noexcept {
  const std::uint64_t mixed = (key.what ^ key.digest) * 0x9e3779b97f4a7c15u;
  return mixed ^ (mixed >> 32) ^ (std::uint64_t{key.name_space} << 8) ^
         static_cast<std::uint64_t>(key.edge);
}

// Somebody waits for what is onboarded, so it goes first. Stages before loads, since a stage may
// turn out to be a load already. The disk's offers before the host's, which may wait for them.
void TierEngine::pump() {
  pump_edge(Edge::DiskToHost);
  pump_edge(Edge::PeerToHost);
  pump_layers();
  pump_edge(Edge::HostToDevice);
  pump_edge(Edge::HostToDisk);
  pump_edge(Edge::DeviceToHost);
}

// Copies of one transfer are ordered alike, and of one peer's blocks.
void TierEngine::pump_edge(Edge edge) {
  const bool with_disk = edge == Edge::HostToDisk || edge == Edge::DiskToHost;
  if (!pools_.host || (with_disk && !pools_.disk)) return;
  std::optional<Move> left;  // that did not go with those before it
  while (in_flight(edge) < transfers_allowed(edge) || left) {
    const TransferId id = open_transfer(edge);
    const std::vector<Move>& moves = transfers_.at(id).moves;
    while (moves.size() < options_.blocks_per_transfer) {
      if (!left) left = next_move(edge);
      if (!left || (!moves.empty() && (!is_same(moves.front().order, left->order) ||
                                       moves.front().remote != left->remote))) {
        break;
      }
      add_move(id, std::move(*left));
      left.reset();
    }
    if (moves.empty()) {
      transfers_.erase(id);
      return;
    }
    send(id);
  }
}

// Who onboards now is likely to do so again in a moment, and should not find all threads and cores
// busy then.
bool TierEngine::is_onboarding(Edge edge) {
  constexpr std::chrono::milliseconds kMoment{20};
  const Queue& queue = edge == Edge::HostToDevice ? loads_
                       : edge == Edge::PeerToHost ? pulls_
                                                  : stages_;
  const bool in_layers = edge == Edge::HostToDevice && !runs_.empty();
  if (!queue.empty() || in_layers || in_flight(edge) > 0) return true;
  const std::optional<TimePoint> last = meter(edge).last_end;
  return last && now_ - *last < kMoment && !options_.deterministic;
}

std::size_t TierEngine::transfers_allowed(Edge edge) {
  const bool to_host = edge == Edge::DeviceToHost;
  if (edge != Edge::DeviceToHost && edge != Edge::HostToDisk) return options_.onboards_in_flight;
  if (to_host && options_.host_is_transit) {
    const std::size_t on_their_way =
        from_host_.offers.size() + (in_flight(Edge::DeviceToHost) + in_flight(Edge::HostToDisk)) *
                                       options_.blocks_per_transfer;
    if (on_their_way >= pools_.host->store().total_blocks() / 2 && on_their_way > 0) return 0;
  }
  if (!is_onboarding(to_host ? Edge::HostToDevice : Edge::DiskToHost) &&
      !(to_host && is_onboarding(Edge::PeerToHost))) {
    return options_.offloads_in_flight;
  }
  const double share =
      std::ceil(static_cast<double>(options_.offloads_in_flight) * options_.offload_share);
  const auto allowed = std::max<std::size_t>(static_cast<std::size_t>(share), 1);
  const bool has_work = !path(edge).offers.empty() || (to_host && !offloads_.empty());
  if (in_flight(edge) >= allowed && has_work) count(Transition::OffloadYielded);
  return allowed;
}

std::optional<TierEngine::Move> TierEngine::next_move(Edge edge) {
  switch (edge) {
    case Edge::DiskToHost: return next_to_host(edge, stages_);
    case Edge::PeerToHost: return next_to_host(edge, pulls_);
    case Edge::HostToDevice: return next_load();
    case Edge::DeviceToHost:
      if (auto move = next_requested_offload()) return move;
      return next_offer(edge);
    case Edge::HostToDisk: return next_offer(edge);
  }
  return std::nullopt;
}

// The target takes its source's name now, not when the bytes have come: if the namespace is reset
// meanwhile, what arrives is of the time before.
TierEngine::Move TierEngine::make_move(Edge edge, RequestItem& item, MutableHold target) {
  Move move;
  const bool is_held = static_cast<bool>(item.source);
  move.remote = std::exchange(item.remote, nullptr);
  move.source_id = is_held ? item.source.id() : move.remote ? item.remote_block : item.external;
  move.target_id = target ? target.id() : item.external;
  const bool is_external = !target || (!is_held && !move.remote);
  if (is_external) item.external = kNoBlock;  // from now on the move's
  if (target) {
    TierPool& pool = target_pool(edge);
    BlockIdentity identity =
        is_held ? item.source.store()->identity(move.source_id) : *item.identity;
    if (!is_held) identity.forgotten = identity.epoch != pool.store().epoch(identity.name_space);
    if (is_held) pool.store().copy_metadata(target.id(), *item.source.store(), move.source_id);
    if (pool.set()->tokens) {
      const auto tokens = pool.set()->tokens_of(target.id());
      if (is_held && set_of(item.source).tokens) {
        std::ranges::copy(set_of(item.source).tokens_of(move.source_id), tokens.begin());
      } else if (!is_held) {
        tokens.front() = BlockSet::kUnknownToken;
      }
    }
    move.target = complete(std::move(target), identity);
  }
  move.source = std::move(item.source);
  return move;
}

// --- what comes next -------------------------------------------------------------------------

std::optional<TierEngine::Move> TierEngine::next_load() {
  while (!loads_.empty()) {
    const ItemRef ref = loads_.front();
    loads_.pop();
    RequestItem* const item = find(ref);
    if (!item) continue;
    if (item->external == kNoBlock && is_settled_without_copy(Edge::HostToDevice, ref, *item)) {
      continue;
    }
    Move move = make_move(Edge::HostToDevice, *item, std::move(item->target));
    move.wanted_by.push_back(ref);
    move.order = requests_.at(ref.request).order;
    return move;
  }
  return std::nullopt;
}

// Whether the block is in the device tier by now, or on its way to it for somebody else.
bool TierEngine::is_settled_without_copy(Edge edge, ItemRef ref, const RequestItem& item) {
  if (auto found = find_same(target_pool(edge), item)) {
    count(Transition::LoadFoundInDevice);
    settle(ref, std::move(found));
    return true;
  }
  if (!join(source_key(edge, item), ref)) return false;
  count(Transition::LoadShared);
  return true;
}

// A stage, or a pull from a peer: the next block that must come to the host tier by this edge.
std::optional<TierEngine::Move> TierEngine::next_to_host(Edge edge, Queue& queue) {
  while (!queue.empty()) {
    const ItemRef ref = queue.front();
    RequestItem* const item = find(ref);
    if (!item) {
      queue.pop();
      continue;
    }
    if (edge == Edge::DiskToHost && !pools_.disk->is_readable(now_)) {
      queue.pop();
      settle(ref, Error{ErrorCode::OperationFailed, 0, 0, 0, "the disk tier is off"});
      continue;
    }
    if (auto found = find_same(*pools_.host, *item)) {
      queue.pop();
      count(Transition::StageFoundInHost);
      arrived_in_host(ref, std::move(found));
      continue;
    }
    if (join(source_key(edge, *item), ref)) {
      queue.pop();
      count(Transition::StageShared);
      continue;
    }
    auto target = allocate(pools_.host->store(), 1);
    if (target) {
      queue.pop();
      Move move = make_move(edge, *item, std::move(target->front()));
      move.wanted_by.push_back(ref);
      return move;
    }
    // Copies that run, or are about to, will give host blocks back; without any, waiting is vain.
    const auto moves = [](const auto& transfer) {
      return transfer.second.run || !transfer.second.moves.empty();
    };
    if (!loads_.empty() || std::ranges::any_of(transfers_, moves)) {
      count(Transition::StageWaited);
      return std::nullopt;
    }
    queue.pop();
    count(Transition::StageWithoutRoom);
    settle(ref, std::move(target).error());
  }
  return std::nullopt;
}

std::optional<TierEngine::Move> TierEngine::next_requested_offload() {
  while (!offloads_.empty()) {
    const ItemRef ref = offloads_.front();
    offloads_.pop();
    RequestItem* const item = find(ref);
    if (!item) continue;
    const bool is_held = static_cast<bool>(item->source);
    const BlockKey key = is_held ? key_of(item->source)
                                 : BlockKey{item->identity->sequence_hash, item->identity->digest,
                                            item->identity->name_space};
    if (auto found = find_same(*pools_.host, *item)) {
      count(Transition::OfferPresent);
      settle(ref, std::move(found));
      continue;
    }
    if (join(source_key(Edge::DeviceToHost, *item), ref)) {
      count(Transition::OffloadShared);
      continue;
    }
    if (requests_.at(ref.request).admission) {
      from_device_.admission->used(key.hash);
      const std::uint32_t priority =
          is_held ? pools_.device->store().priority(item->source.id()) : DEFAULT_PRIORITY;
      if (!may_offload(Edge::DeviceToHost, key, priority)) {
        settle(ref, Error{ErrorCode::NotAdmitted, 0, 0, 0, {}});
        continue;
      }
    }
    auto target = allocate(pools_.host->store(), 1);
    if (!target) {
      count(Transition::OfferWithoutRoom);
      settle(ref, std::move(target).error());
      continue;
    }
    Move move = make_move(Edge::DeviceToHost, *item, std::move(target->front()));
    move.wanted_by.push_back(ref);
    move.order = requests_.at(ref.request).order;
    return move;
  }
  return std::nullopt;
}

// --- copies that are shared ------------------------------------------------------------------

// The block that a pool has under the name of an item. What was named before a reset may differ
// from what has the name now.
ImmutableHold TierEngine::find_same(TierPool& pool, const RequestItem& item) const {
  const bool is_held = static_cast<bool>(item.source);
  const BlockIdentity identity =
      is_held ? item.source.store()->identity(item.source.id()) : *item.identity;
  const bool forgotten = is_held
                             ? identity.forgotten
                             : identity.epoch != pools_.host->store().epoch(identity.name_space);
  if (forgotten) return {};
  auto found =
      match(pool.store(),
            names_of(BlockKey{identity.sequence_hash, identity.digest, identity.name_space}));
  return found.empty() ? ImmutableHold() : std::move(found.front());
}

TierEngine::SourceKey TierEngine::source_key(Edge edge, const Move& move) const {
  if (move.source) return {edge, false, 0, move.source_id, 0};
  const BlockIdentity identity = target_pool(edge).store().identity(move.target_id);
  return {edge, true, identity.name_space, identity.sequence_hash.value(), identity.digest};
}

TierEngine::SourceKey TierEngine::source_key(Edge edge, const RequestItem& item) const {
  if (item.source) return {edge, false, 0, item.source.id(), 0};
  const BlockIdentity& identity = *item.identity;
  return {edge, true, identity.name_space, identity.sequence_hash.value(), identity.digest};
}

// Waits, for an item or an offer, for the end of a copy that runs already. One that was begun
// before a reset brings what nobody may find any more.
bool TierEngine::join(const SourceKey& key, std::optional<ItemRef> item) {
  const auto found = moving_.find(key);
  if (found == moving_.end()) return false;
  Transfer& transfer = transfers_.at(found->second.transfer);
  Move& move = transfer.moves[found->second.index];
  if (transfer.cancelled->load(std::memory_order_relaxed)) return false;
  if (target_pool(key.edge).store().identity(move.target_id).forgotten) return false;
  if (item) {
    move.wanted_by.push_back(*item);
  } else {
    move.is_offer = true;
  }
  return true;
}

// --- transfers -------------------------------------------------------------------------------

TransferId TierEngine::open_transfer(Edge edge) {
  const TransferId id = next_transfer_++;
  Transfer& transfer = transfers_[id];
  transfer.edge = edge;
  transfer.cancelled = std::make_shared<std::atomic<bool>>(false);
  return id;
}

// External targets are not shared: everybody has blocks of its own.
void TierEngine::add_move(TransferId id, Move move) {
  Transfer& transfer = transfers_.at(id);
  if (move.target) {
    moving_.insert_or_assign(source_key(transfer.edge, move), MovePlace{id, transfer.moves.size()});
  }
  transfer.moves.push_back(std::move(move));
}

void TierEngine::send(TransferId id) {
  const Transfer& transfer = transfers_.at(id);
  StartTransfer command{.id = id,
                        .edge = transfer.edge,
                        .blocks = {},
                        .remote = transfer.moves.front().remote,
                        .order = transfer.moves.front().order,
                        .cancelled = transfer.cancelled};
  command.blocks.reserve(transfer.moves.size());
  for (const Move& move : transfer.moves) {
    command.blocks.push_back(
        {move.source_id, move.target_id,
         move.source ? source_pool(transfer.edge).payload_sum(move.source) : std::nullopt});
  }
  path_begins(transfer.edge, transfer.moves.size());
  commands_.push_back(std::move(command));
}

}  // namespace kvbm::detail
