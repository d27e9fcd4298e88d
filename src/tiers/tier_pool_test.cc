#include "tiers/tier_pool.h"

#include <gtest/gtest.h>

#include "tiers/test_tiers.h"

namespace kvbm::detail {
namespace {

// A copy from `source` to a new block of `target`: the block and the token that proves it.
struct Copied {
  MutableHold block;
  TransferToken token;
};

Copied copy(TierPool& source, BlockId id, TierPool& target,
            std::optional<std::uint64_t> payload_sum = std::nullopt) {
  MutableHold block = std::move(allocate(target.store(), 1).value().front());
  const TransferRequest request{.plan = CopyPlan::create(source.layout(), target.layout()).value(),
                                .blocks = {}};
  TransferToken token = ManualExecutor::run(request, {id, block.id(), payload_sum}).value();
  return {std::move(block), std::move(token)};
}

TEST(TierPoolTest, OwnersDoorSumsTheBytesOutsideTheDevice) {
  const auto host = make_test_pool(Tier::Host, 2);
  const ImmutableHold block = put_test_block(*host, 1, 0);
  EXPECT_EQ(host->payload_sum(block), sum_block(*host->layout(), block.id()).value());

  const auto device = make_test_pool(Tier::Device, 2);
  EXPECT_FALSE(device->payload_sum(put_test_block(*device, 1, 0)).has_value());
}

TEST(TierPoolTest, OwnersDoorIsClosedOnDisk) {
  const auto disk = make_test_pool(Tier::Disk, 2);
  std::vector<CompleteHold> blocks;
  blocks.push_back(
      complete(std::move(allocate(disk->store(), 1).value().front()), test_identity(1, 0)));
  const auto result = disk->register_blocks(std::move(blocks));
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::NotAccessible);
  EXPECT_FALSE(disk->store().contains(test_hash(1, 0)));
  EXPECT_EQ(disk->store().available_blocks(), 2u);
}

TEST(TierPoolTest, TransferDoorTakesTheTokenOfThisBlockOnly) {
  const auto device = make_test_pool(Tier::Device, 2);
  const auto host = make_test_pool(Tier::Host, 4);
  const auto other_host = make_test_pool(Tier::Host, 4);
  const ImmutableHold source = put_test_block(*device, 1, 0);
  const BlockIdentity identity = test_identity(1, 0);

  Copied first = copy(*device, source.id(), *host);
  Copied second = copy(*device, source.id(), *host);
  Copied elsewhere = copy(*device, source.id(), *other_host);
  ASSERT_EQ(first.block.id(), elsewhere.block.id()) << "same number, other pool";

  const auto swapped = register_transferred(*host, complete(std::move(second.block), identity),
                                            std::move(first.token));
  ASSERT_FALSE(swapped.has_value());
  EXPECT_EQ(swapped.error().code, ErrorCode::FailedToRegisterBlock);
  const auto foreign = register_transferred(*host, complete(std::move(first.block), identity),
                                            std::move(elsewhere.token));
  ASSERT_FALSE(foreign.has_value());
  EXPECT_EQ(foreign.error().code, ErrorCode::FailedToRegisterBlock);
  EXPECT_FALSE(host->store().contains(identity.sequence_hash));
  EXPECT_EQ(host->store().available_blocks(), 4u);

  Copied good = copy(*device, source.id(), *host);
  const auto registered =
      register_transferred(*host, complete(std::move(good.block), identity), std::move(good.token));
  ASSERT_TRUE(registered.has_value());
  EXPECT_EQ(host->payload_sum(*registered), sum_block(*host->layout(), registered->id()).value());
}

// The same bytes under another name have the same payload sum but another seal: a record that was
// mixed up with another block's verifies nothing.
TEST(TierPoolTest, ASumIsSealedWithTheBlocksIdentity) {
  const auto host = make_test_pool(Tier::Host, 2);
  const ImmutableHold a = put_test_block(*host, 1, 0);
  const ImmutableHold b = put_test_block(*host, 2, 0);
  auto& sealed = *set_of(a).sealed_sums;
  const std::uint64_t sum_of_a = *host->payload_sum(a);
  std::swap(sealed[a.id()], sealed[b.id()]);
  EXPECT_NE(host->payload_sum(b), sum_of_a) << "a's record moved to b still tells a's sum";
  EXPECT_NE(host->payload_sum(a), sum_of_a);
}

TEST(TierPoolTest, TellsItsListenerWhatWasRegistered) {
  const auto device = make_test_pool(Tier::Device, 2);
  std::vector<SequenceHash> heard;
  device->set_listener([&](Tier tier, std::vector<OffloadOffer> offers) {
    EXPECT_EQ(tier, Tier::Device);
    for (const OffloadOffer& offer : offers) heard.push_back(offer.key.hash);
  });
  put_test_block(*device, 1, 0);
  put_test_block(*device, 1, 1);
  EXPECT_EQ(heard, test_chain(1, 2));
}

}  // namespace
}  // namespace kvbm::detail
