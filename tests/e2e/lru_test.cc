// The hits of a replay against an independent leaf-first LRU cache, written for clarity.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using Id = std::uint64_t;

// One tier. A request's blocks are pinned; each absent one takes a free place or that of the leaf
// which was used longest ago; then all are used once more, deepest first.
class NaiveLru {
 public:
  explicit NaiveLru(std::size_t capacity) : capacity_(capacity) {}

  // Returns the tokens of the longest prefix that is present.
  std::uint64_t request(const std::vector<Id>& ids, std::uint64_t tokens) {
    std::size_t present = 0;
    while (present < ids.size() && blocks_.contains(ids[present])) ++present;
    const std::set<Id> pinned(ids.begin(), ids.end());
    std::vector<Id> used;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (!blocks_.contains(ids[i])) {
        if (blocks_.size() == capacity_ && !evict(pinned)) break;
        blocks_[ids[i]].parent = i > 0 ? std::optional(ids[i - 1]) : std::nullopt;
      }
      used.push_back(ids[i]);
    }
    std::for_each(used.rbegin(), used.rend(), [this](Id id) { blocks_[id].last_use = ++now_; });
    return std::min<std::uint64_t>(present * 512, tokens);
  }

 private:
  struct Block {
    std::optional<Id> parent;
    std::uint64_t last_use = 0;
  };

  bool evict(const std::set<Id>& pinned) {
    std::set<Id> parents;
    for (const auto& [id, block] : blocks_) {
      if (block.parent) parents.insert(*block.parent);
    }
    auto victim = blocks_.end();
    for (auto it = blocks_.begin(); it != blocks_.end(); ++it) {
      if (pinned.contains(it->first) || parents.contains(it->first)) continue;
      if (victim == blocks_.end() || it->second.last_use < victim->second.last_use) victim = it;
    }
    if (victim == blocks_.end()) return false;
    blocks_.erase(victim);
    return true;
  }

  std::size_t capacity_;
  std::map<Id, Block> blocks_;
  std::uint64_t now_ = 0;
};

std::uint64_t lru_hit_tokens(const std::string& trace, std::size_t capacity) {
  NaiveLru cache(capacity);
  std::uint64_t hits = 0;
  std::istringstream in(trace);
  for (std::string line; std::getline(in, line);) {
    const auto request = nlohmann::json::parse(line);
    hits += cache.request(request["hash_ids"], request["input_length"]);
  }
  return hits;
}

TEST(LruTest, DeviceHitsAreThoseOfALeafFirstLru) {
  for (const std::uint64_t seed : {1, 2}) {
    const std::string trace = small_trace(seed);
    for (const std::uint64_t blocks : {5, 20, 80}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", blocks " + std::to_string(blocks));
      const auto report = replay_json(trace, {blocks, 40, 100});
      EXPECT_EQ(report["hit_tokens"]["device"], lru_hit_tokens(trace, blocks));
    }
  }
}

// The disk does not see hits above it, so it ages blocks as an LRU of its own would only while the
// tiers above are small beside it.
TEST(LruTest, HitsOfAllTiersAreThoseOfAnLruOfTheDisksSize) {
  for (const std::uint64_t seed : {1, 2}) {
    const std::string trace = small_trace(seed);
    for (const std::uint64_t blocks : {400, 600}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", blocks " + std::to_string(blocks));
      const auto report = replay_json(trace, {20, 60, blocks});
      EXPECT_GT(report["evictions"]["disk"], 0u);
      EXPECT_EQ(sum(report["hit_tokens"]), lru_hit_tokens(trace, blocks));
    }
  }
}

TEST(LruTest, ADiskThatHoldsAllServesEveryRepeatedPrefix) {
  const std::string trace = small_trace();
  const auto report = replay_json(trace, {20, 60, 5000});
  EXPECT_EQ(report["evictions"]["disk"], 0);
  EXPECT_EQ(sum(report["hit_tokens"]), lru_hit_tokens(trace, 1'000'000));
}

}  // namespace
}  // namespace kvbm::e2e
