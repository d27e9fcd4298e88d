#include <cstdio>
#include <cstdlib>

#include "tiers/engine.h"

namespace kvbm::detail {
namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "kvbm: tier engine invariant broken: %s\n", what);
  std::abort();
}

}  // namespace

void TierEngine::check_invariants() const {
  check_items();
  check_moves();
  check_externals();
  require(from_device_.offers.size() <= options_.offload_queue_blocks &&
              from_host_.offers.size() <= options_.offload_queue_blocks,
          "offload queues are bounded");
  require(held_back_.size() <= transfers_.size(), "what is held back is a transfer's");
}

// Every open item is waited for in exactly one place.
void TierEngine::check_items() const {
  std::map<std::pair<RequestId, std::size_t>, int> places;
  for (const Queue* queue : {&loads_, &stages_, &pulls_, &offloads_}) {
    for (const ItemRef& ref : queue->items) ++places[{ref.request, ref.index}];
  }
  const auto note = [&places](const Move& move) {
    for (const ItemRef& ref : move.wanted_by) ++places[{ref.request, ref.index}];
  };
  for (const auto& [id, transfer] : transfers_) {
    for (const Move& move : transfer.moves) note(move);
  }
  for (const auto& [id, run] : runs_) {
    for (const Move& move : run.moves) note(move);
  }
  std::size_t open_items = 0;
  for (const auto& [id, request] : requests_) {
    std::size_t open = 0;
    const bool gathers = request.layerwise && !request.layers_begun;
    for (std::size_t i = 0; i < request.outcomes.size(); ++i) {
      const auto place = places.find({id, i});
      const int count = place == places.end() ? 0 : place->second;
      const bool waits = !request.outcomes[i];
      const bool gathered =
          waits && gathers && request.items[i].source && request.items[i].at == Tier::Host;
      require(count + (gathered ? 1 : 0) == (waits ? 1 : 0), "an open item is in one place");
      open += waits ? 1 : 0;
    }
    require(open == request.open && open > 0, "a request lives while items are open");
    require(deadlines_.contains({request.deadline, id}), "every request has its deadline");
    open_items += open;
  }
  std::size_t checked = 0;
  for (const auto& [id, request] : requests_) {
    const bool is_due = request.watch && request.watch->next_check != TimePoint::max();
    require(!is_due || checks_.contains({request.watch->next_check, id}),
            "a load that is watched is checked");
    checked += is_due ? 1 : 0;
  }
  require(checked == checks_.size(), "every check has its request");
  require(open_items == open_items_, "open items are counted");
  require(deadlines_.size() == requests_.size(), "every deadline has its request");
}

void TierEngine::check_moves() const {
  std::array<std::size_t, kEdgeCount> moving{}, blocks{};
  std::size_t shareable = 0;
  for (const auto& [id, transfer] : transfers_) {
    ++moving[static_cast<std::size_t>(transfer.edge)];
    blocks[static_cast<std::size_t>(transfer.edge)] += transfer.moves.size();
    require(transfer.run.has_value() == transfer.moves.empty(), "a transfer moves something");
    for (const Move& move : transfer.moves) {
      require(move.source || move.remote || transfer.edge == Edge::DeviceToHost,
              "a source is held");
      require((move.remote != nullptr) == (transfer.edge == Edge::PeerToHost),
              "what is a peer's comes from a peer");
      require(move.target || transfer.edge == Edge::HostToDevice, "a target is held");
    }
  }
  for (std::size_t edge = 0; edge < kEdgeCount; ++edge) {
    require(moving[edge] == meters_[edge].transfers && blocks[edge] == meters_[edge].blocks,
            "what is in flight is counted by edge");
  }
  for (const auto& [key, place] : moving_) {
    const auto found = transfers_.find(place.transfer);
    require(found != transfers_.end() && place.index < found->second.moves.size(),
            "a shared copy runs");
    require(source_key(key.edge, found->second.moves[place.index]) == key,
            "a shared copy is of its source");
    ++shareable;
  }
  require(shareable == moving_.size(), "shared copies are counted");
  for (const auto& [id, run] : runs_) {
    std::size_t groups_moving = 0;
    for (const LayerRun::Group& group : run.groups) groups_moving += group.moving ? 1 : 0;
    std::size_t transfers = 0;
    for (const auto& [other, transfer] : transfers_) transfers += transfer.run == id ? 1 : 0;
    require(groups_moving == transfers, "groups that move have a transfer each");
    require(groups_moving > 0 || requests_.contains(id), "a run without a request still moves");
  }
}

// External blocks are busy while an item or a copy has them, and no longer.
void TierEngine::check_externals() const {
  std::map<BlockId, std::size_t> uses;
  for (const auto& [id, request] : requests_) {
    for (const RequestItem& item : request.items) {
      if (item.external != kNoBlock) ++uses[item.external];
    }
  }
  const auto note = [&uses](const Move& move) {
    if (!move.source && move.target && !move.remote) ++uses[move.source_id];
    if (move.source && !move.target) ++uses[move.target_id];
  };
  for (const auto& [id, transfer] : transfers_) {
    for (const Move& move : transfer.moves) note(move);
  }
  for (const auto& [id, run] : runs_) {
    for (const Move& move : run.moves) note(move);
  }
  require(uses.size() == externals_.size(), "busy external blocks are in use");
  for (const auto& [id, use] : externals_) {
    const auto found = uses.find(id);
    require(found != uses.end() && found->second == (use.is_target ? 1 : use.readers),
            "uses of external blocks are counted");
  }
}

}  // namespace kvbm::detail
