// The tier engine's loads that arrive layer by layer. A sum covers a whole block, so each block is
// verified in host memory before its first layer moves.
#include <algorithm>
#include <utility>

#include "tiers/engine.h"

namespace kvbm::detail {

std::size_t TierEngine::num_layers() const {
  return pools_.device->layout()->content()->num_layers();
}

// Layers of a prefix are used in order, so nothing moves before every block that can be there is.
void TierEngine::begin_layers_if_staged(RequestId id) {
  Request& request = requests_.at(id);
  if (!request.layerwise || request.layers_begun || !request.all_queued) return;
  for (std::size_t i = 0; i < request.items.size(); ++i) {
    const bool waits =
        !request.outcomes[i] && (request.items[i].at != Tier::Host || !request.items[i].source);
    if (waits) return;
  }
  request.layers_begun = true;
  begin_layers(id);
}

// One layer of a block is little, so more of them go together, as long as every path stays busy.
std::size_t TierEngine::blocks_per_group(std::size_t blocks) const {
  constexpr std::size_t kMost = 16;  // times as many as whole ones
  const std::size_t share =
      (blocks + options_.onboards_in_flight - 1) / options_.onboards_in_flight;
  return std::clamp(share, options_.blocks_per_transfer, kMost * options_.blocks_per_transfer);
}

void TierEngine::begin_layers(RequestId id) {
  LayerRun run;
  const std::size_t items = requests_.at(id).items.size();
  for (std::size_t i = 0; i < items; ++i) {
    const auto request = requests_.find(id);
    if (request == requests_.end()) break;
    if (request->second.outcomes[i]) continue;
    RequestItem& item = request->second.items[i];
    if (item.external == kNoBlock) {
      if (auto found = find_same(*pools_.device, item)) {
        count(Transition::LoadFoundInDevice);
        settle({id, i}, std::move(found));
        continue;
      }
    }
    Move move = make_move(Edge::HostToDevice, item, std::move(item.target));
    move.wanted_by.push_back({id, i});
    move.order = request->second.order;
    run.moves.push_back(std::move(move));
  }
  if (run.moves.empty()) return;
  run.proofs.resize(run.moves.size());
  const std::size_t most = blocks_per_group(run.moves.size());
  for (std::size_t first = 0; first < run.moves.size(); first += most) {
    run.groups.push_back({.first = first, .count = std::min(most, run.moves.size() - first)});
  }
  runs_.emplace(id, std::move(run));
}

void TierEngine::pump_layers() {
  while (in_flight(Edge::HostToDevice) < options_.onboards_in_flight) {
    bool started = false;
    for (auto& [id, run] : runs_) {
      if (!requests_.contains(id)) continue;
      LayerRun::Group* next = nullptr;
      for (LayerRun::Group& group : run.groups) {
        if (group.moving || group.steps > num_layers()) continue;
        if (!next || group.steps < next->steps) next = &group;
      }
      if (!next) continue;
      start_layers(id, run, *next);
      started = true;
      break;
    }
    if (!started) return;
  }
}

void TierEngine::start_layers(RequestId id, LayerRun& run, LayerRun::Group& group) {
  const bool verifies = group.steps == 0;
  const TransferId transfer_id = open_transfer(Edge::HostToDevice);
  Transfer& transfer = transfers_.at(transfer_id);
  transfer.run = id;
  transfer.group = static_cast<std::size_t>(&group - run.groups.data());
  StartTransfer command{.id = transfer_id,
                        .edge = Edge::HostToDevice,
                        .step = verifies ? TransferStep::Verify : TransferStep::Copy,
                        .layer = verifies ? std::nullopt : std::optional(group.steps - 1),
                        .blocks = {},
                        .order = run.moves[group.first].order,
                        .cancelled = transfer.cancelled};
  for (std::size_t i = group.first; i < group.first + group.count; ++i) {
    const Move& move = run.moves[i];
    if (!move.source) continue;  // it has failed
    transfer.positions.push_back(i);
    command.blocks.push_back({move.source_id, move.target_id,
                              verifies ? pools_.host->payload_sum(move.source) : std::nullopt});
  }
  group.moving = true;
  if (run.since == TimePoint{}) run.since = now_;
  path_begins(Edge::HostToDevice, 0);
  commands_.push_back(std::move(command));
}

void TierEngine::end_layers(Transfer transfer, TransferResult result) {
  const RequestId id = *transfer.run;
  const auto found = runs_.find(id);
  LayerRun& run = found->second;
  LayerRun::Group& group = run.groups[transfer.group];
  group.moving = false;
  if (!requests_.contains(id)) {
    count(Transition::QuarantineEnded);
    if (drop_if_over(id, run)) runs_.erase(found);
    return;
  }
  const bool verified = group.steps++ == 0;
  std::vector<std::pair<Move, Error>> failed;
  std::size_t good = 0;
  for (std::size_t i = 0; i < transfer.positions.size(); ++i) {
    const std::size_t position = transfer.positions[i];
    auto& proof = run.proofs[position];
    if (verified || !result.blocks[i]) {
      proof = std::move(result.blocks[i]);
    } else {
      proof = TransferToken::join(std::move(**proof), std::move(*result.blocks[i]));
    }
    if (*proof) {
      ++good;
      if (verified) count(Transition::LayersVerified);
      continue;
    }
    count(Transition::LayersFailed);
    Move& move = run.moves[position];
    if (!move.target) release_external(move.target_id);
    failed.emplace_back(std::exchange(move, {}), proof->error());
  }
  note_arrival(id, {.bytes_from_host = good * block_bytes() / (num_layers() + 1)});
  if (good == 0) group.steps = num_layers() + 1;  // nothing of it is left to move
  const bool over = std::ranges::all_of(
      run.groups, [this](const LayerRun::Group& each) { return each.steps > num_layers(); });
  tell_layers(id, run);
  LayerRun done;
  if (over) {
    const auto arrived = static_cast<std::uint64_t>(std::ranges::count_if(
        run.moves, [](const Move& move) { return static_cast<bool>(move.source); }));
    governor_.observe(Edge::HostToDevice, arrived * block_bytes(), now_ - run.since, runs_.size());
    done = std::move(run);
    runs_.erase(found);
  }
  for (auto& [move, error] : failed) fail(Edge::HostToDevice, move, error);
  if (over) finish_layers(std::move(done));
}

// Tells how many layers all blocks have that have not failed.
void TierEngine::tell_layers(RequestId id, LayerRun& run) {
  std::size_t layers = num_layers();
  for (const LayerRun::Group& group : run.groups) {
    layers = std::min(layers, group.steps == 0 ? 0 : group.steps - 1);
  }
  if (layers <= run.told) return;
  run.told = layers;
  commands_.push_back(LayersArrived{id, layers});
}

void TierEngine::finish_layers(LayerRun run) {
  Transfer whole;
  whole.edge = Edge::HostToDevice;
  TransferResult result;
  for (std::size_t i = 0; i < run.moves.size(); ++i) {
    if (!run.moves[i].source) continue;
    count(Transition::LayersJoined);
    whole.moves.push_back(std::move(run.moves[i]));
    result.blocks.push_back(std::move(*run.proofs[i]));
  }
  end_moves(std::move(whole), std::move(result));
}

// Whether a run whose request has ended has no copy left; its blocks are free then.
bool TierEngine::drop_if_over(RequestId id, const LayerRun& run) {
  if (requests_.contains(id) || std::ranges::any_of(run.groups, &LayerRun::Group::moving)) {
    return false;
  }
  count(Transition::LayersAbandoned);
  for (const Move& move : run.moves) {
    if (move.source && !move.target) release_external(move.target_id);
  }
  return true;
}

}  // namespace kvbm::detail
