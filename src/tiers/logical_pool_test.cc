#include <gtest/gtest.h>

#include "kvbm/pool.h"
#include "tiers/test_tiers.h"

namespace kvbm {
namespace {

// Identities here, bytes elsewhere: everything but the views works.
TEST(LogicalPoolTest, BlocksHaveNamesAndNoBytes) {
  auto blocks =
      make_logical_blocks<DeviceStorage>(detail::test_layout_config(Tier::Device, 2)).value();
  BlockPoolArgs<DeviceStorage, locality::Logical> args{.blocks = std::move(blocks)};
  auto pool = BlockPool<DeviceStorage, locality::Logical>::create(std::move(args)).value();
  auto owned = pool.allocate_blocks_blocking(1).value();
  EXPECT_EQ(owned[0].layer_view(0, 0).error().code, ErrorCode::ViewsNotAvailableOnLogicalBlocks);
  EXPECT_EQ(owned[0].block_view().error().code, ErrorCode::ViewsNotAvailableOnLogicalBlocks);
  const std::vector<Token> tokens = {1, 2, 3, 4};
  ASSERT_TRUE(owned[0].apply_token_block(TokenBlock::create(tokens).value()).has_value());
  const auto registered = pool.register_blocks_blocking(std::move(owned)).value();
  const SequenceHash hash = registered[0].sequence_hash();
  EXPECT_EQ(pool.match_sequence_hashes_blocking({&hash, 1}).value().size(), 1u);
}

}  // namespace
}  // namespace kvbm
