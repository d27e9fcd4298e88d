// Operations on blocks that are registered: matches, holds, retention.
#include <algorithm>
#include <array>
#include <memory>

#include "block_store_world.h"

namespace kvbm::model {
namespace {

TimePoint at(std::int64_t clock) { return TimePoint(std::chrono::nanoseconds(clock)); }

}  // namespace

std::ostream& operator<<(std::ostream& out, const DrawnNames& drawn) {
  out << "namespace " << int{drawn.name_space} << " names";
  for (const SequenceHash hash : drawn.hashes) out << " " << hash.value();
  if (!drawn.digests.empty()) out << " digests";
  for (const std::uint64_t digest : drawn.digests) out << " " << digest;
  return out;
}

// --- matches ---------------------------------------------------------------------------------

void World::match(const Operation& op) {
  Slot& in = slot(op.a);
  const DrawnNames drawn = draw_names(op);
  say("match in store ", in.number, " ", drawn);
  auto blocks = detail::match(*in.store, drawn.names());
  const std::vector<BlockId> expected = in.oracle.match(drawn.names());
  if (!expect_equal("match: hits", blocks.size(), expected.size())) return;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expect_equal("match: the block", blocks[i].id(), expected[i]);
    immutables_.push_back({&in, std::move(blocks[i])});
  }
}

void World::match_run(const Operation& op) {
  Slot& in = slot(op.a);
  const DrawnNames drawn = draw_names(op);
  say("match_run in store ", in.number, " ", drawn);
  detail::RunHold run = detail::match_run(*in.store, drawn.names());
  const std::vector<BlockId> expected = in.oracle.match_run(drawn.names());
  if (!expect_equal("match_run: hits", run ? run.count() : 0, expected.size()) || !run) return;
  expect(detail::ids(run) == expected, "match_run: the blocks");
  runs_.push_back({&in, std::move(run), expected});
}

void World::scan(const Operation& op) {
  Slot& in = slot(op.a);
  const DrawnNames drawn = draw_names(op);
  say("scan in store ", in.number, " ", drawn);
  auto found = detail::scan(*in.store, drawn.names());
  const std::vector<BlockId> expected = in.oracle.scan(drawn.names());
  auto next = found.begin();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == kNoBlock) continue;
    if (!expect(next != found.end() && next->first == i, "scan: the positions")) return;
    expect_equal("scan: the block", next->second.id(), expected[i]);
    immutables_.push_back({&in, std::move(next->second)});
    ++next;
  }
  expect(next == found.end(), "scan: too many blocks");
}

void World::borrow(const Operation& op) {
  Slot& in = slot(op.a);
  const DrawnNames drawn = draw_names(op);
  if (drawn.hashes.empty()) return;
  const SequenceHash hash = drawn.hashes.back();
  const detail::BlockKey key{hash, drawn.digests.empty() ? hash.value() * 3 : drawn.digests.back(),
                             drawn.name_space};
  say("borrow ", hash.value(), " of store ", in.number);
  detail::ImmutableHold block = detail::borrow(*in.store, key);
  const BlockId expected = in.oracle.borrow(key);
  if (!expect_equal("borrow", block ? block.id() : kNoBlock, expected) || !block) return;
  borrowed_.push_back({&in, std::move(block)});
}

void World::give_back(const Operation& op) {
  if (borrowed_.empty()) return;
  std::swap(borrowed_[op.a % borrowed_.size()], borrowed_.back());
  Held<detail::ImmutableHold> held = std::move(borrowed_.back());
  borrowed_.pop_back();
  say("give back block ", held.hold.id(), " of store ", held.slot->number);
  held.slot->oracle.give_back(held.hold.id());
  detail::give_back(std::move(held.hold));
}

void World::touch(const Operation& op) {
  Slot& in = slot(op.a);
  const DrawnNames drawn = draw_names(op);
  say("touch in store ", in.number, " ", drawn);
  expect_equal("touch", in.store->touch(drawn.names()), in.oracle.touch(drawn.names()));
}

void World::contains(const Operation& op) {
  Slot& in = slot(op.a);
  const DrawnNames drawn = draw_names(op);
  say("contains in store ", in.number, " ", drawn);
  const std::size_t count = drawn.hashes.size();
  const auto present = std::make_unique<bool[]>(count);
  in.store->contains(drawn.names(), {present.get(), count});
  for (std::size_t i = 0; i < count; ++i) {
    const bool expected =
        drawn.digests.empty()
            ? in.oracle.contains(drawn.hashes[i], drawn.name_space)
            : in.oracle.contains(drawn.hashes[i], drawn.digests[i], drawn.name_space);
    expect_equal("contains", present[i], expected);
  }
}

// --- holds -----------------------------------------------------------------------------------

void World::share(const Operation& op) {
  if (immutables_.empty()) return;
  const auto& [slot, hold, ids] = immutables_[op.a % immutables_.size()];
  say("share block ", hold.id(), " of store ", slot->number);
  slot->oracle.hold(hold.id());
  Held<detail::ImmutableHold> another{slot, detail::share(hold)};
  immutables_.push_back(std::move(another));
}

void World::split(const Operation& op) {
  if (runs_.empty()) return;
  const auto& [slot, hold, ids] = runs_[op.a % runs_.size()];
  say("split the run to block ", hold.id(), " of store ", slot->number);
  auto blocks = detail::split(hold);
  if (!expect_equal("split: blocks", blocks.size(), ids.size())) return;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    expect_equal("split: the block", blocks[i].id(), ids[i]);
    slot->oracle.hold(ids[i]);
    immutables_.push_back({slot, std::move(blocks[i])});
  }
}

void World::downgrade(const Operation& op) {
  if (immutables_.empty()) return;
  const auto& [slot, hold, ids] = immutables_[op.a % immutables_.size()];
  say("remember block ", hold.id(), " of store ", slot->number);
  weaks_.push_back({slot, detail::downgrade(hold)});
  ++slot->weak;
}

void World::upgrade(const Operation& op) {
  if (weaks_.empty()) return;
  const auto& [slot, weak, ids] = weaks_[op.a % weaks_.size()];
  const DrawnNames drawn{{weak.key().hash}, {weak.key().digest}, weak.key().name_space};
  say("upgrade in store ", slot->number, " ", drawn);
  detail::ImmutableHold block = detail::upgrade(weak);
  const std::vector<BlockId> expected = slot->oracle.match(drawn.names());
  if (!expect_equal("upgrade", static_cast<bool>(block), !expected.empty()) || !block) return;
  expect_equal("upgrade: the block", block.id(), expected[0]);
  immutables_.push_back({slot, std::move(block)});
}

void World::forget_weak(const Operation& op) {
  if (weaks_.empty()) return;
  std::swap(weaks_[op.a % weaks_.size()], weaks_.back());
  say("drop a weak handle of store ", weaks_.back().slot->number);
  --weaks_.back().slot->weak;
  weaks_.pop_back();
}

void World::release_one(const Operation& op) {
  if (immutables_.empty()) return;
  std::swap(immutables_[op.a % immutables_.size()], immutables_.back());
  Slot& slot = *immutables_.back().slot;
  say("release block ", immutables_.back().hold.id(), " of store ", slot.number);
  slot.oracle.release(immutables_.back().hold.id());
  immutables_.pop_back();
}

void World::release_run(const Operation& op) {
  if (runs_.empty()) return;
  std::swap(runs_[op.a % runs_.size()], runs_.back());
  Slot& slot = *runs_.back().slot;
  say("release the run to block ", runs_.back().hold.id(), " of store ", slot.number);
  slot.oracle.release(runs_.back().hold.id());
  runs_.pop_back();
}

// Many at once, of several stores.
void World::release_many(const Operation& op) {
  std::vector<detail::ImmutableHold> holds;
  std::size_t count = op.b % 8 == 0 ? immutables_.size() : op.b % 8;
  count = std::min(count, immutables_.size());
  say("release together");
  for (; count > 0; --count) {
    std::swap(immutables_[op.a % immutables_.size()], immutables_.back());
    auto [slot, hold, ids] = std::move(immutables_.back());
    immutables_.pop_back();
    say(" block ", hold.id(), " of store ", slot->number);
    slot->oracle.release(hold.id());
    holds.push_back(std::move(hold));
  }
  detail::release_all(std::span(holds));
}

void World::release_unregistered(const Operation& op) {
  std::vector<detail::MutableHold> holds;
  say("release unregistered");
  while (!mutables_.empty() && holds.size() < op.b % 4) {
    auto [slot, hold, ids] = std::move(mutables_.back());
    mutables_.pop_back();
    say(" block ", hold.id(), " of store ", slot->number);
    slot->oracle.release(hold.id());
    holds.push_back(std::move(hold));
  }
  detail::release_all(std::span(holds));
  if (completes_.empty() || op.c % 2 == 0) return;
  say(" block ", completes_.back().hold.id(), " of store ", completes_.back().slot->number);
  completes_.back().slot->oracle.release(completes_.back().hold.id());
  completes_.pop_back();
}

void World::detach(const Operation& op) {
  if (immutables_.empty()) return;
  const auto& [slot, hold, ids] = immutables_[op.a % immutables_.size()];
  say("detach block ", hold.id(), " of store ", slot->number);
  slot->store->detach(hold.id());
  slot->oracle.detach(hold.id());
}

void World::reset(const Operation& op) {
  Slot& in = slot(op.a);
  say("reset store ", in.number);
  const ResetCounts counts = in.store->reset();
  const ResetCounts expected = in.oracle.reset();
  expect_equal("reset: evictable", counts.evictable, expected.evictable);
  expect_equal("reset: still held", counts.still_held, expected.still_held);
}

void World::reset_namespace(const Operation& op) {
  Slot& in = slot(op.a);
  const auto name_space = static_cast<NamespaceId>(op.b % 4);
  say("reset namespace ", int{name_space}, " of store ", in.number);
  const ResetCounts counts = in.store->reset(name_space);
  const ResetCounts expected = in.oracle.reset(name_space);
  expect_equal("reset of a namespace: evictable", counts.evictable, expected.evictable);
  expect_equal("reset of a namespace: still held", counts.still_held, expected.still_held);
}

// --- retention -------------------------------------------------------------------------------

std::pair<Slot*, BlockId> World::draw_held(std::uint32_t which) const {
  const std::size_t count = immutables_.size() + completes_.size() + mutables_.size();
  if (count == 0) return {nullptr, kNoBlock};
  std::size_t at = which % count;
  if (at < immutables_.size()) return {immutables_[at].slot, immutables_[at].hold.id()};
  at -= immutables_.size();
  if (at < completes_.size()) return {completes_[at].slot, completes_[at].hold.id()};
  at -= completes_.size();
  return {mutables_[at].slot, mutables_[at].hold.id()};
}

void World::retain(const Operation& op) {
  std::vector<BlockId> ids;
  Slot* slot = nullptr;
  if (!runs_.empty() && op.d % 2 == 0) {
    slot = runs_[op.a % runs_.size()].slot;
    ids = runs_[op.a % runs_.size()].ids;
  } else if (const auto [held_in, id] = draw_held(op.a); held_in) {
    slot = held_in;
    ids.push_back(id);
  }
  if (!slot) return;
  // Few priorities, so that blocks meet in a level.
  constexpr std::array<std::uint32_t, 8> kPriorities{0, 0, 34, 35, 35, 36, 100, 101};
  Retention retention{.priority = kPriorities[op.b % 8],
                      .until = std::nullopt,
                      .hint = static_cast<std::uint8_t>(op.c % 8)};
  if (op.d / 2 % 2 == 0 && !options_.is_calm) {
    retention.until = at(clock_ + static_cast<std::int64_t>(op.c % 32) - 3);
  }
  say("retain ", ids.size(), " blocks to ", ids.back(), " of store ", slot->number, " at ",
      retention.priority);
  if (retention.until) say(" until ", retention.until->time_since_epoch().count());
  const auto answer = slot->store->retain(ids, retention);
  expect_equal("retain", answer.has_value(), slot->oracle.retain(ids, retention));
  if (!answer) expect(answer.error().code == ErrorCode::InvalidConfig, "retain: the error");
}

void World::set_priority(const Operation& op) {
  const auto [slot, id] = draw_held(op.a);
  if (!slot) return;
  const std::uint32_t priority = op.b % 4 == 0 ? op.c % 102 : 34 + op.c % 3;
  say("set_priority of block ", id, " of store ", slot->number, " to ", priority);
  const auto answer = slot->store->set_priority(id, priority);
  expect_equal("set_priority", answer.has_value(), slot->oracle.set_priority(id, priority));
}

void World::protect(const Operation& op) {
  Slot& in = slot(op.a);
  const DrawnNames drawn = draw_names(op);
  say("protect in store ", in.number, " ", drawn);
  expect_equal("protect", in.store->protect(drawn.names()), in.oracle.protect(drawn.names()));
}

void World::lease(const Operation& op) {
  // A member of a run is pinned, not held.
  Slot* slot = nullptr;
  BlockId id = kNoBlock;
  if (!runs_.empty() && op.d % 2 == 0) {
    const auto& run = runs_[op.a % runs_.size()];
    slot = run.slot;
    id = run.ids[op.b % run.ids.size()];
  } else if (!immutables_.empty()) {
    slot = immutables_[op.a % immutables_.size()].slot;
    id = immutables_[op.a % immutables_.size()].hold.id();
  }
  if (!slot || !slot->owner) return;
  const TimePoint until = at(clock_ + static_cast<std::int64_t>(op.c % 32) - 3);
  say("lease block ", id, " of store ", slot->number, " until ", until.time_since_epoch().count());
  const auto lease = slot->store->lease(id, until);
  if (!expect_equal("lease", lease.has_value(), slot->oracle.can_lease(until))) return;
  if (!lease) {
    expect(lease.error().code == ErrorCode::InvalidConfig, "lease: the error");
    return;
  }
  slot->oracle.lease(*lease, id, until);
  leases_.emplace_back(slot, *lease);
}

void World::release_lease(const Operation& op) {
  if (leases_.empty()) return;
  std::swap(leases_[op.a % leases_.size()], leases_.back());
  const auto [slot, lease] = leases_.back();
  say("release lease ", lease, " of store ", slot->number);
  expect_equal("release_lease", slot->store->release_lease(lease),
               slot->oracle.release_lease(lease));
  if (op.b % 2 == 0) leases_.pop_back();  // else it is given back twice
}

void World::advance(const Operation& op) {
  Slot& in = slot(op.a);
  clock_ += op.b % 8;
  const std::int64_t now = op.c % 8 == 0 ? clock_ - 5 : clock_;
  say("advance store ", in.number, " to ", now);
  in.store->advance(at(now));
  const bool has_advanced = in.oracle.advance(at(now));
  if (has_advanced) expect_equal("wants_time", in.store->wants_time(), in.oracle.wants_time());
}

void World::copy_metadata(const Operation& op) {
  const auto [to, id] = draw_held(op.a);
  const auto [from, source] = draw_held(op.b);
  if (!to) return;
  say("copy the metadata of block ", source, " of store ", from->number, " to block ", id,
      " of store ", to->number);
  to->store->copy_metadata(id, *from->store, source);
  to->oracle.copy_metadata(id, from->oracle, source);
}

}  // namespace kvbm::model
