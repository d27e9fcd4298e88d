#include "simulator/world.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <utility>

namespace kvbm::simulator {

using detail::Plan;
using detail::RequestId;
using std::chrono::microseconds;
using std::chrono::milliseconds;

namespace {

OffloadPolicy draw_policy(Random& random) {
  constexpr OffloadMode kModes[] = {OffloadMode::WriteThrough, OffloadMode::WriteThrough,
                                    OffloadMode::OnEviction, OffloadMode::Selective};
  constexpr AdmissionRule kRules[] = {AdmissionRule::All, AdmissionRule::All, AdmissionRule::All,
                                      AdmissionRule::SecondUse, AdmissionRule::WorthMore};
  OffloadPolicy policy{.mode = random.pick(kModes), .admission = {.rule = random.pick(kRules)}};
  if (random.chance(0.1))
    policy.admission.min_priority = 30 + static_cast<std::uint32_t>(random.below(10));
  if (random.chance(0.1)) policy.admission.bytes_per_second = 1 + random.below(4096);
  return policy;
}

EvictionPolicy draw_eviction(Random& random) {
  constexpr EvictionPolicy kPolicies[] = {EvictionPolicy::Lru, EvictionPolicy::Lru,
                                          EvictionPolicy::AgeIndex, EvictionPolicy::Fifo};
  return random.pick(kPolicies);
}

detail::EngineOptions draw_engine(Random& random) {
  detail::EngineOptions options{.blocks_per_transfer = random.between(1, 6),
                                .onboards_in_flight = random.between(1, 4),
                                .offloads_in_flight = random.between(1, 4),
                                .offload_queue_blocks = random.between(1, 40),
                                .device_offload = draw_policy(random),
                                .host_offload = draw_policy(random)};
  if (random.chance(0.2)) options.request_queue_blocks = random.between(4, 40);
  if (random.chance(0.1)) options.disk_bytes_per_day = 1 + random.below(1 << 20);
  options.host_is_transit = random.chance(0.1);
  options.deterministic = random.chance(0.3);
  return options;
}

// Around the rate at which loading over one of the paths is as fast as computing.
double draw_prefill_rate(Random& random, const VirtualConfig& tiers) {
  constexpr Edge kEdges[] = {Edge::DiskToHost, Edge::HostToDevice, Edge::PeerToHost};
  const Edge edge = random.pick(kEdges);
  const EdgeSpeed& speed = tiers.speeds[static_cast<std::size_t>(edge)];
  const double bytes = static_cast<double>(tiers.layers * kOuterDim * tiers.region_bytes);
  const double seconds = std::chrono::duration<double>(speed.latency).count() +
                         (speed.bytes_per_second > 0 ? bytes / speed.bytes_per_second : 0);
  return kPageSize / std::max(seconds, 1e-6) * std::pow(4, 2 * random.fraction() - 0.5);
}

}  // namespace

Scenario draw_scenario(Random& random) {
  Scenario scenario;
  VirtualConfig& tiers = scenario.tiers;
  tiers.external_device = random.chance(0.25);
  tiers.device_blocks = random.between(6, 32);
  tiers.host_blocks = random.between(3, 48);
  tiers.disk_blocks = random.chance(0.9) ? random.between(4, 64) : 0;
  tiers.layers = random.between(1, 4);
  tiers.region_bytes = 4 * random.between(1, 6);
  tiers.device_policy = draw_eviction(random);
  tiers.host_policy = draw_eviction(random);
  tiers.disk_policy = draw_eviction(random);
  tiers.engine = draw_engine(random);
  for (EdgeSpeed& speed : tiers.speeds) {
    speed.latency = microseconds(random.below(2000));
    speed.bytes_per_second =
        random.chance(0.2) ? 0 : 1e4 * static_cast<double>(1 + random.below(100));
  }
  if (random.chance(0.8)) tiers.files.emplace();
  scenario.tends_disk = random.chance(0.5);
  scenario.copy_fault_rate = random.chance(0.15) ? 0 : random.fraction() * 0.4;
  if (random.chance(0.5)) scenario.prefill_rate = draw_prefill_rate(random, tiers);
  if (random.chance(0.5)) scenario.peer_blocks = random.between(2, 48);
  scenario.conversations = random.between(1, 6);
  scenario.longest = random.between(1, 12);
  scenario.shared_prefix = random.below(scenario.longest + 1);
  scenario.requests = random.between(50, 70);
  return scenario;
}

World::World(std::uint64_t seed, Trace trace)
    : seed_(seed), trace_(std::move(trace)), random_(seed), scenario_(draw_scenario(random_)) {
  scenario_.tiers.events = events_;
}

void World::say(const char* format, ...) {
  if (!trace_) return;
  std::array<char, 512> text;
  const TimePoint time = tiers_ ? now() : scenario_.tiers.start;
  const int stamp = std::snprintf(text.data(), text.size(), "%12.6f  ",
                                  std::chrono::duration<double>(time.time_since_epoch()).count());
  va_list arguments;
  va_start(arguments, format);
  const std::span rest = std::span(text).subspan(static_cast<std::size_t>(stamp));
  std::vsnprintf(rest.data(), rest.size(), format, arguments);
  va_end(arguments);
  trace_(text.data());
}

void World::found(std::string what) {
  say("FINDING: %s", what.c_str());
  result_.findings.push_back(std::move(what));
}

void World::start_peer() {
  if (scenario_.peer_blocks == 0) return;
  auto peer = VirtualPeer::create(shape_of(scenario_.tiers, Tier::Host, scenario_.peer_blocks));
  if (!peer) return found("the peer cannot be made: " + peer.error().to_string());
  scenario_.tiers.peer = std::move(*peer);
}

void World::start_tiers() {
  VirtualConfig config = scenario_.tiers;
  if (tiers_) config.start = now();
  auto made = VirtualTiers::create(config);
  if (!made) return found("the tiers cannot be made: " + made.error().to_string());
  tiers_ = std::move(*made);
  tiers_->set_faults(
      [this](const detail::StartTransfer& transfer) { return make_fault(transfer); });
  externals_.assign(scenario_.tiers.external_device ? scenario_.tiers.device_blocks : 0, {});
  requests_this_life_ = 0;
}

ScheduleResult World::run() {
  say("seed %llu: %zu device%s, %zu host%s, %zu disk, %zu peer's blocks, %zu layers, faults %.2f",
      static_cast<unsigned long long>(seed_), scenario_.tiers.device_blocks,
      scenario_.tiers.external_device ? " (external)" : "", scenario_.tiers.host_blocks,
      scenario_.tiers.engine.host_is_transit ? " (transit)" : "", scenario_.tiers.disk_blocks,
      scenario_.peer_blocks, scenario_.tiers.layers, scenario_.copy_fault_rate);
  start_peer();
  start_tiers();
  if (!result_.findings.empty()) return std::move(result_);
  while (result_.requests < scenario_.requests && result_.findings.empty()) {
    act();
    // Some time goes by, and what is due happens.
    const TimePoint until = now() + microseconds(random_.below(3000));
    while (tiers_->advance(until)) {
    }
    drop_held(false);
    if (random_.chance(0.1)) tiers_->check_invariants();
  }
  if (result_.findings.empty()) settle();
  add_counts();
  return std::move(result_);
}

void World::act() {
  const std::size_t action = random_.below(100);
  if (action < 47) return prefill();
  if (action < 50) return peer_acts();
  if (action < 56) return prefetch();
  if (action < 62) return offload_held();
  if (action < 66) return abandon_plan();
  if (action < 72) return cancel_some();
  if (action < 75) return reset_some();
  if (action < 77) return crash();
  if (action < 82) return retain_some();
  if (action < 84) return drop_held(true);
  if (action < 90) {
    events_->consume();
    return;
  }
  if (action < 93) {
    disk_full_until_ = now() + milliseconds(random_.below(20));
    return;
  }
  if (scenario_.tends_disk && pools_have_store()) pool(Tier::Disk).disk()->tend();
  if (events_->waiting() > 100)
    ++result_.faults[static_cast<std::size_t>(FaultKind::SlowConsumer)][kNoEdge];
  check_externals();
}

bool World::pools_have_store() const {
  return tiers_->pool(Tier::Disk) && tiers_->pool(Tier::Disk)->disk();
}

// --- faults ----------------------------------------------------------------------------------

TransferFault World::make_fault(const detail::StartTransfer& transfer) {
  if (trace_) {
    std::string blocks;
    for (const BlockCopy& copy : transfer.blocks) {
      blocks += " " + std::to_string(copy.source) + ">" + std::to_string(copy.target);
    }
    const std::string part = transfer.step == TransferStep::Verify ? " (verify)"
                             : transfer.layer ? " (layer " + std::to_string(*transfer.layer) + ")"
                                              : "";
    say("transfer %llu %s%s:%s", static_cast<unsigned long long>(transfer.id),
        to_string(transfer.edge), part.c_str(), blocks.c_str());
  }
  TransferFault fault;
  const auto edge = static_cast<std::size_t>(transfer.edge);
  const auto note = [&](FaultKind kind) { ++result_.faults[static_cast<std::size_t>(kind)][edge]; };
  const auto all = [&](FaultKind kind) {
    fault.blocks.assign(transfer.blocks.size(), {kind, 0});
    note(kind);
  };
  if (transfer.edge == Edge::HostToDisk && now() < disk_full_until_) {
    all(FaultKind::Error);
    note(FaultKind::DiskFull);
    return fault;
  }
  if (!random_.chance(scenario_.copy_fault_rate)) return fault;
  constexpr FaultKind kKinds[] = {FaultKind::Error, FaultKind::Short,      FaultKind::Late,
                                  FaultKind::Never, FaultKind::WrongBytes, FaultKind::WrongBytes};
  const FaultKind kind = random_.pick(kKinds);
  if (kind == FaultKind::Late) {
    fault.delay = milliseconds(random_.below(100));
    note(kind);
  } else if (kind == FaultKind::Never) {
    fault.never = true;
    note(kind);
  } else {
    // Layers that were verified are copied as they are: nothing tells that a bit goes bad between.
    const bool unseen = kind == FaultKind::WrongBytes && transfer.layer.has_value();
    fault.blocks.resize(transfer.blocks.size());
    BlockFault& one = fault.blocks[random_.below(transfer.blocks.size())];
    one = {unseen ? FaultKind::Error : kind, random_.next() >> 8};
    note(*one.kind);
  }
  say("fault %s in transfer %llu (%s)", to_string(kind),
      static_cast<unsigned long long>(transfer.id), to_string(transfer.edge));
  return fault;
}

void World::count_everywhere(FaultKind kind) {
  for (const Edge edge : tiers_->moving()) {
    ++result_.faults[static_cast<std::size_t>(kind)][static_cast<std::size_t>(edge)];
  }
}

void World::cancel_some() {
  if (requests_of_tickets_.empty()) return;
  auto ticket = requests_of_tickets_.begin();
  std::advance(ticket, static_cast<std::ptrdiff_t>(random_.below(requests_of_tickets_.size())));
  say("cancel request %llu", static_cast<unsigned long long>(ticket->second));
  count_everywhere(FaultKind::Cancel);
  if (const auto pending = pending_.find(ticket->first); pending != pending_.end()) {
    pending->second.cancelled = true;
  }
  tiers_->cancel(ticket->second);
}

void World::reset_some() {
  count_everywhere(FaultKind::Reset);
  const std::size_t what = random_.below(4);
  const auto reset = [this](std::optional<Tier> tier, std::optional<NamespaceId> space) {
    for (const Tier each : {Tier::Device, Tier::Host, Tier::Disk}) {
      detail::TierPool* const one = tiers_->pool(each);
      if (!one || (tier && *tier != each)) continue;
      if (each == Tier::Disk && !one->forget_for_good(space)) found("a reset fails");
    }
    for (const Tier each : {Tier::Device, Tier::Host, Tier::Disk}) {
      detail::TierPool* const one = tiers_->pool(each);
      if (one && (!tier || *tier == each)) one->reset(space);
    }
  };
  if (what == 0) {
    say("reset");
    reset(std::nullopt, std::nullopt);
    if (scenario_.tiers.peer) scenario_.tiers.peer->forget(std::nullopt);
    for (std::uint32_t& generation : generations_) ++generation;
  } else if (what == 1) {
    const auto space = static_cast<NamespaceId>(random_.below(2));
    say("reset of namespace %d", space);
    reset(std::nullopt, space);
    if (scenario_.tiers.peer) scenario_.tiers.peer->forget(space);
    ++generations_[space];
  } else {
    constexpr Tier kTiers[] = {Tier::Device, Tier::Host, Tier::Disk};
    const Tier tier = random_.pick(kTiers);
    say("reset of %s", to_string(tier));
    reset(tier, std::nullopt);
  }
}

void World::crash() {
  say("crash");
  count_everywhere(FaultKind::Crash);
  add_counts();
  held_.clear();
  pending_.clear();
  requests_of_tickets_.clear();
  events_->forget();
  auto old = std::move(tiers_);
  scenario_.tiers.start = old->now();
  old.reset();
  start_tiers();
}

// Another worker computes, or dies and comes back.
void World::peer_acts() {
  VirtualPeer* const peer = scenario_.tiers.peer.get();
  if (!peer) return;
  if (random_.chance(0.1)) {
    say("the peer restarts");
    return peer->restart();
  }
  const auto space = static_cast<NamespaceId>(random_.below(2));
  const auto names = names_of(random_.below(scenario_.conversations), scenario_.longest, space);
  say("the peer computes %zu blocks", names.size());
  for (const Name& name : names) {
    peer->store(name.identity, random_,
                [&name](const Layout& layout, BlockId id) { fill(layout, id, name); });
  }
}

// --- what nobody asked for -------------------------------------------------------------------

void World::retain_some() {
  for (HeldBlocks& held : held_) {
    if (held.blocks.empty() || !random_.chance(0.3)) continue;
    const detail::ImmutableHold& hold = held.blocks[random_.below(held.blocks.size())].hold;
    const BlockId id = hold.id();
    BlockStore& store = *hold.store();
    store.advance(now());
    if (random_.chance(0.5)) {
      const auto priority = static_cast<std::uint32_t>(random_.below(MAX_PRIORITY + 1));
      if (!store.retain(std::span(&id, 1), {.priority = priority})) found("a priority is refused");
    } else if (!store.lease(id, now() + milliseconds(1 + random_.below(10)))) {
      found("a lease is refused");
    }
  }
}

void World::drop_held(bool all) {
  std::erase_if(held_, [&](HeldBlocks& held) {
    if (!all && held.until > now()) return false;
    for (const HeldBlock& block : held.blocks) {
      check_block(Tier::Device, block.hold.id(), block.name, "held");
    }
    return true;
  });
}

// The end of a schedule: nothing is started any more, what hangs comes back, and all must be as if
// nothing had happened.
void World::settle() {
  say("the end");
  drop_held(true);
  for (int i = 0; i < 1000 && !requests_of_tickets_.empty(); ++i) {
    tiers_->advance(now() + milliseconds(10));
  }
  if (!requests_of_tickets_.empty()) found("a request has not ended by its deadline");
  // Ends of what hung may begin other copies, which may hang.
  for (int i = 0; i < 1000 && (!tiers_->engine().idle() || !held_.empty()); ++i) {
    tiers_->end_hanging();
    tiers_->drain();
    drop_held(true);
  }
  check_end();
}

void World::add_counts() {
  if (!tiers_) return;
  check_counters();
  const detail::TransitionCounts& reached = tiers_->engine().reached();
  for (std::size_t i = 0; i < reached.size(); ++i) result_.reached[i] += reached[i];
}

ScheduleResult run_schedule(std::uint64_t seed, Trace trace) {
  return World(seed, std::move(trace)).run();
}

}  // namespace kvbm::simulator
