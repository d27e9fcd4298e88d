// Pools that stand alone, through the public interface.
#include "kvbm/pool.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "observe/metric_names.h"
#include "tiers/tier_pool.h"

namespace kvbm {
namespace {

constexpr std::size_t kPage = 4;

LayoutConfig small_layout(std::size_t blocks) {
  return {.num_blocks = blocks,
          .num_layers = 2,
          .outer_dim = 2,
          .page_size = kPage,
          .inner_dim = 3,
          .dtype = DType::FP32,
          .alignment = 4096};
}

template <class S, class M = BasicMetadata>
std::vector<Block<S, locality::Local, M>> make(StorageAllocator<S>& allocator, std::size_t blocks) {
  const LayoutConfig config = small_layout(blocks);
  std::vector<S> storages = {
      allocator.allocate(config.storage_bytes(LayoutType::FullyContiguous).value()).value()};
  return make_blocks<S, M>(LayoutType::FullyContiguous, config, storages).value();
}

template <class S>
BlockPool<S> make_pool(StorageAllocator<S>& allocator, std::size_t blocks) {
  return BlockPool<S>::create({.blocks = make(allocator, blocks)}).value();
}

BlockPool<PinnedStorage> make_pool(std::size_t blocks) {
  PinnedAllocator allocator;
  return make_pool(allocator, blocks);
}

TokenBlockSequence prompt(Token first, std::size_t blocks) {
  std::vector<Token> tokens(blocks * kPage);
  std::iota(tokens.begin(), tokens.end(), first);
  return TokenBlockSequence::create(tokens, kPage).value();
}

template <class Pool>
std::vector<typename Pool::Immutable> put(Pool& pool, std::span<const TokenBlock> tokens) {
  auto blocks = pool.allocate_blocks_blocking(tokens.size()).value();
  for (std::size_t i = 0; i < tokens.size(); ++i) blocks[i].apply_token_block(tokens[i]).value();
  return pool.register_blocks_blocking(std::move(blocks)).value();
}

template <class T>
void expect_refused(const Result<T>& result, ErrorCode code, std::uint64_t requested = 0,
                    std::uint64_t available = 0) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code);
  EXPECT_EQ(result.error().requested, requested);
  EXPECT_EQ(result.error().available, available);
}

// --- storages --------------------------------------------------------------------------------

// What every pool in memory does, whatever its storage.
template <class S>
void fill_register_match(StorageAllocator<S>& allocator, StorageType::Kind kind) {
  auto pool = make_pool(allocator, 3);
  EXPECT_EQ(pool.total_blocks(), 3u);
  const auto tokens = prompt(1, 2);
  {
    auto blocks = pool.allocate_blocks_blocking(2).value();
    EXPECT_EQ(pool.available_blocks(), 1u);
    for (std::size_t i = 0; i < 2; ++i) {
      auto view = blocks[i].block_view_mut().value();
      EXPECT_EQ(view.storage_type().kind, kind);
      EXPECT_EQ(view.size(), small_layout(3).block_bytes());
      view.bytes()[5] = std::byte(40 + i);
      blocks[i].apply_token_block(tokens.blocks()[i]).value();
    }
    pool.register_blocks_blocking(std::move(blocks)).value();
  }
  const auto found = pool.match_sequence_hashes_blocking(tokens.sequence_hashes()).value();
  ASSERT_EQ(found.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(found[i].block_view().value().bytes()[5], std::byte(40 + i));
    EXPECT_EQ(found[i].sequence_hash(), tokens.blocks()[i].sequence_hash());
  }
}

TEST(StandAlonePoolTest, WorksOverEveryStorageInMemory) {
  SystemAllocator system;
  fill_register_match(system, StorageType::Kind::System);
  PinnedAllocator pinned;
  fill_register_match(pinned, StorageType::Kind::Pinned);
  HostBackedDeviceAllocator device;
  fill_register_match(device, StorageType::Kind::System);
}

TEST(StandAlonePoolTest, DiskBlocksHaveNoViewsAndNoOwnersDoor) {
  DiskAllocator allocator(testing::TempDir());
  auto pool = make_pool(allocator, 2);
  auto blocks = pool.allocate_blocks_blocking(1).value();
  expect_refused(blocks[0].layer_view(0, 0), ErrorCode::NotAccessible);
  blocks[0].apply_token_block(prompt(1, 1).blocks()[0]).value();
  expect_refused(pool.register_blocks_blocking(std::move(blocks)), ErrorCode::NotAccessible);
  EXPECT_EQ(pool.available_blocks(), 2u);
  EXPECT_EQ(pool.stats().registered_blocks, 0u);
}

TEST(StandAlonePoolTest, MakeBlocksRefusesWrongStorages) {
  const LayoutConfig config = small_layout(2);
  const auto refused = [&](std::vector<SystemStorage> storages) {
    const auto made = make_blocks(LayoutType::FullyContiguous, config, storages);
    return !made.has_value() && made.error().code == ErrorCode::InvalidConfig;
  };
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused({SystemAllocator().allocate(16).value()}));
  const std::size_t bytes = config.storage_bytes(LayoutType::FullyContiguous).value();
  EXPECT_TRUE(refused(
      {SystemAllocator().allocate(bytes).value(), SystemAllocator().allocate(bytes).value()}));
}

// --- adding blocks ---------------------------------------------------------------------------

TEST(StandAlonePoolTest, NeedsABlock) {
  expect_refused(BlockPool<PinnedStorage>::create({}), ErrorCode::InvalidConfig);
}

TEST(StandAlonePoolTest, GrowsByBlocksOfItsOwnSet) {
  PinnedAllocator allocator;
  auto blocks = make(allocator, 4);
  std::vector<Block<PinnedStorage>> first;
  first.push_back(std::move(blocks[2]));
  auto pool = BlockPool<PinnedStorage>::create({.blocks = std::move(first)}).value();
  EXPECT_EQ(pool.total_blocks(), 1u);
  expect_refused(pool.allocate_blocks_blocking(2), ErrorCode::NotEnoughBlocksAvailable, 2, 1);

  std::vector<Block<PinnedStorage>> more;
  more.push_back(std::move(blocks[0]));
  ASSERT_TRUE(pool.add_blocks(std::move(more)).done());
  EXPECT_EQ(pool.total_blocks(), 2u);
  const auto taken = pool.allocate_blocks_blocking(2).value();
  EXPECT_EQ(taken[0].block_id(), 0u) << "what was freed last is taken first";
  EXPECT_EQ(taken[1].block_id(), 2u);
}

TEST(StandAlonePoolTest, RefusesBlocksOfAnotherSetAndBlocksThatItHas) {
  PinnedAllocator allocator;
  auto mine = make(allocator, 3);
  auto foreign = make(allocator, 3);
  const auto set = mine[0].set();
  std::vector<Block<PinnedStorage>> first;
  first.push_back(std::move(mine[0]));
  auto pool = BlockPool<PinnedStorage>::create({.blocks = std::move(first)}).value();

  std::vector<Block<PinnedStorage>> mixed;
  mixed.push_back(std::move(mine[1]));
  mixed.push_back(std::move(foreign[2]));
  expect_refused(pool.add_blocks_blocking(std::move(mixed)), ErrorCode::InvalidMutableBlock, 1, 2);
  std::vector<Block<PinnedStorage>> again;
  again.emplace_back(set, BlockId{2});
  again.emplace_back(set, BlockId{0});
  expect_refused(pool.add_blocks_blocking(std::move(again)), ErrorCode::InvalidMutableBlock, 0, 3);
  EXPECT_EQ(pool.total_blocks(), 1u) << "all or nothing";

  std::vector<Block<PinnedStorage>> both;
  both.push_back(std::move(foreign[0]));
  both.emplace_back(set, BlockId{1});
  expect_refused(BlockPool<PinnedStorage>::create({.blocks = std::move(both)}),
                 ErrorCode::InvalidMutableBlock, 1, 2);
}

// --- registration ----------------------------------------------------------------------------

TEST(StandAlonePoolTest, RegistrationNamesTheIncompleteBlockAndFreesAll) {
  auto pool = make_pool(3);
  auto blocks = pool.allocate_blocks_blocking(3).value();
  const auto tokens = prompt(1, 3);
  blocks[0].apply_token_block(tokens.blocks()[0]).value();
  blocks[1].init_sequence().value();
  blocks[1].add_tokens(tokens.blocks()[1].tokens()).value();  // full, but not committed
  blocks[2].apply_token_block(tokens.blocks()[2]).value();
  expect_refused(pool.register_blocks_blocking(std::move(blocks)), ErrorCode::BlockNotComplete, 1,
                 3);
  EXPECT_EQ(pool.stats().free_blocks, 3u);
  EXPECT_EQ(pool.stats().registered_blocks, 0u);
}

TEST(StandAlonePoolTest, EmptyAndForeignHandlesAreRefused) {
  auto pool = make_pool(2);
  auto other = make_pool(2);
  const auto tokens = prompt(1, 2);
  MutableBlocks<PinnedStorage> blocks = pool.allocate_blocks_blocking(1).value();
  blocks[0].apply_token_block(tokens.blocks()[0]).value();
  blocks.emplace_back();
  expect_refused(pool.register_blocks_blocking(std::move(blocks)), ErrorCode::InvalidMutableBlock,
                 1, 2);
  blocks = pool.allocate_blocks_blocking(1).value();
  blocks.push_back(std::move(other.allocate_blocks_blocking(1).value()[0]));
  for (std::size_t i = 0; i < 2; ++i) blocks[i].apply_token_block(tokens.blocks()[i]).value();
  expect_refused(pool.register_blocks_blocking(std::move(blocks)), ErrorCode::InvalidMutableBlock,
                 1, 2);
  std::vector<CompleteBlock<PinnedStorage>> complete(1);
  expect_refused(pool.register_blocks_blocking(std::move(complete)), ErrorCode::InvalidMutableBlock,
                 0, 1);
  EXPECT_EQ(pool.available_blocks(), 2u);
  EXPECT_EQ(other.available_blocks(), 2u);
  EXPECT_EQ(pool.stats().registered_blocks + other.stats().registered_blocks, 0u);
}

TEST(StandAlonePoolTest, NothingIsAnAnswerToNothing) {
  auto pool = make_pool(1);
  EXPECT_TRUE(pool.allocate_blocks_blocking(0).value().empty());
  EXPECT_TRUE(pool.register_blocks_blocking(MutableBlocks<PinnedStorage>()).value().empty());
  EXPECT_TRUE(pool.match_sequence_hashes_blocking({}).value().empty());
  EXPECT_TRUE(pool.match_run(std::span<const SequenceHash>()).value().empty());
  EXPECT_TRUE(pool.scan_matches({}).value().empty());
  EXPECT_EQ(pool.touch_blocks({}).value(), 0u);
  expect_refused(pool.allocate_blocks_blocking(std::size_t{1} << 60),
                 ErrorCode::NotEnoughBlocksAvailable, std::uint64_t{1} << 60, 1);
}

TEST(StandAlonePoolTest, ScanTouchResetAndWeakHandles) {
  auto pool = make_pool(4);
  const auto tokens = prompt(1, 3);
  const auto hashes = tokens.sequence_hashes();
  auto held = put(pool, tokens.blocks().subspan(2));
  const auto weak = held[0].downgrade();
  EXPECT_EQ(weak.sequence_hash(), hashes[2]);
  const auto found = pool.scan_matches(hashes).value();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].first, 2u);
  EXPECT_EQ(found[0].second.block_id(), held[0].block_id());
  EXPECT_EQ(pool.touch_blocks(hashes).value(), 0u);
  EXPECT_EQ(pool.touch_blocks(std::span(hashes).subspan(2)).value(), 1u);
  EXPECT_EQ(weak.upgrade().block_id(), held[0].block_id());
  const PoolReset reset = pool.reset().value();
  EXPECT_EQ(reset.evictable, 0u);
  EXPECT_EQ(reset.still_held, 1u);
  EXPECT_FALSE(weak.upgrade());
}

// --- closing ---------------------------------------------------------------------------------

TEST(StandAlonePoolTest, AStoppedTokenClosesEveryCall) {
  PinnedAllocator allocator;
  std::stop_source stop;
  const auto made = BlockPool<PinnedStorage>::create(
      {.blocks = make(allocator, 3), .cancellation_token = stop.get_token()});
  auto pool = std::move(const_cast<BlockPool<PinnedStorage>&>(made.value()));
  const auto tokens = prompt(1, 1);
  const auto hashes = tokens.sequence_hashes();
  const auto held = put(pool, tokens.blocks());
  MutableBlocks<PinnedStorage> owned = pool.allocate_blocks_blocking(1).value();
  owned[0].apply_token_block(prompt(9, 1).blocks()[0]).value();
  stop.request_stop();

  constexpr ErrorCode kClosed = ErrorCode::ProgressEngineShutdown;
  expect_refused(pool.allocate_blocks_blocking(1), kClosed);
  expect_refused(pool.allocate_blocks(0).await_resume(), kClosed);
  expect_refused(pool.match_sequence_hashes_blocking(hashes), kClosed);
  expect_refused(pool.match_sequence_hashes(hashes).await_resume(), kClosed);
  expect_refused(pool.match_run(hashes), kClosed);
  expect_refused(pool.scan_matches(hashes), kClosed);
  expect_refused(pool.touch_blocks(hashes), kClosed);
  expect_refused(pool.reset(), kClosed);
  expect_refused(pool.add_blocks_blocking({}), kClosed);
  expect_refused(pool.register_blocks_blocking(std::move(owned)), kClosed);
  expect_refused(pool.register_blocks_blocking(std::vector<CompleteBlock<PinnedStorage>>()),
                 kClosed);
  EXPECT_EQ(pool.total_blocks(), 3u);
  EXPECT_EQ(pool.available_blocks(), 2u) << "the counts go on";
  EXPECT_TRUE(held[0].block_view().has_value()) << "and handles";
}

TEST(StandAlonePoolTest, ATokenThatWasStoppedBeforeMakesNoPool) {
  PinnedAllocator allocator;
  std::stop_source stop;
  stop.request_stop();
  expect_refused(BlockPool<PinnedStorage>::create(
                     {.blocks = make(allocator, 1), .cancellation_token = stop.get_token()}),
                 ErrorCode::ProgressEngineShutdown);
}

TEST(StandAlonePoolTest, TheTokenMayBeStoppedAfterThePoolIsGone) {
  PinnedAllocator allocator;
  std::stop_source stop;
  ImmutableBlocks<PinnedStorage> held;
  {
    auto pool = BlockPool<PinnedStorage>::create(
                    {.blocks = make(allocator, 1), .cancellation_token = stop.get_token()})
                    .value();
    held = put(pool, prompt(1, 1).blocks());
  }
  stop.request_stop();  // ASan is the judge
  EXPECT_TRUE(held[0].block_view().has_value());
}

// --- metrics, events, metadata ---------------------------------------------------------------

TEST(StandAlonePoolTest, MetricsHaveThePoolsNumbers) {
  const auto registry = std::make_shared<MemoryRegistry>();
  PinnedAllocator allocator;
  auto pool =
      BlockPool<PinnedStorage>::create({.blocks = make(allocator, 3), .metrics_registry = registry})
          .value();
  put(pool, prompt(1, 2).blocks());
  put(pool, prompt(100, 2).blocks());  // evicts one
  const auto held = pool.match_sequence_hashes_blocking(prompt(100, 2).sequence_hashes()).value();
  pool.match_run(prompt(1, 2).sequence_hashes()).value();

  const PoolStats stats = pool.stats();  // and brings the gauges up to date
  const auto value = [&](const char* name) {
    for (const auto& sample : registry->samples()) {
      if (sample.name == name && sample.tier == "host") return sample.value;
    }
    return -1.0;
  };
  namespace names = metric_names;
  EXPECT_EQ(value(names::kAllocations), 4);
  EXPECT_EQ(value(names::kRegistrations), 4);
  EXPECT_EQ(value(names::kMatches), 3);
  EXPECT_EQ(value(names::kEvictions), 1);
  EXPECT_EQ(value(names::kTotalBlocks), 3);
  EXPECT_EQ(value(names::kAvailableBlocks), 1);
  EXPECT_EQ(value(names::kAllocations), static_cast<double>(stats.allocations));
  EXPECT_EQ(value(names::kRegistrations), static_cast<double>(stats.registrations));
  EXPECT_EQ(value(names::kMatches), static_cast<double>(stats.matches));
  EXPECT_EQ(value(names::kEvictions), static_cast<double>(stats.evictions));
}

TEST(StandAlonePoolTest, DurationsAreSampled) {
  const auto registry = std::make_shared<MemoryRegistry>();
  PinnedAllocator allocator;
  auto pool =
      BlockPool<PinnedStorage>::create({.blocks = make(allocator, 1), .metrics_registry = registry})
          .value();
  for (int i = 0; i < 128; ++i) pool.allocate_blocks_blocking(1).value();
  for (const auto& sample : registry->samples()) {
    if (sample.name != metric_names::kAllocationSeconds) continue;
    EXPECT_EQ(sample.count, 2u);
    EXPECT_GT(sample.value, 0);
  }
}

TEST(StandAlonePoolTest, AnEventManagerHearsThePool) {
  struct Log final : EventManager {
    void block_allocated(BlockId id) override { text += "a" + std::to_string(id); }
    void block_registered(BlockId id, SequenceHash) override { text += "r" + std::to_string(id); }
    void block_matched(BlockId id, SequenceHash) override { text += "m" + std::to_string(id); }
    void block_evicted(BlockId id) override { text += "e" + std::to_string(id); }
    std::string text;
  };
  const auto log = std::make_shared<Log>();
  PinnedAllocator allocator;
  {
    auto pool =
        BlockPool<PinnedStorage>::create({.blocks = make(allocator, 1), .event_manager = log})
            .value();
    put(pool, prompt(1, 1).blocks());
    pool.match_run(prompt(1, 1).sequence_hashes()).value();
    pool.allocate_blocks_blocking(1).value();
  }  // delivers what is queued
  EXPECT_EQ(log->text, "a0r0m0e0a0");
}

// A caller's type: blocks without a priority are never offloaded.
struct Owner {
  std::string name;
  std::optional<std::uint64_t> priority;
  std::uint64_t acquired = 0;
  void on_acquired(std::uint64_t tick) { acquired = tick; }
  void on_returned(std::uint64_t) {}
  void reset_metadata() {
    name.clear();
    priority.reset();
  }
  std::optional<std::uint64_t> offload_priority() const { return priority; }
};
using OwnedPool = BlockPool<PinnedStorage, locality::Local, Owner>;

TEST(StandAlonePoolTest, ACallersMetadataIsSharedByTheHandles) {
  PinnedAllocator allocator;
  auto pool = OwnedPool::create({.blocks = make<PinnedStorage, Owner>(allocator, 1)}).value();
  auto blocks = pool.allocate_blocks_blocking(1).value();
  EXPECT_GT(blocks[0].metadata().acquired, 0u);
  blocks[0].metadata().name = "alice";
  blocks[0].apply_token_block(prompt(1, 1).blocks()[0]).value();
  {
    const auto held = pool.register_blocks_blocking(std::move(blocks)).value();
    EXPECT_EQ(held[0].metadata().name, "alice");
    held[0].clone().metadata().name = "bob";
    EXPECT_EQ(held[0].metadata().name, "bob");
  }
  const auto found = pool.match_sequence_hashes_blocking(prompt(1, 1).sequence_hashes()).value();
  EXPECT_EQ(found.at(0).metadata().name, "bob") << "as long as the content";
}

TEST(StandAlonePoolTest, ACallersMetadataIsResetByEvictionAndByReset) {
  PinnedAllocator allocator;
  auto pool = OwnedPool::create({.blocks = make<PinnedStorage, Owner>(allocator, 1)}).value();
  auto block = std::move(pool.allocate_blocks_blocking(1).value()[0]);
  block.metadata().name = "alice";
  block.apply_token_block(prompt(1, 1).blocks()[0]).value();
  {
    std::vector<OwnedPool::Mutable> blocks;
    blocks.push_back(std::move(block));
    pool.register_blocks_blocking(std::move(blocks)).value();
  }
  block = std::move(pool.allocate_blocks_blocking(1).value()[0]);
  EXPECT_EQ(block.metadata().name, "");
  block.metadata().name = "carol";
  block.reset();
  EXPECT_EQ(block.metadata().name, "");
}

TEST(StandAlonePoolTest, BlocksWithoutAPriorityAreNeverOffered) {
  PinnedAllocator allocator;
  auto blocks = make<PinnedStorage, Owner>(allocator, 3);
  const auto inner =
      detail::TierPool::create(blocks[0].set(), {.metadata = detail::metadata_table<Owner>()})
          .value();
  std::vector<detail::OffloadOffer> offered;
  inner->set_listener([&](Tier tier, std::vector<detail::OffloadOffer> offers) {
    EXPECT_EQ(tier, Tier::Host);
    EXPECT_FALSE(offers.empty());
    for (const auto& offer : offers) offered.push_back(offer);
  });
  OwnedPool pool(inner);
  const auto tokens = prompt(1, 3);
  auto owned = pool.allocate_blocks_blocking(3).value();
  for (std::size_t i = 0; i < 3; ++i) owned[i].apply_token_block(tokens.blocks()[i]).value();
  owned[1].metadata().priority = 5;
  pool.register_blocks_blocking(std::move(owned)).value();
  ASSERT_EQ(offered.size(), 1u);
  EXPECT_EQ(offered[0].key.hash, tokens.blocks()[1].sequence_hash());
  EXPECT_EQ(offered[0].priority, 5u);
  pool.reset().value();
  put(pool, tokens.blocks());
  EXPECT_EQ(offered.size(), 1u) << "none of them wants to";
}

// --- logical blocks --------------------------------------------------------------------------

TEST(StandAlonePoolTest, LogicalBlocksHaveNamesButNoViews) {
  auto set = std::make_shared<detail::BlockSet>();
  set->tier = Tier::Host;
  set->config = small_layout(2);
  BlockPool<PinnedStorage, locality::Logical> pool(
      detail::TierPool::create(std::move(set), {}).value());
  auto blocks = pool.allocate_blocks_blocking(1).value();
  constexpr ErrorCode kNone = ErrorCode::ViewsNotAvailableOnLogicalBlocks;
  expect_refused(blocks[0].layer_view(0, 0), kNone);
  expect_refused(blocks[0].layer_view_mut(0, 0), kNone);
  expect_refused(blocks[0].layer_view(99, 99), kNone);
  expect_refused(blocks[0].block_view(), kNone);
  expect_refused(blocks[0].block_view_mut(), kNone);
  EXPECT_EQ(blocks[0].page_size(), kPage);
  const auto tokens = prompt(1, 1);
  blocks[0].apply_token_block(tokens.blocks()[0]).value();
  pool.register_blocks_blocking(std::move(blocks)).value();
  const auto found = pool.match_sequence_hashes_blocking(tokens.sequence_hashes()).value();
  ASSERT_EQ(found.size(), 1u);
  expect_refused(found[0].block_view(), kNone);
}

}  // namespace
}  // namespace kvbm
