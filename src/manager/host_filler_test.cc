#include "manager/host_filler.h"

#include <gtest/gtest.h>

#include <latch>

#include "kvbm/kvbm.h"
#include "manager/manager_core.h"
#include "tiers/test_tiers.h"

namespace kvbm {
namespace {

using std::chrono::seconds;

// A host tier of 1 MiB blocks and 4 KiB, none of them ready.
std::shared_ptr<detail::TierPool> make_pool(std::size_t blocks) {
  const LayoutConfig config{.num_blocks = blocks,
                            .num_layers = 1,
                            .outer_dim = 1,
                            .page_size = 257,
                            .inner_dim = 4096,
                            .dtype = DType::U8,
                            .alignment = 4096};
  const auto type = LayoutType::FullyContiguous;
  auto memory = PinnedAllocator().allocate(config.storage_bytes(type).value()).value().memory();
  auto layout = Layout::create(type, config, {std::move(memory)}).value();
  return detail::TierPool::create(detail::make_block_set(Tier::Host, std::move(layout), config),
                                  {.ready_blocks = 0})
      .value();
}

TEST(HostFillerTest, BlocksBecomeAvailableAsTheirPagesCome) {
  const auto pool = make_pool(40);
  std::latch gate(1);
  std::size_t pieces = 0;
  const auto filler =
      detail::HostFiller::start(*pool, 1, [&](std::span<std::byte>) -> Result<void> {
        if (pieces++ > 0) gate.wait();
        return {};
      }).value();
  EXPECT_EQ(pool->stats().total_blocks, 40u);
  EXPECT_EQ(pool->stats().available_blocks, 3u) << "that the first 4 MiB hold whole";
  const auto first = pool->allocate_blocks(3).value();
  EXPECT_EQ(pool->allocate_blocks(1).error().code, ErrorCode::NotEnoughBlocksAvailable);
  pool->store().check_invariants();

  gate.count_down();
  ASSERT_TRUE(filler->wait(seconds(60)).has_value());
  EXPECT_EQ(pool->stats().total_blocks, 40u);
  EXPECT_EQ(pool->stats().available_blocks, 37u);
  pool->store().check_invariants();
  pool->store().release(first);
}

TEST(HostFillerTest, ABlockIsReadyBeforeItIsHandedOut) {
  const auto pool = make_pool(100);
  std::atomic<const std::byte*> prepared_end = nullptr;
  const auto filler =
      detail::HostFiller::start(*pool, 1, [&](std::span<std::byte> piece) -> Result<void> {
        prepared_end = piece.data() + piece.size();
        return {};
      }).value();
  std::size_t taken = 0;
  std::vector<BlockId> all;
  while (taken < 100) {
    const BlockId id = pool->allocate_block();
    if (id == kNoBlock) continue;
    const Region extent = pool->layout()->extent(id);
    ASSERT_LE(extent.data() + extent.bytes, prepared_end.load());
    all.push_back(id);
    ++taken;
  }
  pool->store().release(all);
}

TEST(HostFillerTest, AManagerIsUsableBeforeItsHostTierIsFilled) {
  KvBlockManagerConfig config;
  config.model = {.num_layers = 1, .outer_dim = 1, .page_size = 16, .inner_dim = 4096};
  config.device_layout = {.num_blocks = 4,
                          .allocator = std::make_shared<HostBackedDeviceAllocator>()};
  config.host_layout = {.num_blocks = 1024, .allocator = std::make_shared<PinnedAllocator>()};
  auto manager = ReferenceBlockManager::create(config).value();
  EXPECT_EQ(manager.host()->stats().total_blocks, 1024u);
  EXPECT_GE(manager.host()->stats().available_blocks, 32u);
  EXPECT_TRUE(manager.wait_until_filled(seconds(60)).has_value());
  EXPECT_EQ(manager.host()->stats().available_blocks, 1024u);

  // Closing ends it; what is not there yet will not come.
  auto closing = ReferenceBlockManager::create(config).value();
  closing.close();
  const Result<void> waited = closing.wait_until_filled(seconds(60));
  if (!waited) {
    EXPECT_EQ(waited.error().code, ErrorCode::ProgressEngineShutdown);
  }
}

}  // namespace
}  // namespace kvbm
