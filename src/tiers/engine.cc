#include "tiers/engine.h"

#include <algorithm>
#include <utility>

namespace kvbm {

const char* to_string(Edge edge) noexcept {
  switch (edge) {
    case Edge::DeviceToHost: return "device_to_host";
    case Edge::HostToDisk: return "host_to_disk";
    case Edge::DiskToHost: return "disk_to_host";
    case Edge::HostToDevice: return "host_to_device";
    case Edge::PeerToHost: return "peer_to_host";
  }
  return "unknown";
}

namespace detail {

const char* to_string(Transition transition) noexcept {
  switch (transition) {
#define KVBM_CASE(name, text) \
  case Transition::name: return text;
    KVBM_TRANSITIONS(KVBM_CASE)
#undef KVBM_CASE
  }
  return "unknown";
}

TierEngine::TierEngine(TierPools pools, EngineOptions options) : pools_(pools), options_(options) {
  if (options.disk_bytes_per_day > 0) disk_budget_.emplace(options.disk_bytes_per_day);
  from_device_.policy = options.device_offload;
  from_host_.policy = options.host_offload;
  if (pools.host) {
    from_device_.admission.emplace(options.device_offload.admission, pools.host->store());
  }
  if (pools.disk) {
    from_host_.admission.emplace(options.host_offload.admission, pools.disk->store());
  }
}

std::vector<Command> TierEngine::step(TimePoint now, std::vector<Event> events) {
  now_ = now;
  commands_.clear();
  for (Event& event : events) {
    std::visit([this](auto& what) { on(what); }, event);
    if (options_.deterministic) pump();
  }
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    end_request(deadlines_.begin()->second, ErrorCode::TimedOut, Transition::RequestExpired);
  }
  check_loads();
  pump();
  return std::move(commands_);
}

std::optional<TimePoint> TierEngine::next_deadline() const {
  if (deadlines_.empty()) return std::nullopt;
  const TimePoint deadline = deadlines_.begin()->first;
  return checks_.empty() ? deadline : std::min(deadline, checks_.begin()->first);
}

bool TierEngine::idle() const noexcept {
  return requests_.empty() && transfers_.empty() && from_device_.offers.empty() &&
         from_host_.offers.empty();
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

void TierEngine::on(BlocksOffered& event) {
  const bool has_tier_below =
      event.tier == Tier::Device ? pools_.host != nullptr : pools_.disk != nullptr;
  if (event.tier == Tier::Disk || !has_tier_below || closed_) return;
  const Edge edge = event.tier == Tier::Device ? Edge::DeviceToHost : Edge::HostToDisk;
  for (const OffloadOffer& wanted : event.offers) {
    path(edge).admission->used(wanted.key.hash);
    if (path(edge).policy.mode == OffloadMode::WriteThrough) offer(edge, wanted);
  }
}

void TierEngine::on(RequestCancelled& event) {
  end_request(event.id, ErrorCode::Cancelled, Transition::RequestCancelled);
}

void TierEngine::on(CloseRequested&) {
  closed_ = true;
  from_device_.offers.clear();
  from_host_.offers.clear();
  while (!requests_.empty()) {
    end_request(requests_.begin()->first, ErrorCode::Cancelled, Transition::RequestCancelled);
  }
  for (auto& [id, transfer] : transfers_) {
    transfer.cancelled->store(true, std::memory_order_relaxed);
  }
}

void TierEngine::on(TransferEnded& event) {
  if (!transfers_.contains(event.id)) return;
  if (!options_.deterministic) return end_transfer(event.id, std::move(event.result));
  if (event.id != transfers_.begin()->first) count(Transition::EndHeldBack);
  held_back_.emplace(event.id, std::move(event.result));
  while (!transfers_.empty()) {
    auto next = held_back_.extract(transfers_.begin()->first);
    if (!next) return;
    end_transfer(next.key(), std::move(next.mapped()));
    pump();
  }
}

void TierEngine::end_transfer(TransferId id, TransferResult result) {
  auto ended = transfers_.extract(id);
  Transfer& transfer = ended.mapped();
  edge_stats(transfer.edge).busy += result.busy;
  if (transfer.run) {
    path_ends(transfer.edge, 0, 0);
    end_layers(std::move(transfer), std::move(result));
  } else {
    const auto arrived = static_cast<std::uint64_t>(
        std::ranges::count_if(result.blocks, [](const auto& block) { return block.has_value(); }));
    path_ends(transfer.edge, transfer.moves.size(), arrived * block_bytes());
    for (std::size_t i = 0; i < transfer.moves.size(); ++i) {
      const auto found = moving_.find(source_key(transfer.edge, transfer.moves[i]));
      if (found != moving_.end() && found->second.transfer == id) moving_.erase(found);
    }
    end_moves(std::move(transfer), std::move(result));
  }
}

// What nobody waits for any more must not become visible.
void TierEngine::end_moves(Transfer transfer, TransferResult result) {
  const Edge edge = transfer.edge;
  std::vector<Move> wanted;
  std::vector<std::optional<Result<ImmutableHold>>> ends;
  std::vector<CompleteHold> targets;
  std::vector<Result<TransferToken>> proofs;
  for (std::size_t i = 0; i < transfer.moves.size(); ++i) {
    Move& move = transfer.moves[i];
    if (!move.source && !move.remote) release_external(move.source_id);
    if (!move.target) release_external(move.target_id);
    if (!is_wanted(move)) {
      count(Transition::QuarantineEnded);
      continue;
    }
    ends.emplace_back();
    if (move.target) {
      targets.push_back(std::move(move.target));
      proofs.push_back(std::move(result.blocks[i]));
    } else if (result.blocks[i]) {
      ends.back() = ImmutableHold();
    } else {
      ends.back() = std::move(result.blocks[i]).error();
    }
    wanted.push_back(std::move(move));
  }
  auto registered = target_pool(edge).register_transferred(std::move(targets), std::move(proofs));
  auto next = registered.begin();
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    Result<ImmutableHold> end = ends[i] ? std::move(*ends[i]) : std::move(*next++);
    if (end) {
      land(edge, wanted[i], std::move(*end));
    } else {
      fail(edge, wanted[i], end.error());
    }
    if (wanted[i].is_borrowed) give_back(std::move(wanted[i].source));
  }
}

void TierEngine::land(Edge edge, Move& move, ImmutableHold arrived) {
  TierPool& target = target_pool(edge);
  ++edge_stats(edge).blocks;
  edge_stats(edge).bytes += target.layout()->content()->bytes();
  if (arrived && target.store().identity(arrived.id()).forgotten) {
    count(Transition::ArrivedForgotten);
  }
  switch (edge) {
    case Edge::DeviceToHost:
      count(Transition::BlockOffloaded);
      if (const auto priority = target.store().offload_priority(arrived.id())) {
        BlocksOffered offered{Tier::Host, {{key_of(arrived), *priority}}};
        on(offered);
      }
      break;
    case Edge::HostToDisk: count(Transition::BlockOffloaded); break;
    case Edge::DiskToHost: count(Transition::BlockStaged); break;
    case Edge::HostToDevice: count(Transition::BlockOnboarded); break;
    case Edge::PeerToHost: count(Transition::BlockPulled); break;
  }
  for (const ItemRef& item : move.wanted_by) {
    if (!find(item)) continue;
    ImmutableHold hold = arrived ? share(arrived) : ImmutableHold();
    if (edge == Edge::DiskToHost || edge == Edge::PeerToHost) {
      arrived_in_host(item, std::move(hold));
    } else {
      settle(item, std::move(hold));
    }
  }
}

void TierEngine::fail(Edge edge, Move& move, const Error& error) {
  if (error.code != ErrorCode::Cancelled) {
    count(Transition::MoveFailed);
    ++edge_stats(edge).failed;
  }
  if (error.code == ErrorCode::ChecksumMismatch) ++stats_.checksum_mismatches;
  // What cannot be read is not found again, or every request of its prefix would fail at it.
  if (move.source && (error.code == ErrorCode::ChecksumMismatch ||
                      (edge == Edge::DiskToHost && error.code == ErrorCode::OperationFailed))) {
    source_pool(edge).store().detach(move.source.id());
    count(Transition::SourceDetached);
  }
  for (const ItemRef& item : move.wanted_by) {
    if (find(item)) settle(item, error);
  }
}

}  // namespace detail
}  // namespace kvbm
