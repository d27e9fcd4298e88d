// The core types of the API reference, item by item and in its order. docs/reference_api.md is the
// table that goes with these tests.
#include <gtest/gtest.h>

#include <concepts>
#include <coroutine>
#include <exception>
#include <type_traits>

#include "reference_fixture.h"

namespace kvbm {
namespace {

// A coroutine that runs on the caller's thread until it ends or waits.
struct Task {
  struct promise_type {
    Task get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

// Metadata of a caller: counts what the pool tells it.
struct CountingMetadata {
  int acquired = 0;
  int resets = 0;
  void on_acquired(std::uint64_t) noexcept { ++acquired; }
  void on_returned(std::uint64_t) noexcept {}
  void reset_metadata() noexcept { ++resets; }
  std::optional<std::uint64_t> offload_priority() const noexcept { return std::nullopt; }
};
static_assert(BlockMetadata<CountingMetadata> && BlockMetadata<BasicMetadata>);
static_assert(!BlockMetadata<int>);

// --- KvBlockManager --------------------------------------------------------------------------

TEST(ReferenceKvBlockManagerTest, IsMadeFromAConfigAndTellsBlockSizeAndWorker) {
  KvBlockManagerConfig config = small_config();
  config.runtime.worker_id = 42;
  const Result<KvBlockManager<BasicMetadata>> made = KvBlockManager<BasicMetadata>::create(config);
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(made->block_size(), kPage);
  EXPECT_EQ(made->worker_id(), WorkerID{42});
}

TEST(ReferenceKvBlockManagerTest, HasAPoolPerConfiguredTierAndNullWithoutOne) {
  auto manager = KvBlockManager<BasicMetadata>::create(small_config()).value();
  BlockPool<DeviceStorage, locality::Local, BasicMetadata>* device = manager.device();
  BlockPool<PinnedStorage, locality::Local, BasicMetadata>* host = manager.host();
  BlockPool<DiskStorage, locality::Local, BasicMetadata>* disk = manager.disk();
  ASSERT_TRUE(device && host && disk);
  EXPECT_EQ(device->total_blocks(), 4u);
  EXPECT_EQ(host->total_blocks(), 6u);
  EXPECT_EQ(disk->total_blocks(), 8u);

  KvBlockManagerConfig config = small_config();
  config.disk_layout.reset();
  config.host_layout.reset();
  auto flat = KvBlockManager<BasicMetadata>::create(config).value();
  EXPECT_NE(flat.device(), nullptr);
  EXPECT_EQ(flat.host(), nullptr);
  EXPECT_EQ(flat.disk(), nullptr);
}

TEST(ReferenceKvBlockManagerTest, RemoteCallsAnswerNixlError) {
  auto manager = KvBlockManager<BasicMetadata>::create(small_config()).value();
  const BlockDescriptorList list{.worker_id = 7, .block_set = Tier::Host, .block_indices = {0, 1}};
  const Result<SerializedNixlBlockSet> exported = manager.export_local_blockset();
  const Result<void> imported = manager.import_remote_blockset(SerializedNixlBlockSet{});
  const Result<std::vector<RemoteBlock<IsImmutable>>> readable =
      manager.get_remote_blocks_immutable(list);
  const Result<std::vector<RemoteBlock<IsMutable>>> writable =
      manager.get_remote_blocks_mutable(list);
  expect_error(exported, ErrorCode::NixlError);
  expect_error(imported, ErrorCode::NixlError);
  expect_error(readable, ErrorCode::NixlError);
  expect_error(writable, ErrorCode::NixlError);
}

TEST(ReferenceKvBlockManagerTest, CarriesTheCallersMetadata) {
  auto manager = KvBlockManager<CountingMetadata>::create(small_config()).value();
  auto blocks = manager.device()->allocate_blocks_blocking(1).value();
  EXPECT_EQ(blocks[0].metadata().acquired, 1);
}

// --- BlockPool -------------------------------------------------------------------------------

TEST(ReferenceBlockPoolTest, IsMadeFromBlocks) {
  BlockPoolArgs<DeviceStorage, locality::Local, BasicMetadata> args;
  args.blocks = device_blocks(3);
  const Result<BlockPool<DeviceStorage, locality::Local, BasicMetadata>> pool =
      BlockPool<DeviceStorage, locality::Local, BasicMetadata>::create(std::move(args));
  ASSERT_TRUE(pool.has_value());
  EXPECT_EQ(pool->total_blocks(), std::uint64_t{3});
  EXPECT_EQ(pool->available_blocks(), std::uint64_t{3});
  expect_error(BlockPool<DeviceStorage>::create({}), ErrorCode::InvalidConfig);
}

TEST(ReferenceBlockPoolTest, BlockingCallsReturnTheValue) {
  auto pool = device_pool(4);
  BlockPoolResult<std::vector<MutableBlock<DeviceStorage>>> allocated =
      pool.allocate_blocks_blocking(2);
  ASSERT_TRUE(allocated.has_value());
  EXPECT_EQ(pool.available_blocks(), 2u);
  const auto tokens = prompt(0, 2);
  for (std::size_t i = 0; i < 2; ++i) (*allocated)[i].apply_token_block(tokens.blocks()[i]).value();
  {
    const BlockPoolResult<std::vector<ImmutableBlock<DeviceStorage>>> registered =
        pool.register_blocks_blocking(std::move(*allocated));
    ASSERT_EQ(registered->size(), 2u);
  }
  EXPECT_EQ(pool.available_blocks(), 4u) << "registered and not held is evictable";
  const BlockPoolResult<std::vector<ImmutableBlock<DeviceStorage>>> matched =
      pool.match_sequence_hashes_blocking(tokens.sequence_hashes());
  ASSERT_EQ(matched->size(), 2u);
  EXPECT_EQ(matched->back().sequence_hash(), tokens.blocks()[1].sequence_hash());
}

TEST(ReferenceBlockPoolTest, AsyncCallsAreReadyAtOnceAndAnswerGet) {
  auto pool = device_pool(4);
  Completion<BlockPoolResult<std::vector<MutableBlock<DeviceStorage>>>> allocation =
      pool.allocate_blocks(2);
  EXPECT_TRUE(allocation.done());
  auto blocks = std::move(allocation).get().value();
  const auto tokens = prompt(0, 2);
  for (std::size_t i = 0; i < 2; ++i) blocks[i].apply_token_block(tokens.blocks()[i]).value();
  auto registration = pool.register_blocks(std::move(blocks));
  EXPECT_TRUE(registration.done());
  EXPECT_EQ(std::move(registration).get().value().size(), 2u);
  auto match = pool.match_sequence_hashes(tokens.sequence_hashes());
  EXPECT_TRUE(match.done());
  EXPECT_EQ(std::move(match).get().value().size(), 2u);
}

Task await_every_call(BlockPool<DeviceStorage>& pool, std::vector<Block<DeviceStorage>> more,
                      TokenBlockSequence tokens, std::size_t& matched) {
  const BlockPoolResult<void> added = co_await pool.add_blocks(std::move(more));
  if (!added) co_return;
  auto blocks = co_await pool.allocate_blocks(tokens.blocks().size());
  if (!blocks) co_return;
  for (std::size_t i = 0; i < blocks->size(); ++i) {
    (*blocks)[i].apply_token_block(tokens.blocks()[i]).value();
  }
  auto registered = co_await pool.register_blocks(std::move(*blocks));
  if (!registered) co_return;
  const std::vector<SequenceHash> hashes = tokens.sequence_hashes();
  const auto found = co_await pool.match_sequence_hashes(hashes);
  matched = found->size();
}

TEST(ReferenceBlockPoolTest, AsyncCallsCanBeAwaited) {
  std::vector<Block<DeviceStorage>> blocks = device_blocks(4);
  std::vector<Block<DeviceStorage>> more;
  more.push_back(std::move(blocks.back()));
  blocks.pop_back();
  auto pool = BlockPool<DeviceStorage>::create({.blocks = std::move(blocks)}).value();
  std::size_t matched = 0;
  await_every_call(pool, std::move(more), prompt(0, 4), matched);
  EXPECT_EQ(matched, 4u);
}

TEST(ReferenceBlockPoolTest, AddBlocksTakesBlocksOfItsOwnSet) {
  std::vector<Block<DeviceStorage>> first = device_blocks(3);
  std::vector<Block<DeviceStorage>> second;
  second.push_back(std::move(first.back()));
  first.pop_back();
  std::vector<Block<DeviceStorage>> third;
  third.push_back(std::move(first.back()));
  first.pop_back();
  auto pool = BlockPool<DeviceStorage>::create({.blocks = std::move(first)}).value();
  EXPECT_EQ(pool.total_blocks(), 1u);
  EXPECT_TRUE(pool.add_blocks_blocking(std::move(second)).has_value());
  EXPECT_TRUE(pool.add_blocks(std::move(third)).get().has_value());
  EXPECT_EQ(pool.total_blocks(), 3u);
  EXPECT_EQ(pool.available_blocks(), 3u);
  const auto refused = pool.add_blocks_blocking(device_blocks(1));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::InvalidMutableBlock);
}

TEST(ReferenceBlockPoolTest, RegistersCompleteBlocksToo) {
  auto pool = device_pool(2);
  std::vector<CompleteBlock<DeviceStorage>> complete;
  complete.push_back(one_block(pool).complete(prompt(0, 1).blocks()[0]).value());
  EXPECT_EQ(pool.register_blocks(std::move(complete)).get().value().size(), 1u);
}

// --- MutableBlock ----------------------------------------------------------------------------

TEST(ReferenceMutableBlockTest, TellsItsIdAndItsShape) {
  auto pool = device_pool(2);
  const auto blocks = pool.allocate_blocks_blocking(2).value();
  static_assert(std::same_as<decltype(blocks[0].block_id()), BlockId>);
  EXPECT_NE(blocks[0].block_id(), blocks[1].block_id());
  EXPECT_EQ(blocks[0].num_layers(), kLayers);
  EXPECT_EQ(blocks[0].page_size(), kPage);
  EXPECT_EQ(blocks[0].inner_dim(), kInner);
  EXPECT_EQ(blocks[0].num_outer_dims(), 2u);
}

TEST(ReferenceMutableBlockTest, ShowsItsBytesToReadAndToWrite) {
  auto pool = device_pool(1);
  auto block = one_block(pool);
  BlockResult<LayerViewMut<DeviceStorage>> layer_mut = block.layer_view_mut(1, 1);
  ASSERT_TRUE(layer_mut.has_value());
  layer_mut->bytes()[0] = std::byte{0x5a};
  const BlockResult<LayerView<DeviceStorage>> layer = block.layer_view(1, 1);
  EXPECT_EQ(layer->bytes()[0], std::byte{0x5a});
  BlockResult<BlockViewMut<DeviceStorage>> whole_mut = block.block_view_mut();
  ASSERT_TRUE(whole_mut.has_value());
  EXPECT_EQ(whole_mut->bytes()[3 * kRegionBytes], std::byte{0x5a}) << "layer 1, outer 1";
  whole_mut->bytes()[0] = std::byte{0x11};
  const BlockResult<BlockView<DeviceStorage>> whole = block.block_view();
  EXPECT_EQ(whole->bytes()[0], std::byte{0x11});
  EXPECT_EQ(whole->size(), kLayers * 2 * kRegionBytes);
}

TEST(ReferenceMutableBlockTest, HasANameOnceItIsComplete) {
  auto pool = device_pool(1);
  auto block = one_block(pool);
  EXPECT_EQ(block.state(), BlockState::Reset);
  EXPECT_FALSE(block.is_complete());
  expect_error(block.sequence_hash(), ErrorCode::BlockNotComplete);
  const auto tokens = prompt(0, 1);
  block.init_sequence().value();
  EXPECT_EQ(block.state(), BlockState::Partial);
  EXPECT_TRUE(block.add_tokens(tokens.blocks()[0].tokens()).value().empty());
  block.commit().value();
  EXPECT_TRUE(block.is_complete());
  EXPECT_EQ(block.sequence_hash().value(), tokens.blocks()[0].sequence_hash());
}

TEST(ReferenceMutableBlockTest, MarkCompleteMakesACompleteBlock) {
  auto pool = device_pool(2);
  expect_error(one_block(pool).mark_complete(), ErrorCode::BlockNotComplete);
  auto block = one_block(pool);
  const auto tokens = prompt(0, 1);
  block.init_sequence().value();
  block.add_tokens(tokens.blocks()[0].tokens()).value();
  const CompleteBlock<DeviceStorage> complete = std::move(block).mark_complete().value();
  EXPECT_EQ(complete.sequence_hash(), tokens.blocks()[0].sequence_hash());
}

// --- ImmutableBlock --------------------------------------------------------------------------

TEST(ReferenceImmutableBlockTest, TellsItsIdShapeAndName) {
  auto pool = device_pool(1);
  auto block = one_block(pool);
  const BlockId id = block.block_id();
  block.apply_token_block(prompt(0, 1).blocks()[0]).value();
  MutableBlocks<DeviceStorage> blocks;
  blocks.push_back(std::move(block));
  const auto registered = pool.register_blocks_blocking(std::move(blocks)).value();
  const ImmutableBlock<DeviceStorage>& shared = registered[0];
  EXPECT_EQ(shared.block_id(), id);
  EXPECT_EQ(shared.num_layers(), kLayers);
  EXPECT_EQ(shared.page_size(), kPage);
  EXPECT_EQ(shared.inner_dim(), kInner);
  EXPECT_EQ(shared.num_outer_dims(), 2u);
  static_assert(std::same_as<decltype(shared.sequence_hash()), SequenceHash>);
  EXPECT_EQ(shared.sequence_hash(), prompt(0, 1).blocks()[0].sequence_hash());
}

template <class B>
concept IsWritable = requires(B& block) { block.layer_view_mut(0, 0); } ||
                     requires(B& block) { block.block_view_mut(); };
static_assert(IsWritable<MutableBlock<DeviceStorage>>);
static_assert(!IsWritable<ImmutableBlock<DeviceStorage>>);

TEST(ReferenceImmutableBlockTest, ShowsItsBytesToReadAndIsShared) {
  auto pool = device_pool(1);
  auto blocks = named(pool, prompt(0, 1));
  blocks[0].layer_view_mut(2, 0).value().bytes()[7] = std::byte{9};
  const auto registered = pool.register_blocks_blocking(std::move(blocks)).value();
  const BlockResult<LayerView<DeviceStorage>> layer = registered[0].layer_view(2, 0);
  EXPECT_EQ(layer->bytes()[7], std::byte{9});
  const ImmutableBlock<DeviceStorage> other = registered[0].clone();
  const BlockResult<BlockView<DeviceStorage>> whole = other.block_view();
  EXPECT_EQ(whole->bytes()[4 * kRegionBytes + 7], std::byte{9});
}

}  // namespace
}  // namespace kvbm
