// The error types of the API reference: every variant, made by a call that is refused for it, with
// the numbers it carries. Where no public call can make one, the layer below is asked.
#include <gtest/gtest.h>

#include <cerrno>
#include <concepts>
#include <stop_token>

#include "platform/os/file.h"
#include "reference_fixture.h"
#include "tiers/test_tiers.h"

namespace kvbm {
namespace {

// One type, so that an error needs no wrapping on its way up: the reference's
// BlockPoolError::BlockError and BlockError::StorageError are the identity.
static_assert(std::same_as<BlockPoolError, BlockError> && std::same_as<BlockError, StorageError>);

// --- BlockPoolError --------------------------------------------------------------------------

TEST(ReferenceErrorTest, BlockNotCompleteTellsPositionAndCount) {
  auto pool = device_pool(3);
  auto blocks = named(pool, prompt(0, 2));
  blocks.push_back(one_block(pool));
  expect_error(pool.register_blocks_blocking(std::move(blocks)), ErrorCode::BlockNotComplete, 2, 3);
  EXPECT_EQ(pool.available_blocks(), 3u);
  EXPECT_EQ(pool.stats().registered_blocks, 0u) << "all or nothing";
}

TEST(ReferenceErrorTest, NotEnoughBlocksAvailableTellsRequestedAndAvailable) {
  auto pool = device_pool(4);
  const auto held = pool.allocate_blocks_blocking(1).value();
  expect_error(pool.allocate_blocks_blocking(5), ErrorCode::NotEnoughBlocksAvailable, 5, 3);
  expect_error(pool.allocate_blocks(4).get(), ErrorCode::NotEnoughBlocksAvailable, 4, 3);
  EXPECT_EQ(pool.available_blocks(), 3u);
}

TEST(ReferenceErrorTest, InvalidMutableBlockTellsWhy) {
  auto pool = device_pool(2);
  auto other = device_pool(2);
  MutableBlocks<DeviceStorage> empty(1);
  expect_error(pool.register_blocks_blocking(std::move(empty)), ErrorCode::InvalidMutableBlock, 0,
               1);
  expect_error(pool.register_blocks_blocking(named(other, prompt(0, 2))),
               ErrorCode::InvalidMutableBlock, 0, 2);
  const std::vector<Token> three = {1, 2, 3};
  auto block = one_block(pool);
  expect_error(block.apply_token_block(TokenBlock::create(three).value()),
               ErrorCode::InvalidMutableBlock, 3, kPage);
}

// A manager registers what its own transfers filled; the proof of another copy is refused.
TEST(ReferenceErrorTest, FailedToRegisterBlockTellsBothBlocks) {
  using namespace detail;
  const auto device = make_test_pool(Tier::Device, 2);
  const auto host = make_test_pool(Tier::Host, 2);
  const ImmutableHold source = put_test_block(*device, 1, 0);
  MutableHold filled = std::move(allocate(host->store(), 1).value().front());
  MutableHold other = std::move(allocate(host->store(), 1).value().front());
  const BlockId other_id = other.id();
  const TransferRequest request{.plan = CopyPlan::create(device->layout(), host->layout()).value(),
                                .blocks = {}};
  auto token = ManualExecutor::run(request, {source.id(), filled.id(), std::nullopt}).value();
  const auto refused = register_transferred(*host, complete(std::move(other), test_identity(1, 0)),
                                            std::move(token));
  expect_error(refused, ErrorCode::FailedToRegisterBlock, other_id, filled.id());
}

TEST(ReferenceErrorTest, ProgressEngineShutdownAfterTheTokenWasStopped) {
  std::stop_source stop;
  auto pool = BlockPool<DeviceStorage>::create(
                  {.blocks = device_blocks(2), .cancellation_token = stop.get_token()})
                  .value();
  auto blocks = named(pool, prompt(0, 1));
  const auto hashes = prompt(0, 1).sequence_hashes();
  stop.request_stop();
  expect_error(pool.allocate_blocks_blocking(1), ErrorCode::ProgressEngineShutdown);
  expect_error(pool.register_blocks_blocking(std::move(blocks)), ErrorCode::ProgressEngineShutdown);
  expect_error(pool.match_sequence_hashes_blocking(hashes), ErrorCode::ProgressEngineShutdown);
  expect_error(pool.add_blocks_blocking({}), ErrorCode::ProgressEngineShutdown);
}

// --- BlockError ------------------------------------------------------------------------------

TEST(ReferenceErrorTest, ViewsNotAvailableOnLogicalBlocks) {
  KvBlockManagerConfig config{
      .model = small_model(),
      .device_layout = KvManagerLayoutConfig<DeviceStorage>{
          .num_blocks = 1, .logical = BlockParallelismStrategy::LeaderWorkerSharded}};
  auto manager = ReferenceBlockManager::create(config).value();
  auto block = one_block(*manager.device());
  expect_error(block.layer_view_mut(0, 0), ErrorCode::ViewsNotAvailableOnLogicalBlocks);
  expect_error(block.block_view(), ErrorCode::ViewsNotAvailableOnLogicalBlocks);
}

TEST(ReferenceErrorTest, InvalidLayerAndOuterIndexTellIndexAndLimit) {
  auto pool = device_pool(1);
  auto block = one_block(pool);
  expect_error(block.layer_view(kLayers, 0), ErrorCode::InvalidLayerIndex, kLayers, kLayers);
  expect_error(block.layer_view_mut(9, 1), ErrorCode::InvalidLayerIndex, 9, kLayers);
  expect_error(block.layer_view(0, 2), ErrorCode::InvalidOuterIndex, 2, 2);
}

// --- StorageError ----------------------------------------------------------------------------

TEST(ReferenceErrorTest, AllocationFailedTellsBytesAndErrno) {
  constexpr std::size_t kTooMuch = std::size_t{1} << 60;
  const StorageResult<SystemStorage> refused = SystemAllocator().allocate(kTooMuch);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::AllocationFailed);
  EXPECT_EQ(refused.error().requested, kTooMuch);
  EXPECT_EQ(refused.error().native, ENOMEM);
}

TEST(ReferenceErrorTest, NotAccessibleForBytesThatTheCpuCannotAddress) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  auto blocks = manager.disk()->allocate_blocks_blocking(1).value();
  expect_error(blocks[0].layer_view(0, 0), ErrorCode::NotAccessible);
  expect_error(blocks[0].block_view_mut(), ErrorCode::NotAccessible);
}

TEST(ReferenceErrorTest, InvalidConfigNamesTheField) {
  KvBlockManagerConfig config = small_config();
  config.model.page_size = 0;
  const auto refused = ReferenceBlockManager::create(config);
  expect_error(refused, ErrorCode::InvalidConfig);
  EXPECT_NE(refused.error().message.find("model.page_size is 0"), std::string::npos);
  expect_error(SystemAllocator().allocate(0), ErrorCode::InvalidConfig);
}

TEST(ReferenceErrorTest, OperationFailedTellsErrno) {
  DiskAllocator allocator(testing::TempDir() + "/no/such/folder");
  const auto refused = allocator.allocate(4096);
  expect_error(refused, ErrorCode::OperationFailed);
  EXPECT_EQ(refused.error().native, ENOENT);
}

TEST(ReferenceErrorTest, CudaForADeviceThatIsNotThere) {
  const auto refused = DeviceAllocator(0x7fffffff).allocate(4096);
  expect_error(refused, ErrorCode::Cuda);
  EXPECT_FALSE(refused.error().message.empty());
}

TEST(ReferenceErrorTest, NixlErrorWhereNixlWouldBeNeeded) {
  auto manager = ReferenceBlockManager::create(small_config()).value();
  const auto refused = manager.export_local_blockset();
  expect_error(refused, ErrorCode::NixlError);
  EXPECT_EQ(refused.error().native, 0) << "no NIXL, so no status of its own";
  EXPECT_NE(refused.error().message.find("export_local_blockset"), std::string::npos);
}

TEST(ReferenceErrorTest, OutOfBoundsTellsEndAndSize) {
  const auto file = create_temporary_file(testing::TempDir(), 4096).value();
  auto memory = SystemAllocator().allocate(4096).value();
  expect_error(file->read({memory.as_mut_ptr(), 4096}, 4096), ErrorCode::OutOfBounds, 8192, 4096);
}

// Named for code that switches over the reference's codes. Nothing registers memory under keys yet.
TEST(ReferenceErrorTest, RegistrationCodesAreNamedOnly) {
  EXPECT_STREQ(to_string(ErrorCode::RegistrationKeyExists), "RegistrationKeyExists");
  EXPECT_STREQ(to_string(ErrorCode::HandleNotFound), "HandleNotFound");
}

}  // namespace
}  // namespace kvbm
