#include "logical/policy/age_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <random>
#include <vector>

namespace kvbm {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

SequenceHash hash_of(BlockId id) { return SequenceHash{1000 + id}; }

// A block that one request used, alone.
void use_alone(AgeIndexOrder& order, BlockId id, std::int64_t now) {
  const PathBlock block{id, hash_of(id)};
  order.on_request({&block, 1}, 0, now);
}

TEST(AgeIndexOrder, IsEmptyAtFirst) {
  AgeIndexOrder order(4);
  EXPECT_TRUE(order.empty());
  EXPECT_EQ(order.victim(0), kNoBlock);
  EXPECT_FALSE(order.contains(3));
  order.check_invariants();
}

TEST(AgeIndexOrder, ChoosesTheLeastRecentlyUsedBeforeItHasLearned) {
  AgeIndexOrder order(4);
  for (BlockId id : {2u, 0u, 1u}) {
    order.on_insert(id, hash_of(id));
    use_alone(order, id, kSecond);  // at one time: the order of the calls decides
  }
  for (BlockId id : {0u, 1u, 2u}) order.insert(id, 5);
  EXPECT_EQ(order.size(), 3u);
  for (BlockId expected : {2u, 0u, 1u}) {
    EXPECT_EQ(order.victim(2 * kSecond), expected);
    order.remove(expected);
    order.check_invariants();
  }
  EXPECT_EQ(order.victim(2 * kSecond), kNoBlock);
}

TEST(AgeIndexOrder, TakesTheLowestLevelFirst) {
  AgeIndexOrder order(4);
  const std::uint32_t levels[] = {101, 64, 63, 0};
  for (BlockId id = 0; id < 4; ++id) {
    order.on_insert(id, hash_of(id));
    use_alone(order, id, kSecond);
    order.insert(id, levels[id]);
  }
  order.check_invariants();
  for (BlockId expected : {3u, 2u, 1u, 0u}) {
    EXPECT_EQ(order.victim(kSecond), expected);
    order.remove(expected);
  }
}

// Blocks with even ids come back after 2 s, those with odd ids, of another hint, never.
struct Trained {
  AgeIndexOrder order{200};
  std::int64_t now = kSecond;
  Trained() {
    for (BlockId id = 100; id < 180; ++id) {
      order.on_insert(id, hash_of(id));
      use(id);
    }
    now += 2 * kSecond;
    for (BlockId id = 100; id < 180; id += 2) use(id);
    now += 60 * kSecond;
    for (BlockId id = 180; id < 200; ++id) {
      order.on_insert(id, hash_of(id));
      use(id);
    }
  }
  void use(BlockId id) {
    const PathBlock block{id, hash_of(id)};
    order.on_request({&block, 1}, id % 2, now);
  }
};

TEST(AgeIndexOrder, ChoosesByTheModelOnceItHasLearned) {
  Trained trained;
  AgeIndexOrder& order = trained.order;
  ASSERT_TRUE(order.learned());
  order.on_insert(0, hash_of(0));
  trained.use(0);
  order.on_insert(1, hash_of(1));
  trained.use(1);
  order.insert(0, 0);
  order.insert(1, 0);
  EXPECT_EQ(order.victim(trained.now + kSecond), 1u) << "the younger one, but it never comes back";
  EXPECT_EQ(order.victim(trained.now + 4 * kSecond), 0u) << "neither does; the older one";
}

TEST(AgeIndexOrder, TellsTheColdestByTheirLastUseLevelByLevel) {
  AgeIndexOrder order(8);
  for (BlockId id : {5u, 4u, 3u, 2u, 1u, 0u}) {
    order.on_insert(id, hash_of(id));
    const PathBlock block{id, hash_of(id)};
    order.on_request({&block, 1}, id % 2, (10 - id) * kSecond);
    order.insert(id, id == 0 ? 1 : 5);
  }
  const auto coldest = [&](std::size_t count) {
    std::vector<BlockId> ids(count);
    ids.resize(order.coldest(ids));
    return ids;
  };
  EXPECT_EQ(coldest(0), std::vector<BlockId>());
  EXPECT_EQ(coldest(3), (std::vector<BlockId>{0, 5, 4}));
  EXPECT_EQ(coldest(9), (std::vector<BlockId>{0, 5, 4, 3, 2, 1}));
  order.forget_all();
  order.on_insert(6, hash_of(6));
  use_alone(order, 6, 20 * kSecond);
  order.insert(6, 9);
  EXPECT_EQ(coldest(9), (std::vector<BlockId>{6})) << "what is forgotten is not worth to be told";
  order.check_invariants();
}

TEST(AgeIndexOrder, ABlockIsWorthAVictimThatComesBackLaterOrNever) {
  AgeIndexOrder fresh(4);
  EXPECT_TRUE(fresh.is_worth_a_victim(0, 0)) << "nothing was learned";
  Trained trained;
  AgeIndexOrder& order = trained.order;
  ASSERT_TRUE(order.learned());
  EXPECT_TRUE(order.is_worth_a_victim(0, trained.now)) << "there is no victim";
  order.on_insert(0, hash_of(0));
  trained.use(0);
  order.insert(0, 0);
  EXPECT_FALSE(order.is_worth_a_victim(0, trained.now + kSecond)) << "that comes back in a second";
  EXPECT_TRUE(order.is_worth_a_victim(0, trained.now + 4 * kSecond)) << "it did not come back";
  order.remove(0);
  order.on_insert(1, hash_of(1));
  trained.use(1);
  order.insert(1, 0);
  EXPECT_TRUE(order.is_worth_a_victim(0, trained.now + kSecond)) << "blocks of its hint never do";
}

// The account: a loan of a 16th of the capacity, one less for each block that LRU would have kept,
// and a 512th of a hit for each use while it is below the loan.
TEST(AgeIndexOrder, FallsBackWhenTheLoanIsSpentAndUntilItIsEarnedAgain) {
  Trained trained;
  AgeIndexOrder& order = trained.order;
  const auto lose_one = [&] {
    order.on_evict(180, hash_of(180));
    order.on_insert(180, hash_of(180));
    trained.use(180);
  };
  for (int i = 0; i < 12; ++i) lose_one();
  EXPECT_TRUE(order.learned()) << "half a hit is left of 12.5";
  lose_one();
  EXPECT_FALSE(order.learned());

  std::vector<PathBlock> path;
  for (BlockId id = 100; id < 200; ++id) path.push_back({id, hash_of(id)});
  for (int i = 0; i < 66; ++i) order.on_request(path, 0, trained.now);
  EXPECT_FALSE(order.learned()) << "12.5 - 13 + (13 + 66 * 100) / 512 is below the loan";
  order.on_request(path, 0, trained.now);
  EXPECT_TRUE(order.learned());
  order.check_invariants();
}

TEST(AgeIndexOrder, FinishesAChainThatItHasBegun) {
  Trained trained;
  AgeIndexOrder& order = trained.order;
  const PathBlock chain[] = {{1, hash_of(1)}, {3, hash_of(3)}, {5, hash_of(5)}};
  for (const PathBlock& block : chain) order.on_insert(block.id, block.hash);
  order.on_request(chain, 1, trained.now);
  order.insert(3, 0);  // as if 5, of another class, had gone
  ASSERT_EQ(order.victim(trained.now), 3u);
  order.remove(3);
  order.on_evict(3, hash_of(3));
  order.insert(1, 0);
  order.on_insert(7, hash_of(7));
  trained.use(7);
  order.insert(7, 0);
  // Without the chain, block 7 of the same worth at another age could come between.
  for (std::int64_t age = 0; age < 60; ++age) {
    EXPECT_EQ(order.victim(trained.now + age * kSecond), 1u);
  }
  order.check_invariants();
  order.remove(1);
  EXPECT_EQ(order.victim(trained.now), 7u);
}

TEST(AgeIndexOrder, ADiscardedBlockIsNotRemembered) {
  AgeIndexOrder order(2);
  for (BlockId id : {0u, 1u}) {
    order.on_insert(id, hash_of(id));
    use_alone(order, id, kSecond);
  }
  order.on_evict(0, hash_of(0));
  order.on_discard(1);
  order.on_insert(0, hash_of(0));
  order.on_insert(1, hash_of(1));
  order.insert(0, 0);
  order.insert(1, 0);
  EXPECT_EQ(order.victim(2 * kSecond), 1u) << "the time of its last use must be unknown";
}

// The rules once more, with a list that is searched from end to end.
class Naive {
 public:
  struct Block {
    bool resident = false, fresh = false, in_order = false;
    unsigned uses = 0;
    UseClass use_class = 0;
    std::uint32_t level = 0;
    std::int64_t last_use = 0;
    std::uint64_t arrival = 0;
  };

  explicit Naive(std::size_t capacity) : blocks(capacity) {}

  void on_insert(BlockId id, std::optional<Ghost> ghost) {
    blocks[id] = {};
    blocks[id].resident = blocks[id].fresh = true;
    if (ghost) blocks[id].uses = ghost->uses + 1u;
    if (ghost) blocks[id].last_use = ghost->last_use;
    blocks[id].use_class = UseClass(std::min(3u, blocks[id].uses));
  }
  void on_match(const std::vector<BlockId>& found, std::int64_t now) {
    time_ = std::max(now, time_ + 1);
    for (BlockId id : found) {
      if (!blocks[id].fresh) blocks[id].last_use = time_;
    }
  }
  void on_request(const std::vector<PathBlock>& path, unsigned hint, std::int64_t now) {
    time_ = std::max(now, time_ + 1);
    const std::size_t step = std::max<std::size_t>(1, path.size() / 4);
    for (std::size_t i = 0; i < path.size(); ++i) {
      Block& block = blocks[path[i].id];
      const bool last = i + 1 == path.size();
      if (!block.fresh) ++block.uses;
      block.fresh = false;
      block.last_use = time_;
      block.use_class = UseClass(std::min(3u, block.uses) + (last ? 4 : 0) + 8 * hint);
      model.end(path[i].hash, time_);
    }
    for (std::size_t i = 0; i < path.size(); ++i) {
      if (i % step != 0 && i + 1 != path.size()) continue;
      model.follow(path[i].hash, blocks[path[i].id].use_class, time_);
    }
    model.on_request(time_);
  }
  void insert(BlockId id, std::uint32_t level) {
    Block& block = blocks[id];
    block.in_order = true;
    block.level = level;
    block.arrival = ++arrivals_;
    if (evicted_ && evicted_->last_use == block.last_use &&
        evicted_->use_class == block.use_class && evicted_->level == level) {
      draining_ = id;
    }
    evicted_.reset();
  }
  void remove(BlockId id) {
    blocks[id].in_order = false;
    if (draining_ == id) draining_ = kNoBlock;
  }
  void on_evict(BlockId id) {
    evicted_ = blocks[id];
    blocks[id].resident = false;
  }
  BlockId victim(std::int64_t now, bool learned) const {
    std::uint32_t level = ~0u;
    for (const Block& block : blocks) {
      if (block.in_order) level = std::min(level, block.level);
    }
    if (level == ~0u) return kNoBlock;
    if (learned && draining_ != kNoBlock && blocks[draining_].level == level) return draining_;
    BlockId best = kNoBlock;
    float least = 0;
    for (unsigned c = 0; c < kUseClasses; ++c) {
      const auto [oldest, youngest] = ends(level, UseClass(c));
      for (BlockId id : {oldest, youngest}) {
        if (id == kNoBlock || (!learned && id != oldest)) continue;
        const float worth = learned ? model.index(UseClass(c), now - blocks[id].last_use) : 0;
        const bool older = best == kNoBlock || blocks[id].last_use < blocks[best].last_use;
        if (best == kNoBlock || worth < least || (worth == least && older)) {
          best = id;
          least = worth;
        }
      }
    }
    return best;
  }

  std::vector<Block> blocks;
  AgeModel model;

 private:
  std::pair<BlockId, BlockId> ends(std::uint32_t level, UseClass use_class) const {
    BlockId oldest = kNoBlock, youngest = kNoBlock;
    const auto key = [&](BlockId id) { return std::pair(blocks[id].last_use, blocks[id].arrival); };
    for (BlockId id = 0; id < blocks.size(); ++id) {
      const Block& block = blocks[id];
      if (!block.in_order || block.level != level || block.use_class != use_class) continue;
      if (oldest == kNoBlock || key(id) < key(oldest)) oldest = id;
      if (youngest == kNoBlock || key(id) > key(youngest)) youngest = id;
    }
    return {oldest, youngest};
  }

  std::int64_t time_ = 0;
  std::uint64_t arrivals_ = 0;
  std::optional<Block> evicted_;
  BlockId draining_ = kNoBlock;
};

// Drives both with the same calls. Blocks need not form trees here: the order does not know trees.
class Fuzz {
 public:
  static constexpr std::size_t kCapacity = 24;

  explicit Fuzz(unsigned seed) : random_(seed) {}

  void step() {
    now_ += static_cast<std::int64_t>(random_() % 7) * kSecond / 3;
    const BlockId id = pick(kCapacity);
    if (!naive_.blocks[id].resident) {
      hashes_[id] = unused_hash();
      const auto ghost = ghosts_.take(hashes_[id]);
      naive_.on_insert(id, ghost);
      order_.on_insert(id, hashes_[id]);
    } else if (random_() % 2 == 0) {
      request();
    } else if (naive_.blocks[id].in_order) {
      naive_.remove(id);
      order_.remove(id);
    } else {
      const std::uint32_t level = random_() % 4 == 0 ? pick(102) : 7;
      naive_.insert(id, level);
      order_.insert(id, level);
    }
    evict_at_times();
    if (order_.learned()) ++learned_;
    ASSERT_EQ(order_.victim(now_), naive_.victim(now_, order_.learned()));
    for (BlockId i = 0; i < kCapacity; ++i) {
      ASSERT_EQ(order_.contains(i), naive_.blocks[i].in_order);
    }
  }
  void check() const { order_.check_invariants(); }
  int learned_steps() const { return learned_; }

 private:
  std::uint32_t pick(std::size_t below) { return static_cast<std::uint32_t>(random_() % below); }
  SequenceHash unused_hash() {
    for (;;) {
      const SequenceHash hash{random_() % 60};
      bool used = false;
      for (BlockId i = 0; i < kCapacity; ++i) {
        used = used || (naive_.blocks[i].resident && hashes_[i] == hash);
      }
      if (!used) return hash;
    }
  }
  void request() {
    std::vector<PathBlock> path;
    for (BlockId i = 0; i < kCapacity && path.size() < 9; ++i) {
      const auto& block = naive_.blocks[i];
      if (block.resident && !block.in_order && random_() % 2 == 0) path.push_back({i, hashes_[i]});
    }
    std::shuffle(path.begin(), path.end(), random_);
    if (path.empty()) return;
    std::vector<BlockId> found;
    for (std::size_t i = random_() % 2 * path.size(); i < path.size(); ++i) {
      found.push_back(path[i].id);
    }
    naive_.on_match(found, now_);
    order_.on_match(found, now_);
    const auto hint = static_cast<std::uint8_t>(random_() % 5 == 0 ? pick(8) : 0);
    naive_.on_request(path, hint, now_);
    order_.on_request(path, hint, now_);
  }
  void evict_at_times() {
    if (random_() % 3 != 0) return;
    const BlockId victim = naive_.victim(now_, order_.learned());
    if (victim == kNoBlock) return;
    const auto& block = naive_.blocks[victim];
    if (block.last_use != 0) {
      ghosts_.add(hashes_[victim], {UseClass(block.use_class & kUsesMask), block.last_use});
    }
    naive_.remove(victim);
    naive_.on_evict(victim);
    order_.remove(victim);
    order_.on_evict(victim, hashes_[victim]);
  }

  std::mt19937 random_;
  AgeIndexOrder order_{kCapacity};
  Naive naive_{kCapacity};
  Ghosts ghosts_{2 * kCapacity};
  std::vector<SequenceHash> hashes_ = std::vector<SequenceHash>(kCapacity);
  std::int64_t now_ = kSecond;
  int learned_ = 0;
};

TEST(AgeIndexOrder, AgreesWithANaiveListOverRandomCalls) {
  const char* text = std::getenv("KVBM_SEED");
  const unsigned seed = text != nullptr ? unsigned(std::strtoul(text, nullptr, 10)) : 1;
  SCOPED_TRACE(testing::Message() << "KVBM_SEED=" << seed);
  Fuzz fuzz(seed);
  for (int step = 0; step < 20'000; ++step) {
    SCOPED_TRACE(testing::Message() << "step " << step);
    fuzz.step();
    if (testing::Test::HasFatalFailure()) return;
    if (step % 500 == 0) fuzz.check();
  }
  EXPECT_GT(fuzz.learned_steps(), 1000);
}

}  // namespace
}  // namespace kvbm
