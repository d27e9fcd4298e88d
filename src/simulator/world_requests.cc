// What the users of the tiers do in a schedule.
#include <algorithm>
#include <utility>

#include "simulator/world.h"

namespace kvbm::simulator {

using detail::ImmutableHold;
using detail::Plan;
using detail::PlanSegment;
using detail::RequestId;
using detail::RequestItem;
using detail::RequestKind;
using std::chrono::microseconds;
using std::chrono::milliseconds;

namespace {

constexpr const char* kTooEarly = "a layer was told of before it was there";

}  // namespace

std::vector<World::Name> World::names_of(std::size_t conversation, std::size_t length,
                                         NamespaceId space) const {
  std::vector<Name> names;
  SequenceHash parent;
  for (std::size_t i = 0; i < length; ++i) {
    const std::size_t whose = i < scenario_.shared_prefix ? 0 : conversation;
    const SequenceHash hash(Random((whose << 32) + i + 1).next());
    names.push_back({{.sequence_hash = hash,
                      .parent_hash = parent,
                      .position = static_cast<std::uint32_t>(i),
                      .token_count = kPageSize,
                      .digest = hash.value() * 3 + space,
                      .name_space = space},
                     generations_[space]});
    parent = hash;
  }
  return names;
}

std::optional<Plan> World::find(const std::vector<Name>& names) {
  std::vector<SequenceHash> hashes;
  std::vector<std::uint64_t> digests;
  for (const Name& name : names) {
    hashes.push_back(name.identity.sequence_hash);
    digests.push_back(name.identity.digest);
  }
  Plan plan =
      detail::lookup_tiers(tiers_->pools(), {hashes, digests, names.front().identity.name_space});
  ask_peer(names, plan);
  if (plan.size() == 0) return std::nullopt;
  return plan;
}

// Adds what the peer has of what follows.
void World::ask_peer(const std::vector<Name>& names, Plan& plan) {
  VirtualPeer* const peer = scenario_.tiers.peer.get();
  if (!peer || !random_.chance(0.7)) return;
  detail::RemotePart part;
  for (std::size_t i = plan.size(); i < names.size(); ++i) {
    BlockIdentity identity = names[i].identity;
    identity.epoch = pool(Tier::Host).store().epoch(identity.name_space);
    part.identities.push_back(identity);
  }
  const auto lease = peer->lookup(part.identities, now() + microseconds(random_.below(50000)));
  if (!lease) return;
  part.identities.resize(lease->blocks.size());
  part.blocks = lease;
  say("the peer has %zu blocks", lease->blocks.size());
  plan.remote = std::move(part);
}

TimePoint World::some_deadline() {
  return now() + (random_.chance(0.2) ? microseconds(random_.below(3000))
                                      : microseconds(random_.below(100000)));
}

// A prompt: what is there is loaded, the rest is computed when that has ended.
void World::prefill() {
  ++result_.requests;
  const auto space = static_cast<NamespaceId>(random_.below(2));
  const auto names = names_of(random_.below(scenario_.conversations),
                              random_.between(1, scenario_.longest), space);
  std::optional<Plan> plan = find(names);
  if (!plan) return compute(names, 0);
  if (random_.chance(0.1)) {  // a plan waits for its turn, and may be too late
    const TimePoint expires = now() + milliseconds(random_.below(5));
    const PlanId id = tiers_->plans().add(std::move(*plan), expires);
    const TimePoint used = now() + milliseconds(random_.below(5));
    while (tiers_->advance(used)) {
    }
    auto taken = tiers_->plans().take(id);
    if (!taken) {
      if (expires > now()) found("a plan is gone before its time");
      return;
    }
    if (generations_[space] != names.front().generation) return;
    plan = std::move(*taken);
  }
  onboard(std::move(*plan), names);
}

std::optional<BlockId> World::free_external() {
  std::vector<BlockId> free;
  for (BlockId id = 0; id < externals_.size(); ++id) {
    if (!externals_[id].in_use && !tiers_->engine().is_external_busy(id)) free.push_back(id);
  }
  if (free.empty()) return std::nullopt;
  return free[random_.below(free.size())];
}

bool World::choose_target(RequestItem& item, Pending& pending) {
  if (scenario_.tiers.external_device) {
    if (random_.chance(0.02)) {  // by mistake, one that a copy may still use
      item.external = static_cast<BlockId>(random_.below(externals_.size()));
      if (tiers_->engine().is_external_busy(item.external)) {
        pending.externals.push_back(kNoBlock);
        return true;
      }
    }
    const auto id = free_external();
    if (!id) return false;
    externals_[*id] = {std::nullopt, true};
    pending.externals.push_back(*id);
    item.external = *id;
    return true;
  }
  auto target = detail::allocate(pool(Tier::Device).store(), 1);
  if (!target) return false;
  item.target = std::move(target->front());
  pending.targets.push_back(item.target.id());
  return true;
}

void World::onboard(Plan plan, const std::vector<Name>& names) {
  std::vector<ImmutableHold> in_device;  // empty where an item stands for it
  detail::RequestStarted request{.items = {}, .deadline = some_deadline()};
  Pending pending;
  pending.names = names;
  bool has_room = true;
  for (PlanSegment& segment : plan.segments) {
    std::vector<ImmutableHold> blocks = detail::split(segment.run);
    blocks.resize(has_room ? segment.count : 0);
    for (ImmutableHold& block : blocks) {
      const std::uint32_t tokens = block.store()->identity(block.id()).token_count;
      if (segment.tier == Tier::Device) {
        in_device.push_back(std::move(block));
        if (!request.items.empty()) request.items.back().tokens += tokens;
        continue;
      }
      RequestItem item{.source = std::move(block), .at = segment.tier, .tokens = tokens};
      has_room = choose_target(item, pending);
      if (!has_room) break;
      pending.moved.push_back(in_device.size());
      in_device.emplace_back();
      request.items.push_back(std::move(item));
    }
  }
  for (RequestItem& item : detail::remote_items(plan)) {
    has_room = has_room && choose_target(item, pending);
    if (!has_room) break;
    pending.moved.push_back(in_device.size());
    in_device.emplace_back();
    request.items.push_back(std::move(item));
  }
  request.layerwise = random_.chance(0.25);
  if (random_.chance(0.8)) request.prefill_tokens_per_second = scenario_.prefill_rate;
  pending.is_governed = request.prefill_tokens_per_second > 0;
  const std::uint64_t ticket = next_ticket_++;
  say("request %llu: onboard %zu of %zu blocks%s", static_cast<unsigned long long>(ticket),
      request.items.size(), names.size(), request.layerwise ? " layer by layer" : "");
  pending_.emplace(ticket, std::move(pending));
  ++requests_this_life_;
  // Shared, because a std::function must be copyable.
  auto held = std::make_shared<std::vector<ImmutableHold>>(std::move(in_device));
  requests_of_tickets_.emplace(ticket, 0);
  const RequestId id = tiers_->start(
      std::move(request),
      [this, ticket, held](std::vector<Result<ImmutableHold>> moved) {
        requests_of_tickets_.erase(ticket);
        onboarded(ticket, std::move(*held), std::move(moved));
      },
      [this, ticket](std::size_t layers) {
        Pending& open = pending_.at(ticket);
        if (layers <= open.layers || layers > tiers_->layers()) found("layers come out of order");
        open.layers = layers;
        check_layers(open);
      });
  if (const auto open = requests_of_tickets_.find(ticket); open != requests_of_tickets_.end()) {
    open->second = id;
  }
}

void World::onboarded(RequestId ticket, std::vector<ImmutableHold> in_device,
                      std::vector<Result<ImmutableHold>> moved) {
  Pending pending = std::move(pending_.extract(ticket).mapped());
  HeldBlocks held{{}, now() + microseconds(random_.below(20000))};
  std::size_t next = 0;  // of the moved ones
  bool prefix = true;
  std::size_t valid = 0;
  for (std::size_t i = 0; i < in_device.size(); ++i) {
    const Name& name = pending.names[i];
    const bool was_moved = !in_device[i];
    const bool is_there = !was_moved || moved[next].has_value();
    if (!is_there && moved[next].error().code == ErrorCode::Cancelled && !pending.cancelled) {
      found("a request that nobody cancelled is answered as if somebody had");
    }
    if (!is_there && moved[next].error().code == ErrorCode::CheaperToCompute) {
      if (!pending.is_governed) found("a block is left to be computed, and nobody said how fast");
    }
    if (was_moved && scenario_.tiers.external_device && pending.externals[next] == kNoBlock) {
      if (is_there) found("a block was loaded into one that was in use");
    } else if (was_moved && scenario_.tiers.external_device) {
      ExternalBlock& block = externals_[pending.externals[next]];
      // Of a block that did not arrive nobody knows what it holds.
      block = {is_there ? std::optional(name) : std::nullopt, false};
      if (is_there && pending.not_yet.contains(next)) found(kTooEarly);
      if (is_there) check_block(Tier::Device, pending.externals[next], name, "loaded");
    } else if (is_there) {
      ImmutableHold hold = was_moved ? std::move(*moved[next]) : std::move(in_device[i]);
      // Somebody else may have brought it, to another block.
      const bool is_own = was_moved && hold.id() == pending.targets[next];
      if (is_own && pending.not_yet.contains(next)) found(kTooEarly);
      check_block(Tier::Device, hold.id(), name, "loaded");
      held.blocks.push_back({std::move(hold), name});
    }
    if (was_moved) ++next;
    prefix = prefix && is_there;
    valid += prefix ? 1 : 0;
  }
  say("request %llu ended: %zu of %zu blocks are there", static_cast<unsigned long long>(ticket),
      valid, in_device.size());
  held_.push_back(std::move(held));
  // What was reset meanwhile is computed anew by whoever asks next.
  const NamespaceId space = pending.names.front().identity.name_space;
  if (pending.names.front().generation == generations_[space]) compute(pending.names, valid);
}

// A forward pass: fills blocks, names and registers them.
void World::compute(const std::vector<Name>& names, std::size_t first) {
  if (scenario_.tiers.external_device) {
    std::vector<BlockId> ids;
    for (std::size_t i = first; i < names.size(); ++i) {
      const auto id = free_external();
      if (!id) break;
      externals_[*id] = {names[i], true};
      fill(*pool(Tier::Device).layout(), *id, names[i]);
      ids.push_back(*id);
    }
    const auto begin = names.begin() + static_cast<std::ptrdiff_t>(first);
    const std::vector<Name> filled(begin, begin + static_cast<std::ptrdiff_t>(ids.size()));
    return offload_external(filled, std::move(ids));
  }
  std::vector<detail::CompleteHold> computed;
  for (std::size_t i = first; i < names.size(); ++i) {
    auto block = detail::allocate(pool(Tier::Device).store(), 1);
    if (!block) break;
    fill(*pool(Tier::Device).layout(), block->front().id(), names[i]);
    computed.push_back(detail::complete(std::move(block->front()), names[i].identity));
  }
  if (computed.empty()) return;
  HeldBlocks held{{}, now() + microseconds(random_.below(20000))};
  auto registered = pool(Tier::Device).register_blocks(std::move(computed));
  if (!registered) return found("registration fails: " + registered.error().to_string());
  for (std::size_t i = 0; i < registered->size(); ++i) {
    held.blocks.push_back({std::move((*registered)[i]), names[first + i]});
  }
  held_.push_back(std::move(held));
}

void World::offload_external(const std::vector<Name>& names, std::vector<BlockId> ids) {
  if (ids.empty()) return;
  detail::RequestStarted request{.kind = RequestKind::Offload,
                                 .items = {},
                                 .deadline = some_deadline(),
                                 .admission = random_.chance(0.5)};
  for (std::size_t i = 0; i < ids.size(); ++i) {
    request.items.push_back(
        {.at = Tier::Device, .external = ids[i], .identity = names[i].identity});
  }
  start_and_forget(std::move(request), [this, ids](const auto&) {
    for (const BlockId id : ids) externals_[id].in_use = false;
  });
}

// Blocks that somebody holds are offloaded by name.
void World::offload_held() {
  if (held_.empty()) return;
  const HeldBlocks& held = held_[random_.below(held_.size())];
  if (held.blocks.empty()) return;
  detail::RequestStarted request{.kind = RequestKind::Offload,
                                 .items = {},
                                 .deadline = some_deadline(),
                                 .admission = random_.chance(0.5)};
  for (const HeldBlock& block : held.blocks) {
    request.items.push_back({.source = detail::share(block.hold), .at = Tier::Device});
  }
  say("offload %zu held blocks", request.items.size());
  start_and_forget(std::move(request), [](const auto&) {});
}

// A request whose answer is nobody's business but `ended`'s.
void World::start_and_forget(detail::RequestStarted request,
                             std::function<void(const std::vector<Result<ImmutableHold>>&)> ended) {
  const std::uint64_t ticket = next_ticket_++;
  ++requests_this_life_;
  requests_of_tickets_.emplace(ticket, 0);
  const RequestId id = tiers_->start(
      std::move(request), [this, ticket, ended](const std::vector<Result<ImmutableHold>>& moved) {
        requests_of_tickets_.erase(ticket);
        ended(moved);
      });
  if (const auto open = requests_of_tickets_.find(ticket); open != requests_of_tickets_.end()) {
    open->second = id;
  }
}

// A hint that a request is queued.
void World::prefetch() {
  const auto names = names_of(random_.below(scenario_.conversations), scenario_.longest,
                              static_cast<NamespaceId>(random_.below(2)));
  auto plan = find(names);
  if (!plan) return;
  detail::RequestStarted request{
      .kind = RequestKind::Stage, .items = {}, .deadline = some_deadline()};
  for (PlanSegment& segment : plan->segments) {
    if (segment.tier != Tier::Disk) continue;
    std::vector<ImmutableHold> blocks = detail::split(segment.run);
    blocks.resize(segment.count);
    for (ImmutableHold& block : blocks) {
      request.items.push_back({.source = std::move(block), .at = Tier::Disk});
    }
  }
  for (RequestItem& item : detail::remote_items(*plan)) request.items.push_back(std::move(item));
  say("prefetch %zu blocks", request.items.size());
  start_and_forget(std::move(request), [](const auto&) {});
}

// A scheduler that asks, and dies.
void World::abandon_plan() {
  const auto names = names_of(random_.below(scenario_.conversations), scenario_.longest, 0);
  auto plan = find(names);
  if (!plan) return;
  ++result_.faults[static_cast<std::size_t>(FaultKind::DeadClient)][kNoEdge];
  say("a plan of %zu blocks is abandoned", plan->size());
  tiers_->plans().add(std::move(*plan), now() + milliseconds(random_.below(50)));
}

}  // namespace kvbm::simulator
