// What must hold in a schedule.
#include <algorithm>
#include <string>
#include <utility>

#include "simulator/world.h"

namespace kvbm::simulator {

using detail::TierPool;
using detail::Transition;

namespace {

std::uint64_t content_seed(const BlockIdentity& identity, std::uint32_t generation,
                           std::size_t region) {
  return Random(identity.sequence_hash.value() ^ (std::uint64_t{generation} << 17) ^
                (std::uint64_t{identity.name_space} << 9) ^ region)
      .next();
}

// Calls use(bytes, seed) for each region of a block in memory.
template <class Use>
void for_each_region(const Layout& layout, BlockId id, const BlockIdentity& identity,
                     std::uint32_t generation, Use use) {
  const std::size_t regions = layout.content()->regions().size();
  const std::size_t per_layer = regions / layout.content()->num_layers();
  for (std::size_t i = 0; i < regions; ++i) {
    const Region region = layout.region(id, i / per_layer, i % per_layer).value();
    use(std::span(region.data(), region.bytes), content_seed(identity, generation, i));
  }
}

}  // namespace

// --- bytes -----------------------------------------------------------------------------------

void World::fill(const Layout& layout, BlockId id, const Name& name) {
  for_each_region(layout, id, name.identity, name.generation,
                  [](std::span<std::byte> bytes, std::uint64_t seed) {
                    for (std::byte& byte : bytes) byte = std::byte((seed = seed * 25 + 7) >> 24);
                  });
}

// The first so many layers.
bool World::is_right(Tier tier, BlockId id, const Name& name, std::size_t layers) {
  bool right = true;
  std::size_t region = 0;
  for_each_region(*pool(tier).layout(), id, name.identity, name.generation,
                  [&](std::span<std::byte> bytes, std::uint64_t seed) {
                    if (region++ / kOuterDim >= layers) return;
                    for (const std::byte byte : bytes) {
                      right = right && byte == std::byte((seed = seed * 25 + 7) >> 24);
                    }
                  });
  return right;
}

// Layers of blocks that fail in the end need not be there; which those are is not known yet.
void World::check_layers(Pending& pending) {
  for (std::size_t i = 0; i < pending.moved.size(); ++i) {
    const auto& targets = scenario_.tiers.external_device ? pending.externals : pending.targets;
    if (targets[i] == kNoBlock) continue;
    const Name& name = pending.names[pending.moved[i]];
    if (!is_right(Tier::Device, targets[i], name, pending.layers)) pending.not_yet.insert(i);
  }
}

void World::check_block(Tier tier, BlockId id, const Name& name, const char* where) {
  ++result_.blocks_checked;
  if (is_right(tier, id, name)) return;
  found(std::string("a ") + where + " block of the " + to_string(tier) +
        " tier has wrong bytes: block " + std::to_string(id) + ", position " +
        std::to_string(name.identity.position));
}

// What the engine has of its own must stay as it left it, unless a copy was told to write there.
void World::check_externals() {
  for (BlockId id = 0; id < externals_.size(); ++id) {
    const ExternalBlock& block = externals_[id];
    if (block.name && !tiers_->engine().is_external_busy(id)) {
      check_block(Tier::Device, id, *block.name, "kept");
    }
  }
}

// --- books -----------------------------------------------------------------------------------

void World::check_end() {
  if (!tiers_->engine().idle()) return found("something waits or moves for ever");
  if (!pending_.empty()) found("a request has not ended");
  tiers_->advance(now() + std::chrono::seconds(10));  // leases end
  while (tiers_->plans().next_expiry()) tiers_->advance(*tiers_->plans().next_expiry());
  if (tiers_->plans().size() > 0) found("a plan is leased for ever");
  if (scenario_.tiers.peer && scenario_.tiers.peer->leases() > 0) {
    found("blocks of the peer are kept for ever");
  }
  for (BlockId id = 0; id < externals_.size(); ++id) {
    if (tiers_->engine().is_external_busy(id)) found("an external block is busy for ever");
  }
  check_externals();
  for (const Tier tier : {Tier::Device, Tier::Host, Tier::Disk}) {
    TierPool* const one = tiers_->pool(tier);
    if (!one) continue;
    one->store().advance(now() + std::chrono::seconds(10));
    const BlockStoreStats stats = one->store().stats();
    if (stats.available != stats.total) {
      found(std::to_string(stats.total - stats.available) + " blocks of the " + to_string(tier) +
            " tier are held for ever");
    }
  }
  tiers_->check_invariants();
  check_events();
  check_closed();
}

// After its end the engine refuses what comes, and tells so.
void World::check_closed() {
  tiers_->close();
  detail::RequestStarted request{.items = {}, .deadline = now() + std::chrono::seconds(1)};
  request.items.resize(1);
  bool refused = false;
  start_and_forget(std::move(request), [&refused](const auto& answers) {
    refused = answers.front().error().code == ErrorCode::ProgressEngineShutdown;
  });
  if (!refused) found("a request that comes too late is not refused");
}

void World::check_counters() {
  const detail::TransitionCounts& reached = tiers_->engine().reached();
  const auto count = [&](Transition transition) {
    return reached[static_cast<std::size_t>(transition)];
  };
  const std::uint64_t ended = count(Transition::RequestDone) + count(Transition::RequestFailed) +
                              count(Transition::RequestExpired) +
                              count(Transition::RequestCancelled) +
                              count(Transition::RequestRefused) + count(Transition::RequestLate) +
                              count(Transition::RequestEmpty) + count(Transition::RequestCut);
  if (ended + requests_of_tickets_.size() != requests_this_life_) {
    found("requests do not add up: " + std::to_string(requests_this_life_) + " began, " +
          std::to_string(ended) + " ended, " + std::to_string(requests_of_tickets_.size()) +
          " are open");
  }
  const TransferStats& stats = tiers_->engine().stats();
  const auto blocks = [&](Edge edge) { return stats.edges[static_cast<std::size_t>(edge)].blocks; };
  const auto expect = [this](std::uint64_t a, std::uint64_t b, const char* what) {
    if (a != b) found(std::string(what) + ": " + std::to_string(a) + " and " + std::to_string(b));
  };
  expect(blocks(Edge::DiskToHost), count(Transition::BlockStaged), "staged blocks");
  expect(blocks(Edge::PeerToHost), count(Transition::BlockPulled), "pulled blocks");
  expect(blocks(Edge::HostToDevice), count(Transition::BlockOnboarded), "onboarded blocks");
  expect(blocks(Edge::DeviceToHost) + blocks(Edge::HostToDisk), count(Transition::BlockOffloaded),
         "offloaded blocks");
  std::uint64_t failed = 0;
  for (const EdgeStats& edge : stats.edges) failed += edge.failed;
  expect(failed, count(Transition::MoveFailed), "failed blocks");
  expect(stats.loads_split, count(Transition::LoadSplit), "split loads");
  expect(stats.loads_refused, count(Transition::LoadNotWorth), "loads that are not worth it");
  expect(stats.loads_cut, count(Transition::RequestCut), "loads that were cut");
  expect(stats.requests_timed_out, count(Transition::RequestExpired), "expired requests");
}

// --- events ----------------------------------------------------------------------------------

void EventBook::consume() {
  for (const BlockEvent& event : waiting_) {
    const auto place = std::pair(event.tier, event.block_id);
    switch (event.kind) {
      case BlockEvent::Kind::Registered:
        blocks_[place] = {event.name_space, event.sequence_hash};
        break;
      case BlockEvent::Kind::Evicted: blocks_.erase(place); break;
      case BlockEvent::Kind::Cleared:
        std::erase_if(blocks_, [&](const auto& block) {
          return block.first.first == event.tier && block.second.first == event.name_space;
        });
        break;
      case BlockEvent::Kind::Allocated:
      case BlockEvent::Kind::Matched: break;
    }
  }
  waiting_.clear();
}

std::set<std::pair<NamespaceId, std::uint64_t>> EventBook::names(Tier tier) const {
  std::set<std::pair<NamespaceId, std::uint64_t>> names;
  for (const auto& [place, name] : blocks_) {
    if (place.first == tier) names.emplace(name.first, name.second.value());
  }
  return names;
}

void EventBook::forget() {
  waiting_.clear();
  blocks_.clear();
}

void World::check_events() {
  events_->consume();
  for (const Tier tier : {Tier::Device, Tier::Host, Tier::Disk}) {
    TierPool* const one = tiers_->pool(tier);
    if (!one) continue;
    std::set<std::pair<NamespaceId, std::uint64_t>> there;
    for (NamespaceId space = 0; space < 2; ++space) {
      for (std::size_t c = 0; c < scenario_.conversations; ++c) {
        for (const Name& name : names_of(c, scenario_.longest, space)) {
          if (one->store().contains(name.identity.sequence_hash, space)) {
            there.emplace(space, name.identity.sequence_hash.value());
          }
        }
      }
    }
    if (there != events_->names(tier)) {
      found(std::string("the events of the ") + to_string(tier) + " tier tell of " +
            std::to_string(events_->names(tier).size()) + " blocks, and it has " +
            std::to_string(there.size()));
    }
  }
}

}  // namespace kvbm::simulator
