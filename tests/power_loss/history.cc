#include "history.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <utility>

#include "store/check.h"
#include "store/payload.h"

namespace kvbm::power_loss {
namespace {

using store::DiskStore;
using store::Slot;
using store::SlotRecord;

// Two pages, the second one not whole.
const std::vector<std::uint32_t> kRegions = {4096, 1000, 2000};
constexpr std::uint32_t kPageSize = 16;
constexpr std::uint32_t kSlots[] = {20, 33, 70};  // the last one's index is larger than a page
constexpr std::uint32_t kNames = 40;
constexpr std::uint32_t kNamespaces = 3;
constexpr double kLossAtAnInstant = 0.1;
constexpr double kEndWhileWorking = 0.01;
constexpr double kEndWhileOpening = 0.05;  // the instants are few, and each of its own kind

store::StoreShape shape_of(std::uint32_t slots) {
  return {.model = "a model",
          .layout = "three regions",
          .layout_digest = 5,
          .region_bytes = kRegions,
          .page_size = kPageSize,
          .hash_profile = "test",
          .num_slots = slots,
          .keeps_tokens = true};
}

// No two puts have the same bytes anywhere.
std::vector<std::byte> payload_of(std::uint64_t number) {
  std::vector<std::byte> bytes(shape_of(1).block_bytes());
  std::uint64_t word = number;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof word) {
    std::memcpy(&bytes[at], &word, std::min(sizeof word, bytes.size() - at));
    word = word * 6364136223846793005u + 1442695040888963407u;
  }
  return bytes;
}

std::vector<Token> tokens_of(SequenceHash hash) {
  std::vector<Token> tokens(kPageSize);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<Token>(hash.value() * 100 + i);
  }
  return tokens;
}

std::string spelled(const Put& put) {
  return "block " + std::to_string(put.hash.value()) + " of namespace " +
         std::to_string(put.name_space) + ", epoch " + std::to_string(put.epoch) + ", slot " +
         std::to_string(put.slot);
}

}  // namespace

// --- the disk --------------------------------------------------------------------------------

Disk::Disk() {
  for (auto& file : files_) file = std::make_shared<RecordingFile>();
}

Disk Disk::after_kill() const {
  Disk left;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    left.files_[i] = std::make_shared<RecordingFile>(*files_[i]);
  }
  return left;
}

Disk Disk::after(const Damage& damage) const {
  Disk left;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    Damage of_file = damage;
    of_file.random_seed += i;
    left.files_[i] = std::make_shared<RecordingFile>(files_[i]->after(of_file));
  }
  return left;
}

store::StoreFiles Disk::files() const { return {files_[0], files_[1], files_[2], files_[3]}; }

void Disk::set_hook(const std::function<void()>& hook) const {
  for (const auto& file : files_) file->set_hook(hook);
}

// --- lives -----------------------------------------------------------------------------------

History::History(std::uint64_t seed)
    : random_(seed), syncs_(std::array{1.0, 0.2, 0.03}[seed % 3]) {}

bool History::run(std::uint64_t losses) {
  losses_ = losses;
  while (failure_.empty() && losses_ > 0) {
    live();
    if (!fork_) continue;
    disk_ = fork_->disk;
    known_ = std::move(fork_->known);
    fork_.reset();
  }
  return failure_.empty();
}

void History::fail(const std::string& what) {
  if (failure_.empty()) failure_ = what;
}

// A change of size is known from here on only to have begun, or to have ended.
void History::live() {
  next_slots_ = happens(0.3) || slots_ == 0 ? kSlots[below(3)] : slots_;
  for (auto* known : {&known_.in_slots, &known_.durable}) {
    known->erase(known->lower_bound(next_slots_), known->end());
  }
  is_open_ = false;
  disk_.set_hook([this] { instant(); });
  auto opened = DiskStore::open(disk_.files(), shape_of(next_slots_));
  if (!opened) fail("the store does not open: " + opened.error().to_string());
  if (is_over()) return disk_.set_hook({});
  std::erase_if(known_.puts, [&](const auto& put) {
    return put.second.slot >= next_slots_ && next_slots_ < slots_;
  });
  slots_ = next_slots_;
  is_open_ = true;

  DiskStore& store = **opened;
  const Found found = compare(store, disk_, known_.in_slots);
  known_.in_slots = found.in_slots;
  known_.without_tokens.insert(found.without_tokens.begin(), found.without_tokens.end());
  known_.durable = known_.in_slots;
  store::Health health(std::chrono::hours(1), {});
  DiskStoreConfig config;
  config.sync_interval = std::chrono::hours(1);
  auto keeper = store::Keeper::start(store, health, config, {}).value();
  work(store, *keeper);
  keeper.reset();
  if (!is_over()) known_.durable = known_.in_slots;
  disk_.set_hook({});
}

void History::work(DiskStore& store, store::Keeper& keeper) {
  for (std::uint32_t left = below(100); left > 0 && !is_over(); --left) {
    switch (below(20)) {
      case 0: reset(store); break;
      case 1: clear(store); break;
      case 2:
        if (!store.write_manifest()) fail("the manifest is not written");
        break;
      default: put(store); break;
    }
    if (!is_over() && happens(syncs_)) sync(keeper);
  }
}

void History::clear(DiskStore& store) {
  const Slot slot = below(slots_);
  known_.in_slots.erase(slot);
  known_.durable.erase(slot);
  if (!store.clear(slot)) fail("a slot is not cleared");
}

void History::put(DiskStore& store) {
  const std::uint64_t number = next_number_++;
  Put put{.slot = below(slots_),
          .hash = SequenceHash((1 + below(kNames)) * 0x9e3779b97f4a7c15u),
          .name_space = static_cast<NamespaceId>(below(kNamespaces)),
          .epoch = 0};
  // Some were named before the last reset.
  const std::uint32_t epoch = store.epoch(put.name_space);
  put.epoch = epoch > 0 && happens(0.1) ? epoch - 1 : epoch;
  known_.in_slots.erase(put.slot);
  known_.durable.erase(put.slot);
  known_.puts.emplace(number, put);

  std::vector<std::byte> payload = payload_of(number);
  store::PayloadSum sum(kRegions);
  sum.add(payload);
  SlotRecord record{.sequence_hash = put.hash,
                    .parent_hash = SequenceHash(),
                    .epoch = put.epoch,
                    .token_count = kPageSize,
                    .name_space = put.name_space};
  record.sealed_sum = sum.finish() ^ seal(record, put.slot, shape_of(1).layout_digest);
  payload.resize(shape_of(1).extent_bytes());
  if (!store.clear(put.slot) || !store.blocks()->write(payload, put.slot * payload.size())) {
    return fail("a payload is not written");
  }
  if (happens(0.05)) return;  // its copy failed
  if (!store.put(put.slot, record, tokens_of(put.hash))) return fail("a block is not put");
  if (put.epoch == epoch) known_.in_slots[put.slot] = number;
}

void History::reset(DiskStore& store) {
  std::optional<NamespaceId> name_space;
  if (happens(0.7)) name_space = static_cast<NamespaceId>(below(kNamespaces));
  for (auto* known : {&known_.in_slots, &known_.durable}) {
    std::erase_if(*known, [&](const auto& held) {
      return !name_space || known_.puts.at(held.second).name_space == *name_space;
    });
  }
  if (!store.reset(name_space)) return fail("a reset is not written");
  if (is_over()) return;
  for (std::size_t i = 0; i < known_.oldest_epochs.size(); ++i) {
    known_.oldest_epochs[i] = store.epoch(static_cast<NamespaceId>(i));
  }
}

// As a durable store acknowledges blocks.
void History::sync(store::Keeper& keeper) {
  std::promise<bool> synced;
  keeper.after_sync([&](const Result<void>& result) { synced.set_value(result.has_value()); });
  if (!synced.get_future().get()) return fail("a sync fails");
  if (!is_over()) known_.durable = known_.in_slots;
}

// --- losses of power -------------------------------------------------------------------------

Damage History::any_damage() {
  return {.kept = std::array{0.0, 0.1, 0.5, 0.9, 1.0}[below(5)],
          .unit = std::array{std::size_t{512}, std::size_t{4096}}[below(2)],
          .random_seed = random_()};
}

void History::instant() {
  if (is_over()) return;
  if (happens(kLossAtAnInstant)) lose_power();
  if (is_over() || !happens(is_open_ ? kEndWhileWorking : kEndWhileOpening)) return;
  const bool power_lost = happens(0.5);
  fork_ = {power_lost ? disk_.after(any_damage()) : disk_.after_kill(), known_};
  if (power_lost) fork_->known.in_slots = known_.durable;
}

void History::lose_power() {
  --losses_;
  const Disk left = disk_.after(any_damage());
  // A change of size may be taken back.
  const std::uint32_t slots = slots_ > 0 && happens(0.5) ? slots_ : next_slots_;
  const auto opened = DiskStore::open(left.files(), shape_of(slots));
  if (!opened) {
    return fail("the store does not open after a loss of power: " + opened.error().to_string());
  }
  compare(**opened, left, known_.durable);
  const auto report = store::check(left.files(), {});
  if (!report || !report->damaged_records.empty() || !report->repeated_puts.empty()) {
    fail("a loss of power leaves records that nobody wrote");
  }
}

History::Found History::compare(DiskStore& store, const Disk& disk, const Slots& due) {
  Found found;
  const store::StoreFiles files = disk.files();
  store::PayloadReader reader(*files.blocks, store.shape());
  const auto loaded = store.load([&](Slot slot, const SlotRecord& record) {
    ++offered_;
    const auto sum = reader.sum(slot);
    if (!sum || !verifies(*sum, record, slot, store.shape())) {
      ++spoiled_;
      return;
    }
    const auto number = compare_block(store, slot, record);
    if (!number) return;
    found.in_slots[slot] = *number;
    if (store.tokens(slot, record).empty()) found.without_tokens.insert(*number);
  });
  if (!loaded) fail("the store cannot be loaded: " + loaded.error().to_string());
  for (const auto& [slot, number] : due) {
    if (slot >= store.shape().num_slots) continue;
    const auto held = found.in_slots.find(slot);
    if (held == found.in_slots.end() || held->second != number) {
      fail("acknowledged, and not there: " + spelled(known_.puts.at(number)));
    } else if (found.without_tokens.contains(number) && !known_.without_tokens.contains(number)) {
      fail("acknowledged, and its tokens are not there: " + spelled(known_.puts.at(number)));
    }
  }
  return found;
}

std::optional<std::uint64_t> History::compare_block(DiskStore& store, Slot slot,
                                                    const SlotRecord& record) {
  const Put told{slot, record.sequence_hash, record.name_space, record.epoch};
  if (record.epoch < known_.oldest_epochs[record.name_space]) {
    fail("reset, and back again: " + spelled(told));
  }
  std::vector<std::byte> bytes(store.shape().block_bytes());
  if (!store.blocks()->read(bytes, slot * store.shape().extent_bytes())) return std::nullopt;
  std::uint64_t number = 0;
  std::memcpy(&number, bytes.data(), sizeof number);
  const auto put = known_.puts.find(number);
  if (put == known_.puts.end() || bytes != payload_of(number) ||
      spelled(put->second) != spelled(told)) {
    fail("verifies, and has other bytes than were put: " + spelled(told));
    return std::nullopt;
  }
  const auto tokens = store.tokens(slot, record);
  if (!tokens.empty() && tokens != tokens_of(record.sequence_hash)) {
    fail("has the tokens of another one: " + spelled(told));
  }
  return number;
}

}  // namespace kvbm::power_loss
