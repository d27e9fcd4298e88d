#include "logical/policy/age_index.h"

#include <algorithm>
#include <bit>

#include "logical/policy/check.h"

namespace kvbm {
namespace {

constexpr std::size_t kGhostsPerBlock = 2;

// The account of the model against LRU, in hits; the first and the last as shares of the capacity.
// It starts with a small loan. A gain may be lost again later, but not more than one full cache of
// it, so that a model that was good for hours is still dropped soon when the traffic changes. An
// account without gains grows by a small share of the blocks that are used: the price, in the
// long run, of trying again.
constexpr double kLoan = 1.0 / 16;
constexpr double kTrialShare = 1.0 / 512;
constexpr double kMostCredit = 1;

// Classes that have a bit in the mask.
template <class Visit>
void for_each_class(std::uint64_t mask, Visit visit) {
  for (; mask != 0; mask &= mask - 1) visit(static_cast<std::size_t>(std::countr_zero(mask)));
}

}  // namespace

AgeIndexOrder::AgeIndexOrder(std::size_t capacity)
    : capacity_(capacity),
      nodes_(std::make_unique<Node[]>(capacity)),
      sets_(std::make_unique<Set[]>(kLevels * kUseClasses)),
      ghosts_(kGhostsPerBlock * capacity),
      lru_(capacity),
      credit_(static_cast<double>(capacity) * kLoan) {}

AgeIndexOrder::~AgeIndexOrder() {
  for (std::size_t i = 0; i < kLevels * kUseClasses; ++i) sets_[i].clear();
}

// No two calls have the same time, so that blocks with one last use are of one request.
std::int64_t AgeIndexOrder::next_time(std::int64_t now_ns) noexcept {
  last_time_ = std::max(now_ns, last_time_ + 1);
  return last_time_;
}

void AgeIndexOrder::on_insert(BlockId id, SequenceHash hash) noexcept {
  Node& node = nodes_[id];
  node.last_use = 0;
  node.use_class = 0;
  if (const auto ghost = ghosts_.take(hash)) {
    node.last_use = ghost->last_use;
    node.use_class = static_cast<UseClass>(std::min(ghost->uses + 1, 3));
    if (lru_.use(ghost->last_use)) --credit_;
  }
  node.resident = node.fresh = true;
  node.followed = false;
  ++resident_;
  ++fresh_;
}

// Hits are counted here and not when the request ends: until then the blocks are pinned, which
// would make any order look better than an LRU that knows no pins.
void AgeIndexOrder::on_match(std::span<const BlockId> found, std::int64_t now_ns) noexcept {
  const std::int64_t now = next_time(now_ns);
  std::size_t refreshed = 0;
  for (const BlockId id : found) {
    Node& node = nodes_[id];
    if (node.fresh) continue;  // of a running request, so LRU would have it too
    if (!lru_.use(node.last_use)) ++credit_;
    node.last_use = now;
    ++refreshed;
  }
  lru_.finish(now, refreshed, lru_room());
}

void AgeIndexOrder::on_request(std::span<const PathBlock> path, std::uint8_t hint,
                               std::int64_t now_ns) noexcept {
  const std::int64_t now = next_time(now_ns);
  for (const PathBlock& block : path) {
    Node& node = nodes_[block.id];
    if (node.followed || node.fresh) model_.end(block.hash, now);
    unsigned uses = node.use_class & kUsesMask;
    if (node.fresh) {
      --fresh_;
    } else {
      lru_.use(node.last_use);
      uses = std::min(uses + 1, 3u);
    }
    node.use_class = static_cast<UseClass>(uses | unsigned{hint} << kHintShift);
    node.last_use = now;
    node.fresh = node.followed = false;
  }
  if (!path.empty()) nodes_[path.back().id].use_class |= kLastOfRequest;
  follow_samples(path, now);
  lru_.finish(now, path.size(), lru_room());
  model_.on_request(now);
  judge(path.size());
}

// About four blocks of a request, evenly spaced, and its last one.
void AgeIndexOrder::follow_samples(std::span<const PathBlock> path, std::int64_t now) noexcept {
  const auto follow = [&](const PathBlock& block) {
    Node& node = nodes_[block.id];
    model_.follow(block.hash, node.use_class, now);
    node.followed = true;
  };
  if (path.empty()) return;
  const std::size_t step = std::max<std::size_t>(1, path.size() / 4);
  for (std::size_t i = 0; i < path.size(); i += step) follow(path[i]);
  if ((path.size() - 1) % step != 0) follow(path.back());
}

void AgeIndexOrder::judge(std::size_t blocks) noexcept {
  const double capacity = static_cast<double>(capacity_);
  if (credit_ < capacity * kLoan) credit_ += static_cast<double>(blocks) * kTrialShare;
  credit_ = std::min(credit_, capacity * kMostCredit);
  if (credit_ < 0) falling_back_ = true;
  if (credit_ >= capacity * kLoan) falling_back_ = false;
}

void AgeIndexOrder::on_evict(BlockId id, SequenceHash hash) noexcept {
  const Node& node = nodes_[id];
  if (node.last_use != 0) {
    ghosts_.add(hash, {static_cast<std::uint8_t>(node.use_class & kUsesMask), node.last_use});
  }
  evicted_.last_use = node.last_use;
  evicted_.use_class = node.use_class;
  evicted_.level = node.level;
  just_evicted_ = true;
  on_discard(id);
}

void AgeIndexOrder::on_discard(BlockId id) noexcept {
  Node& node = nodes_[id];
  if (node.fresh) --fresh_;
  node.resident = node.fresh = false;
  --resident_;
}

void AgeIndexOrder::insert(BlockId id, std::uint32_t level) noexcept {
  Node& node = nodes_[id];
  node.level = static_cast<std::uint8_t>(level);
  set_of(node).insert(node);
  classes_[level] |= std::uint64_t{1} << node.use_class;
  levels_[level / 64] |= std::uint64_t{1} << level % 64;
  ++size_;
  if (just_evicted_ && node.last_use == evicted_.last_use && node.use_class == evicted_.use_class &&
      level == evicted_.level) {
    draining_ = id;
  }
  just_evicted_ = false;
}

void AgeIndexOrder::remove(BlockId id) noexcept {
  Node& node = nodes_[id];
  Set& set = set_of(node);
  set.erase(set.iterator_to(node));
  --size_;
  if (draining_ == id) draining_ = kNoBlock;
  if (!set.empty()) return;
  classes_[node.level] &= ~(std::uint64_t{1} << node.use_class);
  if (classes_[node.level] == 0) {
    levels_[node.level / 64] &= ~(std::uint64_t{1} << node.level % 64);
  }
}

std::uint32_t AgeIndexOrder::lowest_level() const noexcept {
  return static_cast<std::uint32_t>(levels_[0] != 0 ? std::countr_zero(levels_[0])
                                                    : 64 + std::countr_zero(levels_[1]));
}

const AgeIndexOrder::Node& AgeIndexOrder::oldest(std::uint32_t level) const noexcept {
  const Node* best = nullptr;
  for_each_class(classes_[level], [&](std::size_t c) {
    const Node& node = *sets_[level * kUseClasses + c].begin();
    if (best == nullptr || node.last_use < best->last_use) best = &node;
  });
  return *best;
}

// Where the index of a class rises and falls once over its ages, the least worth is at an end.
const AgeIndexOrder::Node& AgeIndexOrder::least_worth(std::uint32_t level,
                                                      std::int64_t now_ns) const noexcept {
  const Node* best = nullptr;
  float least = 0;
  const auto compare = [&](const Node& node) {
    const float worth = model_.index(node.use_class, now_ns - node.last_use);
    if (best != nullptr && (worth > least || (worth == least && node.last_use >= best->last_use))) {
      return;
    }
    best = &node;
    least = worth;
  };
  for_each_class(classes_[level], [&](std::size_t c) {
    const Set& set = sets_[level * kUseClasses + c];
    compare(*set.begin());
    compare(*set.rbegin());
  });
  return *best;
}

void AgeIndexOrder::forget_all() noexcept {
  forgotten_until_ = last_time_;
  has_forgotten_ = size_ > 0;
}

// What is forgotten needs no place of its own: it is the old end of each class.
const AgeIndexOrder::Node* AgeIndexOrder::forgotten() noexcept {
  if (!has_forgotten_) return nullptr;
  for (std::size_t level = 0; level < kLevels; ++level) {
    const Node* found = nullptr;
    for_each_class(classes_[level], [&](std::size_t c) {
      const Node& node = *sets_[level * kUseClasses + c].begin();
      if (node.last_use <= forgotten_until_) found = &node;
    });
    if (found != nullptr) return found;
  }
  has_forgotten_ = false;
  return nullptr;
}

BlockId AgeIndexOrder::victim(std::int64_t now_ns) noexcept {
  if (size_ == 0) return kNoBlock;
  if (const Node* node = forgotten()) return id_of(*node);
  const std::uint32_t level = lowest_level();
  if (!learned()) return id_of(oldest(level));
  if (draining_ != kNoBlock && nodes_[draining_].level == level) return draining_;
  return id_of(least_worth(level, now_ns));
}

std::size_t AgeIndexOrder::coldest(std::span<BlockId> out) const noexcept {
  std::size_t found = 0;
  for (std::size_t level = 0; level < kLevels; ++level) {
    std::array<Set::const_iterator, kUseClasses> next;
    for_each_class(classes_[level],
                   [&](std::size_t c) { next[c] = sets_[level * kUseClasses + c].begin(); });
    for (std::uint64_t left = classes_[level]; left != 0 && found < out.size();) {
      std::size_t best = kUseClasses;
      for_each_class(left, [&](std::size_t c) {
        if (best == kUseClasses || next[c]->last_use < next[best]->last_use) best = c;
      });
      const Node& node = *next[best]++;
      if (!has_forgotten_ || node.last_use > forgotten_until_) out[found++] = id_of(node);
      if (next[best] == sets_[level * kUseClasses + best].end())
        left &= ~(std::uint64_t{1} << best);
    }
  }
  return found;
}

bool AgeIndexOrder::is_worth_a_victim(std::uint8_t uses, std::int64_t now_ns) const noexcept {
  if (size_ == 0 || !learned() || has_forgotten_) return true;
  const Node& victim = least_worth(lowest_level(), now_ns);
  const auto use_class = static_cast<UseClass>(std::min(uses, kUsesMask));
  return model_.index(use_class, 0) >= model_.index(victim.use_class, now_ns - victim.last_use);
}

std::size_t AgeIndexOrder::bytes() const noexcept {
  constexpr std::size_t kGhostBytes = 22;
  constexpr std::size_t kShadowBytes = 20;
  constexpr std::size_t kModelBytes = std::size_t{1} << 20;
  return capacity_ * (sizeof(Node) + kGhostsPerBlock * kGhostBytes + kShadowBytes) +
         kLevels * kUseClasses * sizeof(Set) + kModelBytes;
}

void AgeIndexOrder::check_invariants() const {
  std::size_t linked = 0, resident = 0, fresh = 0;
  for (std::size_t i = 0; i < capacity_; ++i) {
    const Node& node = nodes_[i];
    if (node.resident) ++resident;
    if (node.fresh) ++fresh;
    if (!node.is_linked()) continue;
    ++linked;
    policy_check(node.resident, "a block is in the order but not registered");
    policy_check(classes_[node.level] >> node.use_class & 1, "a class is said to be empty");
  }
  policy_check(linked == size_, "the size is not the number of blocks in the order");
  policy_check(resident == resident_, "the number of registered blocks is wrong");
  policy_check(fresh == fresh_, "the number of blocks of running requests is wrong");
  for (std::uint32_t level = 0; level < kLevels; ++level) {
    const bool empty = (levels_[level / 64] >> level % 64 & 1) == 0;
    policy_check(empty == (classes_[level] == 0), "a level is said to be empty");
    for_each_class(classes_[level], [&](std::size_t c) {
      const Set& set = sets_[level * kUseClasses + c];
      policy_check(!set.empty(), "a class is said not to be empty");
      policy_check(std::is_sorted(set.begin(), set.end(), Older{}), "a class is out of order");
    });
  }
  policy_check(draining_ == kNoBlock || contains(draining_), "a chain is drained that is not here");
  model_.check_invariants();
  ghosts_.check_invariants();
  lru_.check_invariants();
}

}  // namespace kvbm
