// Stores, names, blocks on their way to registration, and what is compared after every operation.
#include "block_store_world.h"

#include <algorithm>
#include <array>
#include <tuple>

namespace kvbm::model {
namespace {

constexpr std::uint32_t kNamespaces = 3;

}  // namespace

World::World(const HistoryOptions& options, std::ostream* spelling)
    : options_(options), spelling_(spelling) {
  for (std::size_t i = 0; i < options.stores; ++i) {
    open_.emplace_back();
    open(i, static_cast<std::uint32_t>(options.seed >> (8 * i)));
  }
}

// --- stores ----------------------------------------------------------------------------------

void World::open(std::size_t at, std::uint32_t variant) {
  BlockStoreOptions options{.capacity =
                                at == 0 ? options_.blocks : 1 + variant / 4 % options_.blocks};
  options.start_empty = variant % 8 == 7;
  options.duplicates = variant % 2 == 0 ? BlockRegistrationDuplicationSetting::Disabled
                                        : BlockRegistrationDuplicationSetting::Allowed;
  open(at, options);
}

void World::open(std::size_t at, const BlockStoreOptions& drawn) {
  BlockStoreOptions options = drawn;
  options.policy = options_.policy;
  auto backing = std::make_shared<int>(0);
  const std::weak_ptr<void> watched = backing;
  BlockStore::Owner owner = BlockStore::create(options, std::move(backing)).value();
  BlockStore* store = owner.get();
  open_[at] = std::make_unique<Slot>(
      Slot{next_number_++, std::move(owner), store, Oracle(options, options_.mistake), watched});
  say("store ", open_[at]->number, " of ", options.capacity, " blocks",
      options.start_empty ? ", empty" : "",
      options.duplicates == BlockRegistrationDuplicationSetting::Allowed ? ", duplicates allowed"
                                                                         : "",
      "; ");
}

// Another one must be opened in its place.
void World::retire(std::size_t at) {
  say("close store ", open_[at]->number, "; ");
  open_[at]->oracle.close();
  open_[at]->owner.reset();
  closed_.push_back(std::move(open_[at]));
}

void World::close(const Operation& op) {
  const std::size_t at = op.a % open_.size();
  retire(at);
  open(at, op.b);
  collect_closed();
}

// What can be matched is restored in a new store, in other places, next to what was lost or must be
// refused. Its holds go like any others.
void World::restart(const Operation& op) {
  const std::size_t at = op.a % open_.size();
  std::vector<RestoredBlock> blocks = open_[at]->oracle.survivors();
  const auto capacity = static_cast<std::uint32_t>(open_[at]->store->capacity());
  retire(at);
  open(at, {.capacity = capacity, .start_empty = true});
  Slot& to = *open_[at];
  for (RestoredBlock& block : blocks) {
    block.id = (block.id + op.b) % capacity;
    const std::uint32_t guess = op.c % 4;  // none, a wrong one, right ones
    if (guess == 0) block.parent_guess = kNoBlock;
    if (guess > 0 && block.parent_guess != kNoBlock) {
      block.parent_guess = (block.parent_guess + op.b + (guess == 1 ? 1 : 0)) % capacity;
    }
  }
  if (op.d % 4 == 0 && !blocks.empty()) {  // one name twice, once with another digest
    blocks.back().identity = blocks.front().identity;
    blocks.back().identity.digest += op.d / 4 % 2;
  }
  if (op.d % 8 > 4 && !blocks.empty()) blocks.erase(blocks.begin());
  say("restore ", blocks.size(), " blocks");
  to.store->restore(blocks);
  to.store->check_invariants();
  expect(to.store->finish_restore() == to.oracle.restore(blocks), "restore: what is refused");
  for (BlockId id = 0; id < capacity; ++id) {
    if (to.oracle.is_held(id)) immutables_.push_back({&to, detail::ImmutableHold(to.store, id)});
  }
}

// A closed store lives exactly as long as something refers to it.
void World::collect_closed() {
  for (std::size_t i = 0; i < closed_.size();) {
    Slot& slot = *closed_[i];
    const bool is_used = slot.oracle.is_any_held() || slot.weak > 0;
    if (!expect_equal("a closed store lives", !slot.backing.expired(), is_used)) return;
    if (is_used) {
      ++i;
      continue;
    }
    std::erase_if(leases_, [&](const auto& lease) { return lease.first == &slot; });
    closed_.erase(closed_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void World::add_blocks(const Operation& op) {
  Slot& to = slot(op.a);
  std::vector<BlockId> ids;
  // Once in a while one that does not exist.
  const auto ids_drawn = static_cast<std::uint32_t>(to.store->capacity()) + (op.d % 4 == 0 ? 1 : 0);
  for (std::uint32_t i = 0; i < op.b % 4; ++i) ids.push_back((op.c + i * op.d) % ids_drawn);
  say("add ", ids.size(), " blocks from ", ids.empty() ? 0 : ids[0], " to store ", to.number);
  const auto added = to.store->add_blocks(ids);
  expect_equal("add_blocks", added.has_value(), to.oracle.add_blocks(ids));
}

// --- names -----------------------------------------------------------------------------------

// Conversation c shares its first c blocks with conversation 0.
SequenceHash World::name(std::uint32_t conversation, std::uint32_t position) const {
  if (position < conversation) conversation = 0;
  return SequenceHash((std::uint64_t{conversation} << 32) + position + 1);
}

BlockIdentity World::draw_identity(std::uint32_t conversation, std::uint32_t position,
                                   std::uint32_t variant) const {
  BlockIdentity identity{.sequence_hash = name(conversation, position),
                         .parent_hash = SequenceHash(),
                         .position = position,
                         .token_count = 16};
  if (position > 0) identity.parent_hash = name(conversation, position - 1);
  identity.digest = identity.sequence_hash.value() * 3;
  identity.name_space = static_cast<NamespaceId>(variant % 16 < 12 ? 0 : variant % kNamespaces);
  variant /= 16;
  // What only crafted names do.
  if (variant % 16 == 0) ++identity.digest;
  if (variant % 16 == 1) identity.parent_hash = name(conversation + 1, position);
  if (variant % 32 == 2) identity.position += 1;
  if (variant % 32 == 3) identity.forgotten = true;
  return identity;
}

DrawnNames World::draw_names(const Operation& op) const {
  DrawnNames drawn;
  drawn.name_space = static_cast<NamespaceId>(op.d % 16 < 12 ? 0 : op.d % kNamespaces);
  const std::uint32_t first = op.d / 16 % 4 == 0 ? op.d / 64 % options_.length : 0;
  const std::uint32_t end = std::min(options_.length, first + 1 + op.c % options_.length);
  const std::uint32_t digests = op.d / 256 % 4;  // none, none, right ones, a wrong one
  for (std::uint32_t i = first; i < end; ++i) {
    drawn.hashes.push_back(name(op.b % options_.conversations, i));
    if (digests >= 2) drawn.digests.push_back(drawn.hashes.back().value() * 3);
  }
  if (digests == 3) ++drawn.digests[op.d / 1024 % drawn.digests.size()];
  return drawn;
}

// --- from free to registered -----------------------------------------------------------------

void World::allocate(Slot& slot, std::size_t count, bool report) {
  std::vector<SequenceHash> evicted;
  auto blocks = detail::allocate(*slot.store, count, report ? &evicted : nullptr);
  const std::size_t available = slot.oracle.available();
  if (!expect_equal("allocate", blocks.has_value(), count <= available)) return;
  if (!blocks) {
    expect(blocks.error().code == ErrorCode::NotEnoughBlocksAvailable, "allocate: the error");
    expect_equal("allocate: requested", blocks.error().requested, count);
    expect_equal("allocate: available", blocks.error().available, available);
    return;
  }
  std::vector<BlockId> ids;
  for (const auto& block : *blocks) ids.push_back(block.id());
  say(" ->");
  for (const BlockId id : ids) say(" ", id);
  std::vector<SequenceHash> expected;
  if (const auto wrong = slot.oracle.allocate(ids, expected)) expect(false, wrong->c_str());
  if (report) expect(evicted == expected, "allocate: the reported names");
  for (auto& block : *blocks) mutables_.push_back({&slot, std::move(block)});
}

void World::allocate(const Operation& op) {
  Slot& from = slot(op.a);
  const std::size_t count =
      op.c % 64 == 0 ? op.b : op.b % (2 + std::min<std::size_t>(6, from.store->capacity()));
  say("allocate ", count, " in store ", from.number);
  allocate(from, count, op.d % 2 == 0);
}

void World::name_block(Slot& slot, detail::MutableHold block, const BlockIdentity& identity) {
  slot.oracle.complete(block.id(), identity);
  completes_.push_back({&slot, detail::complete(std::move(block), identity)});
}

void World::complete(const Operation& op) {
  if (mutables_.empty()) return;
  std::swap(mutables_[op.a % mutables_.size()], mutables_.back());
  auto [slot, hold, ids] = std::move(mutables_.back());
  mutables_.pop_back();
  const BlockIdentity identity =
      draw_identity(op.b % options_.conversations, op.c % options_.length, op.d);
  say("complete block ", hold.id(), " of store ", slot->number, " as ",
      identity.sequence_hash.value());
  name_block(*slot, std::move(hold), identity);
}

void World::rename(const Operation& op) {
  if (completes_.empty()) return;
  const auto& [slot, hold, ids] = completes_[op.a % completes_.size()];
  const BlockIdentity identity =
      draw_identity(op.b % options_.conversations, op.c % options_.length, op.d);
  say("rename block ", hold.id(), " of store ", slot->number, " to ",
      identity.sequence_hash.value());
  slot->store->complete(hold.id(), identity);
  slot->oracle.complete(hold.id(), identity);
}

void World::uncomplete(const Operation& op) {
  if (completes_.empty()) return;
  std::swap(completes_[op.a % completes_.size()], completes_.back());
  auto [slot, hold, ids] = std::move(completes_.back());
  completes_.pop_back();
  say("uncomplete block ", hold.id(), " of store ", slot->number);
  slot->store->uncomplete(hold.id());
  slot->oracle.uncomplete(hold.id());
  expect(!slot->store->is_complete(hold.id()), "uncomplete: is_complete()");
  BlockStore* const store = hold.store();
  mutables_.push_back({slot, detail::MutableHold(store, hold.disown())});
}

void World::register_blocks(Slot& slot, std::vector<detail::CompleteHold> blocks) {
  std::vector<BlockId> ids;
  for (const auto& block : blocks) ids.push_back(block.id());
  auto registered = detail::register_blocks(*slot.store, std::move(blocks));
  if (!expect(registered.has_value(), "register_blocks: refused")) return;
  const std::vector<BlockId> expected = slot.oracle.register_blocks(ids);
  for (std::size_t i = 0; i < registered->size(); ++i) {
    say(" ", expected[i]);
    expect_equal("register_blocks: the block", (*registered)[i].id(), expected[i]);
    immutables_.push_back({&slot, std::move((*registered)[i])});
  }
}

void World::register_some(const Operation& op) {
  Slot& to = slot(op.a);
  std::vector<detail::CompleteHold> blocks;
  for (std::size_t i = completes_.size(); i > 0 && blocks.size() < 1 + op.b % 4; --i) {
    if (completes_[i - 1].slot != &to) continue;
    blocks.push_back(std::move(completes_[i - 1].hold));
    completes_.erase(completes_.begin() + static_cast<std::ptrdiff_t>(i - 1));
  }
  say("register in store ", to.number, " as");
  register_blocks(to, std::move(blocks));
}

// Refused: a block that has no name, or one of another store; in the latter case all are freed.
void World::register_wrong(const Operation& op) {
  Slot& to = slot(op.a);
  if (op.b % 2 == 0) {
    if (mutables_.empty()) return;
    const auto& [slot, hold, unused] = mutables_[op.c % mutables_.size()];
    std::array<BlockId, 1> ids{hold.id()};
    say("register the unnamed block ", ids[0], " of store ", slot->number);
    const auto answer = slot->store->register_blocks(ids);
    expect(!answer && answer.error().code == ErrorCode::BlockNotComplete, "register: unnamed");
    return;
  }
  if (completes_.empty() || completes_.back().slot == &to) return;
  say("register block ", completes_.back().hold.id(), " of another store in store ", to.number);
  std::vector<detail::CompleteHold> blocks;
  completes_.back().slot->oracle.release(completes_.back().hold.id());
  blocks.push_back(std::move(completes_.back().hold));
  completes_.pop_back();
  const auto answer = detail::register_blocks(*to.store, std::move(blocks));
  expect(!answer && answer.error().code == ErrorCode::InvalidMutableBlock, "register: foreign");
}

// What engines do most: a chain is looked up, what is missing is filled and registered, and all is
// given back.
void World::grow(const Operation& op) {
  Slot& to = slot(op.a);
  const std::uint32_t conversation = op.b % options_.conversations;
  const std::uint32_t length = 1 + op.c % options_.length;
  DrawnNames wanted;
  for (std::uint32_t i = 0; i < length; ++i) wanted.hashes.push_back(name(conversation, i));
  say("grow conversation ", conversation, " to ", length, " blocks in store ", to.number, ":");
  auto found = detail::match_run(*to.store, wanted.names());
  const std::vector<BlockId> expected = to.oracle.match_run(wanted.names());
  if (!expect_equal("grow: hits", found ? found.count() : 0, expected.size())) return;
  const auto hits = static_cast<std::uint32_t>(expected.size());
  if (found) runs_.push_back({&to, std::move(found), expected});

  const std::size_t before = mutables_.size();
  allocate(to, length - hits, true);
  if (mutables_.size() > before && !failure_) {
    std::vector<detail::CompleteHold> blocks;
    for (std::uint32_t i = 0; i < length - hits; ++i) {
      const BlockIdentity identity = draw_identity(conversation, hits + i, 16 * 4);
      auto& block = mutables_[before + i].hold;
      to.oracle.complete(block.id(), identity);
      blocks.push_back(detail::complete(std::move(block), identity));
    }
    mutables_.resize(before);
    say(" as");
    const std::size_t others = immutables_.size();
    register_blocks(to, std::move(blocks));
    if (op.d % 4 != 0) {
      say(", drop");
      for (std::size_t i = others; i < immutables_.size(); ++i) {
        to.oracle.release(immutables_[i].hold.id());
      }
      immutables_.resize(others);
    }
  }
  if (hits > 0 && op.d % 4 != 1) {
    to.oracle.release(runs_.back().hold.id());
    runs_.pop_back();
  }
}

// --- comparison ------------------------------------------------------------------------------

void World::check_invariants() const {
  for (const auto& slot : open_) slot->store->check_invariants();
  for (const auto& slot : closed_) slot->store->check_invariants();
}

void World::compare_stats(Slot& slot) {
  const BlockStoreStats store = slot.store->stats();
  const BlockStoreStats oracle = slot.oracle.stats();
  expect_equal("total", store.total, oracle.total);
  expect_equal("available", store.available, oracle.available);
  expect_equal("free", store.free, oracle.free);
  expect_equal("registered", store.registered, oracle.registered);
  expect_equal("allocations", store.allocations, oracle.allocations);
  expect_equal("registrations", store.registrations, oracle.registrations);
  expect_equal("duplicates", store.duplicates, oracle.duplicates);
  expect_equal("collisions", store.collisions, oracle.collisions);
  expect_equal("matches", store.matches, oracle.matches);
  expect_equal("evictions", store.evictions, oracle.evictions);
  expect_equal("detached", store.detached, oracle.detached);
  // It may still say so, until the next advance(), when what had an end is gone.
  expect(slot.store->wants_time() || !slot.oracle.wants_time(), "the store wants no time");
}

void World::compare_identity(const Slot& slot, BlockId id) {
  const BlockIdentity store = slot.store->identity(id);
  const BlockIdentity oracle = slot.oracle.identity(id);
  expect_equal("identity: name", store.sequence_hash.value(), oracle.sequence_hash.value());
  expect_equal("identity: parent", store.parent_hash.value(), oracle.parent_hash.value());
  expect_equal("identity: position", store.position, oracle.position);
  expect_equal("identity: tokens", store.token_count, oracle.token_count);
  expect_equal("identity: digest", store.digest, oracle.digest);
  expect_equal("identity: namespace", int{store.name_space}, int{oracle.name_space});
  expect_equal("identity: epoch", store.epoch, oracle.epoch);
  expect_equal("identity: forgotten", store.forgotten, oracle.forgotten);
}

void World::audit_handles() {
  const auto compare_priority = [this](const Slot& slot, BlockId id) {
    const std::uint32_t priority = slot.store->basic_metadata(id).priority;
    expect_equal("priority", priority, slot.oracle.priority(id));
    expect_equal("offload_priority", *slot.store->offload_priority(id), priority);
  };
  for (const auto& [slot, hold, ids] : mutables_) compare_priority(*slot, hold.id());
  for (const auto& [slot, hold, ids] : completes_) {
    compare_priority(*slot, hold.id());
    compare_identity(*slot, hold.id());
    expect(slot->store->is_complete(hold.id()), "is_complete() of a complete block");
  }
  for (const auto& [slot, hold, ids] : immutables_) {
    compare_priority(*slot, hold.id());
    compare_identity(*slot, hold.id());
  }
  for (const auto& [slot, hold, ids] : runs_) {
    expect(detail::ids(hold) == ids, "the ids of a run changed");
    for (const BlockId id : ids) compare_identity(*slot, id);
  }
}

void World::audit_names(Slot& slot) {
  for (std::uint32_t space = 0; space < kNamespaces; ++space) {
    const auto id = static_cast<NamespaceId>(space);
    for (std::uint32_t c = 0; c < options_.conversations; ++c) {
      for (std::uint32_t p = c; p < options_.length; ++p) {
        const SequenceHash hash = name(c, p);
        if (slot.store->contains(hash, id) == slot.oracle.contains(hash, id)) continue;
        expect_equal("presence of a name", !slot.oracle.contains(hash, id),
                     slot.oracle.contains(hash, id));
      }
    }
  }
}

// Later paths were returned in later ticks, and in a path no child after its parent.
void World::audit_ticks(Slot& slot) {
  std::vector<std::tuple<std::uint64_t, std::size_t, std::uint64_t>> returned;
  for (const auto& held : immutables_) {
    if (held.slot != &slot) continue;
    const auto [path, above] = slot.oracle.released_at(held.hold.id());
    if (path == 0) continue;
    returned.emplace_back(path, above, slot.store->basic_metadata(held.hold.id()).returned_tick);
  }
  std::sort(returned.begin(), returned.end());
  for (std::size_t i = 1; i < returned.size(); ++i) {
    const auto [path, above, tick] = returned[i];
    const auto [path_before, above_before, tick_before] = returned[i - 1];
    expect(path == path_before ? tick >= tick_before : tick > tick_before,
           "a later path was returned in an earlier tick");
  }
}

void World::audit(bool everything) {
  for (const auto& slot : open_) compare_stats(*slot);
  for (const auto& slot : closed_) compare_stats(*slot);
  if (!everything) return;
  audit_handles();
  for (const auto& slot : open_) {
    audit_names(*slot);
    audit_ticks(*slot);
  }
}

}  // namespace kvbm::model
