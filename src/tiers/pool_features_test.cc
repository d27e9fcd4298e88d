// What callers can tell a pool, and ask it, beyond allocation and matches: through the public
// interface.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>

#include "kvbm/pool.h"
#include "logical/pool/block_store.h"
#include "observe/metric_names.h"

namespace kvbm {
namespace {

using std::chrono::hours;
using std::chrono::nanoseconds;
using std::chrono::steady_clock;

constexpr std::size_t kPage = 4;

using Pool = BlockPool<PinnedStorage>;
using Hashes = std::vector<SequenceHash>;

std::vector<Block<PinnedStorage>> make(std::size_t blocks) {
  const LayoutConfig config{.num_blocks = blocks,
                            .num_layers = 1,
                            .outer_dim = 1,
                            .page_size = kPage,
                            .inner_dim = 2,
                            .dtype = DType::FP32,
                            .alignment = 4096};
  PinnedAllocator allocator;
  std::vector<PinnedStorage> storages = {
      allocator.allocate(config.storage_bytes(LayoutType::FullyContiguous).value()).value()};
  return make_blocks(LayoutType::FullyContiguous, config, storages).value();
}

Pool make_pool(std::size_t blocks, EvictionPolicy eviction = EvictionPolicy::Lru) {
  return Pool::create({.blocks = make(blocks), .eviction = eviction}).value();
}

TokenBlockSequence prompt(Token first, std::size_t blocks, const HashSeeds& seeds = {}) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage, seeds).value();
}

HashSeeds keyed(char secret) {
  const std::vector<std::byte> bytes(32, std::byte(secret));
  return {.key = DigestKey::create(bytes).value()};
}

ImmutableBlocks<PinnedStorage> put(const Pool& pool, std::span<const TokenBlock> tokens,
                                   NamespaceId name_space = 0) {
  auto blocks = pool.allocate_blocks_blocking(tokens.size()).value();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    blocks[i].apply_token_block(tokens[i], name_space).value();
  }
  return pool.register_blocks_blocking(std::move(blocks)).value();
}

std::vector<std::uint32_t> priorities(const BlockRun<PinnedStorage>& run) {
  std::vector<std::uint32_t> found;
  for (const auto& block : run.blocks()) found.push_back(block.metadata().priority);
  return found;
}

template <class T>
void expect_refused(const Result<T>& result, ErrorCode code, std::uint64_t requested = 0,
                    std::uint64_t available = 0) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code);
  EXPECT_EQ(result.error().requested, requested);
  EXPECT_EQ(result.error().available, available);
}

// After this, whatever was to last for a nanosecond is over.
void let_a_nanosecond_pass() {
  const auto now = steady_clock::now();
  while (steady_clock::now() == now) {
  }
}

// --- allocation and return -------------------------------------------------------------------

TEST(PoolFeaturesTest, OneBlockComesWithoutAList) {
  const Pool pool = make_pool(1);
  auto block = pool.allocate_block().value();
  EXPECT_EQ(pool.available_blocks(), 0u);
  expect_refused(pool.allocate_block(), ErrorCode::NotEnoughBlocksAvailable, 1, 0);
  block.apply_token_block(prompt(1, 1).blocks()[0]).value();
  block = {};
  EXPECT_EQ(pool.available_blocks(), 1u);
  EXPECT_EQ(pool.stats().allocations, 1u);
}

TEST(PoolFeaturesTest, AnAllocationTellsTheNamesThatItEvicted) {
  const Pool pool = make_pool(3);
  const Hashes names = prompt(1, 2).sequence_hashes();
  put(pool, prompt(1, 2).blocks());
  Hashes evicted;
  expect_refused(pool.allocate_blocks_blocking(4, &evicted), ErrorCode::NotEnoughBlocksAvailable, 4,
                 3);
  EXPECT_TRUE(evicted.empty());
  const auto blocks = pool.allocate_blocks_blocking(3, &evicted).value();
  EXPECT_EQ(evicted, Hashes({names[1], names[0]})) << "a child goes before its parent";
}

TEST(PoolFeaturesTest, ReturnBlocksDropsHandlesOfAnyPoolAndEmptyOnes) {
  const Pool one = make_pool(80);
  const Pool two = make_pool(80);
  MutableBlocks<PinnedStorage> owned = one.allocate_blocks_blocking(70).value();
  owned.emplace_back();
  for (auto& block : two.allocate_blocks_blocking(70).value()) owned.push_back(std::move(block));
  owned[3].apply_token_block(prompt(1, 1).blocks()[0]).value();
  owned[75].init_sequence().value();
  Pool::return_blocks(std::move(owned));
  EXPECT_EQ(one.stats().free_blocks, 80u);
  EXPECT_EQ(two.stats().free_blocks, 80u);

  ImmutableBlocks<PinnedStorage> shared = put(one, prompt(1, 70).blocks());
  shared.push_back(shared[7].clone());
  shared.emplace_back();
  for (auto& block : put(two, prompt(1, 70).blocks())) shared.push_back(std::move(block));
  Pool::return_blocks(std::move(shared));
  EXPECT_EQ(one.available_blocks(), 80u);
  EXPECT_EQ(two.available_blocks(), 80u);
  EXPECT_EQ(one.stats().registered_blocks, 70u);
  EXPECT_EQ(two.match_run(prompt(1, 70).sequence_hashes()).value().size(), 70u);
  Pool::return_blocks(MutableBlocks<PinnedStorage>());
}

// --- digests and namespaces ------------------------------------------------------------------

TEST(PoolFeaturesTest, ABlockOfAnotherKeyIsAMissUnderTheSameHash) {
  const Pool pool = make_pool(6);
  const auto mine = prompt(1, 3, keyed('a'));
  const auto crafted = prompt(1, 3, keyed('b'));
  const auto without = prompt(1, 3);
  ASSERT_EQ(mine.sequence_hashes(), crafted.sequence_hashes()) << "a key changes no name";
  put(pool, mine.blocks());
  EXPECT_EQ(pool.match_token_blocks(mine.blocks()).value().size(), 3u);
  EXPECT_EQ(pool.match_run(mine.blocks()).value().size(), 3u);
  for (const auto* other : {&crafted, &without}) {
    EXPECT_TRUE(pool.match_token_blocks(other->blocks()).value().empty());
    EXPECT_TRUE(pool.match_run(other->blocks()).value().empty());
  }
  std::vector<TokenBlock> mixed(mine.blocks().begin(), mine.blocks().end());
  mixed[2] = crafted.blocks()[2];
  EXPECT_EQ(pool.match_token_blocks(mixed).value().size(), 2u);
  EXPECT_EQ(pool.match_run(mixed).value().size(), 2u);
  EXPECT_EQ(pool.match_sequence_hashes_blocking(crafted.sequence_hashes()).value().size(), 3u)
      << "who has no digests does not ask for them";

  const auto theirs = put(pool, crafted.blocks());
  EXPECT_EQ(pool.stats().collisions, 3u);
  EXPECT_EQ(theirs[0].sequence_hash(), mine.blocks()[0].sequence_hash());
  EXPECT_TRUE(pool.match_token_blocks(crafted.blocks()).value().empty());
  EXPECT_EQ(pool.match_token_blocks(mine.blocks()).value().size(), 3u);
}

TEST(PoolFeaturesTest, DigestsComeWithTokensThatWereAddedOneByOne) {
  const Pool pool = make_pool(1);
  const auto tokens = prompt(1, 1, keyed('a'));
  auto block = pool.allocate_block().value();
  block.init_sequence(keyed('a'), 9).value();
  block.add_tokens(tokens.blocks()[0].tokens()).value();
  std::vector<CompleteBlock<PinnedStorage>> blocks;
  blocks.push_back(std::move(block).mark_complete().value());
  pool.register_blocks_blocking(std::move(blocks)).value();
  EXPECT_EQ(pool.match_token_blocks(tokens.blocks(), 9).value().size(), 1u);
  EXPECT_EQ(pool.match_token_blocks(prompt(1, 1).blocks(), 9).value().size(), 0u);
  EXPECT_EQ(pool.match_token_blocks(tokens.blocks()).value().size(), 0u);
}

TEST(PoolFeaturesTest, NamespacesAreFoundAndForgottenApart) {
  const Pool pool = make_pool(8);
  const auto tokens = prompt(1, 2);
  const Hashes hashes = tokens.sequence_hashes();
  const auto held = put(pool, tokens.blocks(), 1);
  put(pool, tokens.blocks(), 2);
  const auto count = [&](NamespaceId space) {
    const std::size_t run = pool.match_run(hashes, space).value().size();
    EXPECT_EQ(pool.match_run(tokens.blocks(), space).value().size(), run);
    EXPECT_EQ(pool.match_sequence_hashes_blocking(hashes, space).value().size(), run);
    EXPECT_EQ(pool.match_token_blocks(tokens.blocks(), space).value().size(), run);
    EXPECT_EQ(pool.scan_matches(hashes, space).value().size(), run);
    EXPECT_EQ(pool.touch_blocks(hashes, space).value(), run);
    EXPECT_EQ(pool.contains_blocks(hashes, space).value(), std::vector<bool>(2, run > 0));
    EXPECT_EQ(pool.protect(hashes, space).value(), run);
    return run;
  };
  EXPECT_EQ(count(0), 0u);
  EXPECT_EQ(count(1), 2u);
  EXPECT_EQ(count(2), 2u);

  PoolReset reset = pool.reset(1).value();
  EXPECT_EQ(reset.evictable, 0u);
  EXPECT_EQ(reset.still_held, 2u);
  EXPECT_EQ(count(1), 0u);
  EXPECT_EQ(count(2), 2u);
  EXPECT_EQ(held[1].sequence_hash(), hashes[1]) << "valid for its holder";
  EXPECT_FALSE(held[0].downgrade().upgrade());
  reset = pool.reset().value();
  EXPECT_EQ(reset.evictable, 2u);
  EXPECT_EQ(reset.still_held, 0u) << "forgotten before";
  EXPECT_EQ(count(2), 0u);
}

TEST(PoolFeaturesTest, ContainsTellsEachNameAndIsNoUse) {
  const Pool pool = make_pool(3);
  const auto tokens = prompt(1, 3);
  put(pool, tokens.blocks().first(1));
  put(pool, tokens.blocks().subspan(2));
  put(pool, prompt(100, 1).blocks());
  EXPECT_EQ(pool.contains_blocks(tokens.sequence_hashes()).value(),
            std::vector<bool>({true, false, true}));
  EXPECT_TRUE(pool.contains_blocks({}).value().empty());
  EXPECT_EQ(pool.stats().matches, 0u);
  EXPECT_TRUE(std::isnan(pool.hit_ratio_at(1)));
  Hashes evicted;
  const auto blocks = pool.allocate_blocks_blocking(1, &evicted).value();
  EXPECT_EQ(evicted, Hashes({tokens.sequence_hashes()[0]}));
}

// --- retention -------------------------------------------------------------------------------

TEST(PoolFeaturesTest, ATokenRangeCoversEveryBlockThatHoldsOneOfItsTokens) {
  const Pool pool = make_pool(4);
  put(pool, prompt(1, 4).blocks());
  const auto run = pool.match_run(prompt(1, 4).sequence_hashes()).value();
  struct Case {
    TokenRange tokens;
    std::vector<std::uint32_t> expected;
  };
  constexpr std::uint32_t d = DEFAULT_PRIORITY;
  const Case cases[] = {
      {{}, {9, 9, 9, 9}},       {{0, 1}, {9, d, d, d}},     {{0, 4}, {9, d, d, d}},
      {{0, 5}, {9, 9, d, d}},   {{3, 4}, {9, d, d, d}},     {{3, 5}, {9, 9, d, d}},
      {{4, 8}, {d, 9, d, d}},   {{2, 10}, {9, 9, 9, d}},    {{15, 16}, {d, d, d, 9}},
      {{15, {}}, {d, d, d, 9}}, {{12, 1000}, {d, d, d, 9}}, {{7, {}}, {d, 9, 9, 9}},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(testing::Message() << one.tokens.begin << " .. " << one.tokens.end.value_or(999));
    ASSERT_TRUE(pool.retain(run, {}).has_value());
    ASSERT_TRUE(pool.retain(run, {.priority = 9}, one.tokens).has_value());
    EXPECT_EQ(priorities(run), one.expected);
  }
}

TEST(PoolFeaturesTest, TokenRangesThatAreEmptyOrOutsideAreRefused) {
  const Pool pool = make_pool(2);
  put(pool, prompt(1, 2).blocks());
  const auto run = pool.match_run(prompt(1, 2).sequence_hashes()).value();
  for (const TokenRange& tokens : std::initializer_list<TokenRange>{
           {8, {}}, {8, 9}, {1000, {}}, {0, 0}, {5, 5}, {6, 5}, {~std::size_t{0}, {}}}) {
    expect_refused(pool.retain(run, {.priority = 9}, tokens), ErrorCode::InvalidConfig,
                   tokens.begin, 8);
  }
  EXPECT_EQ(priorities(run), std::vector<std::uint32_t>(2, DEFAULT_PRIORITY));
}

TEST(PoolFeaturesTest, RetainRefusesBadArgumentsAndHandles) {
  const Pool pool = make_pool(3);
  const Pool other = make_pool(3);
  put(pool, prompt(1, 2).blocks());
  put(other, prompt(1, 2).blocks());
  const Hashes hashes = prompt(1, 2).sequence_hashes();
  const auto run = pool.match_run(hashes).value();
  const auto block = std::move(pool.match_sequence_hashes_blocking(hashes).value().front());
  const auto own = pool.allocate_block().value();
  for (const nanoseconds none : {nanoseconds(0), nanoseconds(-1), nanoseconds::min()}) {
    const RetentionOptions options{.priority = 9, .duration = none};
    expect_refused(pool.retain(run, options), ErrorCode::InvalidConfig);
    expect_refused(pool.retain(block, options), ErrorCode::InvalidConfig);
    expect_refused(pool.retain(own, options), ErrorCode::InvalidConfig);
    expect_refused(pool.lease(run, none), ErrorCode::InvalidConfig);
    expect_refused(pool.lease(block, none), ErrorCode::InvalidConfig);
  }
  constexpr RetentionOptions kTooHigh{.priority = MAX_PRIORITY + 1};
  expect_refused(pool.retain(run, kTooHigh), ErrorCode::InvalidConfig, 101, 100);
  expect_refused(pool.retain(block, kTooHigh), ErrorCode::InvalidConfig, 101, 100);
  expect_refused(pool.retain(own, kTooHigh), ErrorCode::InvalidConfig, 101, 100);

  constexpr ErrorCode kForeign = ErrorCode::InvalidMutableBlock;
  expect_refused(pool.retain(Pool::Mutable(), {}), kForeign);
  expect_refused(pool.retain(Pool::Immutable(), {}), kForeign);
  expect_refused(pool.retain(BlockRun<PinnedStorage>(), {}), kForeign);
  expect_refused(other.retain(run, {.priority = 9}), kForeign);
  expect_refused(other.retain(block, {.priority = 9}), kForeign);
  expect_refused(other.retain(own, {.priority = 9}), kForeign);
  expect_refused(pool.lease(Pool::Immutable(), hours(1)), kForeign);
  expect_refused(pool.lease(BlockRun<PinnedStorage>(), hours(1)), kForeign);
  expect_refused(other.lease(run, hours(1)), kForeign);
  expect_refused(other.lease(block, hours(1)), kForeign);
  EXPECT_EQ(priorities(run), std::vector<std::uint32_t>(2, DEFAULT_PRIORITY));
  EXPECT_EQ(own.metadata().priority, DEFAULT_PRIORITY);
  EXPECT_EQ(other.available_blocks(), 3u);
}

TEST(PoolFeaturesTest, ARetainedBlockKeepsItsPriorityThroughRegistration) {
  const Pool pool = make_pool(3);
  MutableBlocks<PinnedStorage> blocks;
  blocks.push_back(pool.allocate_block().value());
  pool.retain(blocks[0], {.priority = 80, .duration = nanoseconds::max()}).value();
  blocks[0].apply_token_block(prompt(1, 1).blocks()[0]).value();
  pool.register_blocks_blocking(std::move(blocks)).value();
  auto second = put(pool, prompt(100, 1).blocks());
  pool.retain(second[0], {.priority = 10}).value();
  second.clear();
  put(pool, prompt(200, 1).blocks());
  Hashes evicted;
  const auto all = pool.allocate_blocks_blocking(3, &evicted).value();
  EXPECT_EQ(evicted,
            Hashes({prompt(100, 1).sequence_hashes()[0], prompt(200, 1).sequence_hashes()[0],
                    prompt(1, 1).sequence_hashes()[0]}));
}

TEST(PoolFeaturesTest, APriorityEndsAfterItsDuration) {
  const Pool pool = make_pool(2);
  const auto held = put(pool, prompt(1, 2).blocks());
  pool.retain(held[0], {.priority = 80, .duration = nanoseconds(1)}).value();
  pool.retain(held[1], {.priority = 80, .duration = hours(1)}).value();
  let_a_nanosecond_pass();
  EXPECT_EQ(pool.match_run(prompt(1, 1).sequence_hashes()).value().size(), 1u);
  EXPECT_EQ(held[0].metadata().priority, DEFAULT_PRIORITY);
  EXPECT_EQ(held[1].metadata().priority, 80u);
}

TEST(PoolFeaturesTest, ProtectedBlocksAreEvictedLast) {
  const Pool pool = make_pool(4);
  const Hashes first = prompt(1, 2).sequence_hashes();
  const Hashes second = prompt(100, 1).sequence_hashes();
  put(pool, prompt(1, 2).blocks());
  {
    const auto wanted = put(pool, prompt(100, 1).blocks());
    pool.retain(wanted[0], {.priority = MAX_PRIORITY}).value();
  }
  put(pool, prompt(200, 1).blocks());
  EXPECT_EQ(pool.protect(prompt(1, 5).sequence_hashes()).value(), 2u);
  EXPECT_EQ(pool.protect(prompt(999, 2).sequence_hashes()).value(), 0u);
  Hashes evicted;
  const auto all = pool.allocate_blocks_blocking(4, &evicted).value();
  EXPECT_EQ(evicted, Hashes({prompt(200, 1).sequence_hashes()[0], second[0], first[1], first[0]}));
}

// --- leases ----------------------------------------------------------------------------------

TEST(PoolFeaturesTest, ALeaseOutlivesItsHandleUntilItIsGivenBack) {
  const Pool pool = make_pool(5);
  put(pool, prompt(1, 3).blocks());
  LeaseId of_run = 0;
  LeaseId of_block = 0;
  {
    const auto run = pool.match_run(prompt(1, 3).sequence_hashes()).value();
    of_run = pool.lease(run, hours(1)).value();
    of_block = pool.lease(put(pool, prompt(100, 1).blocks())[0], nanoseconds::max()).value();
  }
  EXPECT_NE(of_run, of_block);
  EXPECT_EQ(pool.available_blocks(), 1u);
  expect_refused(pool.allocate_blocks_blocking(2), ErrorCode::NotEnoughBlocksAvailable, 2, 1);
  EXPECT_TRUE(pool.release_lease(of_block));
  EXPECT_FALSE(pool.release_lease(of_block));
  EXPECT_EQ(pool.available_blocks(), 2u);
  EXPECT_TRUE(pool.release_lease(of_run));
  EXPECT_EQ(pool.available_blocks(), 5u);
  EXPECT_FALSE(pool.release_lease(12345)) << "never was";
}

TEST(PoolFeaturesTest, ALeaseThatIsOverFreesItsBlockForTheNextAllocation) {
  const Pool pool = make_pool(2);
  pool.lease(put(pool, prompt(1, 2).blocks())[1], nanoseconds(1)).value();
  let_a_nanosecond_pass();
  EXPECT_EQ(pool.allocate_blocks_blocking(2).value().size(), 2u);
}

// Killed mutant: only the calls that allocate or match told the store the time.
TEST(PoolFeaturesTest, ALeaseThatIsOverIsOverForEveryCall) {
  const Pool pool = make_pool(2);
  pool.lease(put(pool, prompt(1, 1).blocks())[0], nanoseconds(1)).value();
  let_a_nanosecond_pass();
  EXPECT_EQ(pool.available_blocks(), 2u);
  pool.lease(put(pool, prompt(1, 1).blocks())[0], nanoseconds(1)).value();
  let_a_nanosecond_pass();
  EXPECT_EQ(pool.stats().available_blocks, 2u);
  const LeaseId over = pool.lease(put(pool, prompt(1, 1).blocks())[0], nanoseconds(1)).value();
  let_a_nanosecond_pass();
  EXPECT_FALSE(pool.release_lease(over));
}

TEST(PoolFeaturesTest, LeasesEndWithThePool) {
  std::weak_ptr<detail::BlockSet> memory;
  {
    auto blocks = make(2);
    memory = blocks[0].set();
    const Pool pool = Pool::create({.blocks = std::move(blocks)}).value();
    pool.lease(put(pool, prompt(1, 1).blocks())[0], hours(1)).value();
  }
  EXPECT_TRUE(memory.expired());
}

// --- what other sizes would have found ---------------------------------------------------------

TEST(PoolFeaturesTest, TheCurveStepsWhereALoopFits) {
  const Pool pool = make_pool(1);
  EXPECT_TRUE(std::isnan(pool.hit_ratio_at(10)));
  EXPECT_TRUE(pool.miss_ratio_curve().empty());
  const Hashes loop = prompt(1, 6).sequence_hashes();
  // Ten rounds by four ways of asking; found or not makes no difference.
  for (int i = 0; i < 10; ++i) {
    switch (i % 3) {
      case 0: pool.match_run(loop).value(); break;
      case 1: pool.match_sequence_hashes_blocking(loop).value(); break;
      case 2: pool.match_token_blocks(prompt(1, 6).blocks()).value(); break;
    }
    pool.contains_blocks(loop).value();
  }
  EXPECT_DOUBLE_EQ(pool.hit_ratio_at(0), 0);
  EXPECT_DOUBLE_EQ(pool.hit_ratio_at(5), 0);
  EXPECT_DOUBLE_EQ(pool.hit_ratio_at(6), 0.9);
  EXPECT_DOUBLE_EQ(pool.hit_ratio_at(1'000'000), 0.9);
  const auto curve = pool.miss_ratio_curve();
  ASSERT_FALSE(curve.empty());
  for (std::size_t i = 0; i < curve.size(); ++i) {
    EXPECT_DOUBLE_EQ(curve[i].hit_ratio, curve[i].blocks >= 6 ? 0.9 : 0.0);
    if (i > 0) {
      EXPECT_GT(curve[i].blocks, curve[i - 1].blocks);
    }
  }
  EXPECT_EQ(curve.back().blocks, 6u);
}

// --- the eviction policy -----------------------------------------------------------------------

// Two chains A and B and, after them, a use of A's root alone. Which names go, in order.
Hashes evictions_under(EvictionPolicy policy) {
  const Pool pool = make_pool(3, policy);
  put(pool, prompt(1, 2).blocks());
  put(pool, prompt(100, 1).blocks());
  pool.match_run(prompt(1, 1).sequence_hashes()).value();
  Hashes evicted;
  std::vector<Pool::Mutable> taken;
  for (int i = 0; i < 3; ++i) {
    taken.push_back(std::move(pool.allocate_blocks_blocking(1, &evicted).value().front()));
  }
  // Only the policy that learns has a use for the time.
  EXPECT_EQ(taken[0].hold().store()->wants_time(), policy == EvictionPolicy::AgeIndex);
  return evicted;
}

TEST(PoolFeaturesTest, EachPolicyCanBeChosen) {
  const Hashes a = prompt(1, 2).sequence_hashes();
  const SequenceHash b = prompt(100, 1).sequence_hashes()[0];
  EXPECT_EQ(evictions_under(EvictionPolicy::Lru), Hashes({a[1], b, a[0]}))
      << "the root was used again";
  EXPECT_EQ(evictions_under(EvictionPolicy::AgeIndex), Hashes({a[1], b, a[0]}))
      << "as long as it has learned nothing";
  EXPECT_EQ(evictions_under(EvictionPolicy::Fifo), Hashes({a[1], a[0], b}));
}

// --- metrics -----------------------------------------------------------------------------------

// An exporter without collectors: its numbers are brought up to date by each call.
class PlainRegistry : public Registry {
 public:
  std::shared_ptr<Counter> counter(const MetricName& name) override {
    return memory_.counter(name);
  }
  std::shared_ptr<Gauge> gauge(const MetricName& name) override { return memory_.gauge(name); }
  std::shared_ptr<Histogram> histogram(const MetricName& name,
                                       std::span<const double> bounds) override {
    return memory_.histogram(name, bounds);
  }
  double value(const char* name) const {
    for (const auto& sample : memory_.samples()) {
      if (sample.name == name && sample.tier == "host") return sample.value;
    }
    return -1;
  }

 protected:
  MemoryRegistry memory_;
};

TEST(PoolFeaturesTest, WithoutCollectorsEveryCallBringsTheMetricsUpToDate) {
  const auto registry = std::make_shared<PlainRegistry>();
  const Pool pool = Pool::create({.blocks = make(3), .metrics_registry = registry}).value();
  namespace names = metric_names;
  {
    auto blocks = pool.allocate_blocks_blocking(1).value();
    EXPECT_EQ(registry->value(names::kAllocations), 1);
    EXPECT_EQ(registry->value(names::kTotalBlocks), 3);
    EXPECT_EQ(registry->value(names::kAvailableBlocks), 2);
    const auto single = pool.allocate_block().value();
    EXPECT_EQ(registry->value(names::kAllocations), 2);
    blocks[0].apply_token_block(prompt(1, 1).blocks()[0]).value();
    pool.register_blocks_blocking(std::move(blocks)).value();
    EXPECT_EQ(registry->value(names::kRegistrations), 1);
  }
  const Hashes hashes = prompt(1, 1).sequence_hashes();
  pool.match_run(hashes).value();
  EXPECT_EQ(registry->value(names::kMatches), 1);
  pool.match_sequence_hashes_blocking(hashes).value();
  EXPECT_EQ(registry->value(names::kMatches), 2);
  pool.scan_matches(hashes).value();
  EXPECT_EQ(registry->value(names::kMatches), 3);
  pool.allocate_blocks_blocking(3).value();
  EXPECT_EQ(registry->value(names::kEvictions), 1);
}

// The same with collectors, of which it keeps count.
class CollectingRegistry final : public PlainRegistry {
 public:
  std::shared_ptr<void> add_collector(std::function<void()> collect) override {
    auto collector = memory_.add_collector(std::move(collect));
    collectors.push_back(collector);
    return collector;
  }
  std::vector<std::weak_ptr<void>> collectors;
};

TEST(PoolFeaturesTest, ACollectorReadsTheNumbersAndEndsWithThePool) {
  const auto registry = std::make_shared<CollectingRegistry>();
  namespace names = metric_names;
  {
    const Pool pool = Pool::create({.blocks = make(2), .metrics_registry = registry}).value();
    ASSERT_EQ(registry->collectors.size(), 1u);
    put(pool, prompt(1, 2).blocks());
    EXPECT_EQ(registry->value(names::kAllocations), 2);
    EXPECT_EQ(registry->value(names::kAvailableBlocks), 2);
    pool.match_run(prompt(1, 2).sequence_hashes()).value();
    EXPECT_EQ(registry->value(names::kMatches), 2);
    pool.match_run(prompt(1, 2).sequence_hashes()).value();
  }
  EXPECT_TRUE(registry->collectors[0].expired());
  EXPECT_EQ(registry->value(names::kMatches), 4) << "nothing is lost at the end";
}

TEST(PoolFeaturesTest, APoolMayOutliveItsRegistrysOwner) {
  auto registry = std::make_shared<CollectingRegistry>();
  const Pool pool = Pool::create({.blocks = make(1), .metrics_registry = registry}).value();
  registry.reset();
  put(pool, prompt(1, 1).blocks());  // ASan is the judge
  EXPECT_EQ(pool.stats().registrations, 1u);
}

// --- closing -----------------------------------------------------------------------------------

TEST(PoolFeaturesTest, AStoppedTokenClosesTheseCallsToo) {
  std::stop_source stop;
  const Pool pool =
      Pool::create({.blocks = make(4), .cancellation_token = stop.get_token()}).value();
  const auto tokens = prompt(1, 2);
  const Hashes hashes = tokens.sequence_hashes();
  const auto held = put(pool, tokens.blocks());
  const auto run = pool.match_run(hashes).value();
  const LeaseId lease = pool.lease(run, hours(1)).value();
  MutableBlocks<PinnedStorage> own = pool.allocate_blocks_blocking(1).value();
  stop.request_stop();

  constexpr ErrorCode kClosed = ErrorCode::ProgressEngineShutdown;
  expect_refused(pool.allocate_block(), kClosed);
  expect_refused(pool.match_token_blocks(tokens.blocks()), kClosed);
  expect_refused(pool.match_run(tokens.blocks()), kClosed);
  expect_refused(pool.contains_blocks(hashes), kClosed);
  expect_refused(pool.protect(hashes), kClosed);
  expect_refused(pool.reset(1), kClosed);
  expect_refused(pool.retain(own[0], {}), kClosed);
  expect_refused(pool.retain(held[0], {}), kClosed);
  expect_refused(pool.retain(run, {}), kClosed);
  expect_refused(pool.lease(held[0], hours(1)), kClosed);
  expect_refused(pool.lease(run, hours(1)), kClosed);
  expect_refused(pool.register_blocks_blocking(std::move(own)), kClosed);
  EXPECT_TRUE(pool.release_lease(lease)) << "what gives back goes on";
  EXPECT_EQ(held[0].metadata().priority, DEFAULT_PRIORITY);
}

TEST(PoolBookkeepingTest, ABlockMoreCostsAtMost64BytesMoreAndItsMetadata) {
  const auto bytes = [](std::size_t blocks, EvictionPolicy eviction) {
    return static_cast<double>(make_pool(blocks, eviction).stats().bookkeeping_bytes);
  };
  const double each = (bytes(3000, EvictionPolicy::Lru) - bytes(1000, EvictionPolicy::Lru)) / 2000;
  EXPECT_LE(each, 64 + 4);
  EXPECT_GT(each, 50);
  EXPECT_GT(bytes(1000, EvictionPolicy::AgeIndex), 1000 * (each + 100)) << "what it learns";
}

}  // namespace
}  // namespace kvbm
