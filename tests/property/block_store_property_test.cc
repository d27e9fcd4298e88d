// Random operations on a block store, compared with an oracle that is too simple to be wrong: it
// keeps every block in one vector and finds what to evict by looking at all of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <random>

#include "logical/pool/hold_ops.h"

namespace kvbm {
namespace {

using detail::CompleteHold;
using detail::ImmutableHold;
using detail::MutableHold;
using detail::RunHold;

struct Name {
  std::uint32_t conversation;
  std::uint32_t position;
  friend auto operator<=>(const Name&, const Name&) = default;

  SequenceHash hash() const {
    return SequenceHash((std::uint64_t{conversation} << 32) + position + 1);
  }
};

// What a pool of blocks means, told without lists, links or counts of pins.
class Oracle {
 public:
  using Setting = BlockRegistrationDuplicationSetting;

  Oracle(std::size_t blocks, Setting duplicates) : duplicates_(duplicates), free_(blocks) {}

  struct Block {
    Name name;
    std::size_t holds = 0;
    bool detached = false;
    std::uint64_t unpinned_at = 0;  // order in which blocks became evictable
    int parent = -1;                // serial of the resident parent, when it was linked
    int duplicate_of = -1;          // serial of the registered block that it holds
    int serial = 0;
  };

  std::size_t available() const {
    return free_ + static_cast<std::size_t>(
                       std::count_if(blocks_.begin(), blocks_.end(),
                                     [this](const Block& block) { return !pinned(block); }));
  }

  bool allocate(std::size_t count) {
    if (count > available()) return false;
    for (std::size_t i = 0; i < count; ++i) {
      if (free_ > 0) {
        --free_;
      } else {
        evict();
      }
    }
    return true;
  }
  void give_back(std::size_t count) { free_ += count; }

  // Serial of the block that now carries the name, with one more hold.
  int register_block(Name name) {
    if (Block* present = find(name)) {
      hold(*present);
      const int primary = present->serial;
      if (duplicates_ == Setting::Disabled) {
        free_ += 1;
        return primary;
      }
      blocks_.push_back(
          {.name = name, .holds = 1, .duplicate_of = primary, .serial = next_serial_});
      return next_serial_++;
    }
    Block block{.name = name, .holds = 1, .serial = next_serial_++};
    if (name.position > 0) {
      if (Block* parent = find({name.conversation, name.position - 1})) {
        block.parent = parent->serial;
      }
    }
    blocks_.push_back(block);
    for (Block& child : blocks_) {
      const bool waits = child.parent == -1 && child.duplicate_of == -1 &&
                         child.name.conversation == name.conversation &&
                         child.name.position == name.position + 1;
      if (waits) child.parent = block.serial;
    }
    return block.serial;
  }

  std::vector<int> match(std::uint32_t conversation, std::uint32_t length) {
    std::vector<int> serials;
    for (std::uint32_t i = 0; i < length; ++i) {
      Block* block = find({conversation, i});
      if (!block) break;
      hold(*block);
      serials.push_back(block->serial);
    }
    return serials;
  }

  // The deepest block of the longest linked prefix, held; and the prefix's length.
  std::pair<int, std::uint32_t> match_run(std::uint32_t conversation, std::uint32_t length) {
    Block* deepest = nullptr;
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i < length; ++i) {
      Block* block = find({conversation, i});
      if (!block || (deepest && block->parent != deepest->serial)) break;
      deepest = block;
      ++count;
    }
    if (!deepest) return {-1, 0};
    hold(*deepest);
    return {deepest->serial, count};
  }

  // The one block of this name, held; -1 if there is none.
  int match_one(Name name) {
    Block* block = find(name);
    if (!block) return -1;
    hold(*block);
    return block->serial;
  }

  // What a match and a drop of its holds, root first, would do.
  std::size_t touch(std::uint32_t conversation, std::uint32_t length) {
    const std::vector<int> serials = match(conversation, length);
    for (const int serial : serials) release(serial);
    return serials.size();
  }

  std::pair<std::size_t, std::size_t> reset() {
    std::vector<Block> kept;
    std::copy_if(blocks_.begin(), blocks_.end(), std::back_inserter(kept),
                 [this](const Block& block) { return pinned(block); });
    const std::size_t freed = blocks_.size() - kept.size();
    std::size_t still_held = 0;
    for (Block& block : kept) {
      if (block.duplicate_of != -1 || block.detached) continue;
      block.detached = true;
      ++still_held;
    }
    blocks_ = std::move(kept);
    free_ += freed;
    return {freed, still_held};
  }

  void release(int serial) {
    Block& block = by_serial(serial);
    --block.holds;
    if (block.duplicate_of != -1) {
      if (block.holds > 0) return;
      const int primary = block.duplicate_of;
      blocks_.erase(blocks_.begin() + (&block - blocks_.data()));
      ++free_;
      return release(primary);
    }
    // Blocks become evictable from this one up, as far as nothing else pins them.
    for (Block* at = &block; at && !pinned(*at); at = parent_of(*at)) at->unpinned_at = ++clock_;
  }

  void detach(int serial) {
    Block& block = by_serial(serial);
    if (block.duplicate_of == -1) block.detached = true;
  }

  bool contains(Name name) { return find(name) != nullptr; }

 private:
  void hold(Block& block) { ++block.holds; }

  bool pinned(const Block& block) const {
    if (block.holds > 0) return true;
    return std::any_of(blocks_.begin(), blocks_.end(), [&](const Block& child) {
      return child.parent == block.serial && pinned(child);
    });
  }

  void evict() {
    const Block* coldest = nullptr;
    for (const Block& block : blocks_) {
      if (!pinned(block) && (!coldest || block.unpinned_at < coldest->unpinned_at)) {
        coldest = &block;
      }
    }
    const int serial = coldest->serial;
    ASSERT_TRUE(std::none_of(blocks_.begin(), blocks_.end(), [&](const Block& block) {
      return block.parent == serial;
    })) << "the coldest block must be a leaf";
    blocks_.erase(blocks_.begin() + (coldest - blocks_.data()));
  }

  Block* find(Name name) {
    for (Block& block : blocks_) {
      if (block.name == name && !block.detached && block.duplicate_of == -1) return &block;
    }
    return nullptr;
  }
  Block& by_serial(int serial) {
    return *std::find_if(blocks_.begin(), blocks_.end(),
                         [&](const Block& block) { return block.serial == serial; });
  }
  Block* parent_of(const Block& block) {
    for (Block& other : blocks_) {
      if (other.serial == block.parent) return &other;
    }
    return nullptr;
  }

  Setting duplicates_;
  std::size_t free_;
  std::vector<Block> blocks_;
  std::uint64_t clock_ = 0;
  int next_serial_ = 0;
};

std::uint64_t seed_of_this_run() {
  if (const char* given = std::getenv("KVBM_SEED")) return std::strtoull(given, nullptr, 10);
  return std::random_device{}();
}

// One random history on a store of `blocks` blocks.
class History {
 public:
  History(std::size_t blocks, Oracle::Setting duplicates, std::uint64_t seed)
      : store_(BlockStore::create({.capacity = blocks, .duplicates = duplicates}).value()),
        oracle_(blocks, duplicates),
        random_(seed) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      step();
      if (testing::Test::HasFatalFailure() || testing::Test::HasNonfatalFailure()) return;
      store_->check_invariants();
      ASSERT_EQ(store_->available_blocks(), oracle_.available()) << "after step " << i;
    }
    for (std::uint32_t c = 0; c < kConversations; ++c) {
      for (std::uint32_t p = 0; p < kLength; ++p) {
        const Name name{c, p};
        ASSERT_EQ(store_->contains(name.hash()), oracle_.contains(name));
      }
    }
  }

 private:
  static constexpr std::uint32_t kConversations = 4;
  static constexpr std::uint32_t kLength = 7;

  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }

  std::vector<SequenceHash> chain(std::uint32_t conversation, std::uint32_t length) {
    std::vector<SequenceHash> hashes;
    for (std::uint32_t i = 0; i < length; ++i) hashes.push_back(Name{conversation, i}.hash());
    return hashes;
  }

  void step() {
    switch (below(11)) {
      case 0: return allocate();
      case 1:
      case 2: return register_some();
      case 3: return match();
      case 4: return match_run();
      case 5: return detach();
      case 6: return touch();
      case 7: return scan();
      case 8: return remember_and_upgrade();
      case 9: return reset();
      default: return drop();
    }
  }

  void allocate() {
    const std::size_t count = below(5);
    auto blocks = detail::allocate(*store_, count);
    ASSERT_EQ(blocks.has_value(), oracle_.allocate(count));
    if (!blocks) return;
    for (MutableHold& block : *blocks) mutables_.push_back(std::move(block));
  }

  void register_some() {
    std::vector<CompleteHold> blocks;
    std::vector<Name> names;
    const std::uint32_t conversation = below(kConversations);
    std::uint32_t position = below(kLength);
    while (!mutables_.empty() && names.size() < 3 && position < kLength) {
      const Name name{conversation, position};
      const Name parent{conversation, position == 0 ? 0 : position - 1};
      blocks.push_back(detail::complete(std::move(mutables_.back()),
                                        {name.hash(), parent.hash(), position, 16}));
      mutables_.pop_back();
      names.push_back(name);
      ++position;
    }
    auto registered = detail::register_blocks(*store_, std::move(blocks)).value();
    for (std::size_t i = 0; i < names.size(); ++i) {
      held_.push_back({std::move(registered[i]), oracle_.register_block(names[i])});
    }
  }

  void match() {
    const std::uint32_t conversation = below(kConversations);
    const std::uint32_t length = 1 + below(kLength);
    auto blocks = detail::match(*store_, chain(conversation, length));
    const std::vector<int> serials = oracle_.match(conversation, length);
    ASSERT_EQ(blocks.size(), serials.size());
    for (std::size_t i = 0; i < serials.size(); ++i) {
      held_.push_back({std::move(blocks[i]), serials[i]});
    }
  }

  void match_run() {
    const std::uint32_t conversation = below(kConversations);
    const std::uint32_t length = 1 + below(kLength);
    RunHold run = detail::match_run(*store_, chain(conversation, length));
    const auto [serial, count] = oracle_.match_run(conversation, length);
    ASSERT_EQ(run ? run.count() : 0, count);
    if (!run) return;
    const auto ids = detail::ids(run);
    for (std::uint32_t i = 0; i < count; ++i) {
      ASSERT_EQ(store_->identity(ids[i]).sequence_hash, (Name{conversation, i}.hash()));
    }
    runs_.push_back({std::move(run), serial});
  }

  void detach() {
    if (held_.empty() || below(4) != 0) return;
    const auto& [hold, serial] = held_[below(static_cast<std::uint32_t>(held_.size()))];
    store_->detach(hold.id());
    oracle_.detach(serial);
  }

  void touch() {
    const std::uint32_t conversation = below(kConversations);
    const std::uint32_t length = below(kLength + 1);
    ASSERT_EQ(store_->touch(chain(conversation, length)), oracle_.touch(conversation, length));
  }

  void scan() {
    const std::uint32_t conversation = below(kConversations);
    auto found = detail::scan(*store_, chain(conversation, kLength));
    auto next = found.begin();
    for (std::uint32_t position = 0; position < kLength; ++position) {
      const int serial = oracle_.match_one({conversation, position});
      if (serial == -1) continue;
      ASSERT_NE(next, found.end());
      ASSERT_EQ(next->first, position);
      held_.push_back({std::move(next->second), serial});
      ++next;
    }
    ASSERT_EQ(next, found.end());
  }

  void remember_and_upgrade() {
    const Name name{below(kConversations), below(kLength)};
    weak_.push_back({detail::WeakHold(store_.get(), name.hash()), name});
    const std::size_t which = below(static_cast<std::uint32_t>(weak_.size()));
    auto strong = detail::upgrade(weak_[which].first);
    const int serial = oracle_.match_one(weak_[which].second);
    ASSERT_EQ(static_cast<bool>(strong), serial != -1);
    if (strong) held_.push_back({std::move(strong), serial});
    if (weak_.size() > 4) weak_.pop_front();
  }

  void reset() {
    if (below(8) != 0) return;
    const ResetCounts counts = store_->reset();
    const auto [freed, still_held] = oracle_.reset();
    ASSERT_EQ(counts.freed, freed);
    ASSERT_EQ(counts.still_held, still_held);
  }

  void drop() {
    if (!mutables_.empty() && below(3) == 0) {
      mutables_.pop_back();
      oracle_.give_back(1);
    }
    drop_one(held_);
    drop_one(runs_);
  }

  template <class Held>
  void drop_one(std::vector<Held>& held) {
    if (held.empty()) return;
    std::swap(held[below(static_cast<std::uint32_t>(held.size()))], held.back());
    const int serial = held.back().second;
    held.pop_back();
    oracle_.release(serial);
  }

  BlockStore::Owner store_;
  Oracle oracle_;
  std::mt19937_64 random_;
  std::vector<MutableHold> mutables_;
  std::vector<std::pair<ImmutableHold, int>> held_;
  std::vector<std::pair<RunHold, int>> runs_;
  std::deque<std::pair<detail::WeakHold, Name>> weak_;
};

TEST(BlockStorePropertyTest, AgreesWithTheOracleOnRandomHistories) {
  const std::uint64_t seed = seed_of_this_run();
  std::printf("KVBM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 seeds(seed);
  for (int history = 0; history < 300; ++history) {
    const std::size_t blocks = 1 + seeds() % 24;
    const std::uint64_t history_seed = seeds();
    SCOPED_TRACE(testing::Message() << "history " << history << ", " << blocks << " blocks");
    const auto duplicates = history % 2 == 0 ? Oracle::Setting::Disabled : Oracle::Setting::Allowed;
    History(blocks, duplicates, history_seed).run(300);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace kvbm
