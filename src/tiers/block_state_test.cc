// The states of a block that its owner fills: Reset, Partial, Complete. One test per call, with
// every refusal; each refusal leaves the block as it was.
#include <gtest/gtest.h>

#include <numeric>

#include "kvbm/pool.h"

namespace kvbm {
namespace {

constexpr std::size_t kPage = 4;
using Mutable = MutableBlock<DeviceStorage>;

class BlockStateTest : public testing::Test {
 protected:
  BlockStateTest() {
    const LayoutConfig config{
        .num_blocks = 2, .num_layers = 1, .outer_dim = 1, .page_size = kPage, .inner_dim = 2};
    const std::size_t bytes = config.storage_bytes(LayoutType::FullyContiguous).value();
    std::vector<DeviceStorage> storages = {HostBackedDeviceAllocator().allocate(bytes).value()};
    auto blocks = make_blocks(LayoutType::FullyContiguous, config, storages).value();
    pool_.emplace(BlockPool<DeviceStorage>::create({.blocks = std::move(blocks)}).value());
  }
  Mutable one() { return std::move(pool_->allocate_blocks_blocking(1).value().front()); }
  Mutable partial(std::vector<Token> tokens) {
    Mutable block = one();
    block.init_sequence().value();
    EXPECT_TRUE(block.add_tokens(tokens).value().empty());
    return block;
  }

  std::optional<BlockPool<DeviceStorage>> pool_;
};

TokenBlockSequence sequence(std::size_t blocks, SaltHash salt = 0, std::size_t page = kPage) {
  std::vector<Token> tokens(blocks * page);
  std::iota(tokens.begin(), tokens.end(), Token{1});
  return TokenBlockSequence::create(tokens, page, {.salt = salt}).value();
}

void expect_state(const Mutable& block, BlockState state, std::size_t len, std::size_t remaining) {
  EXPECT_EQ(block.state(), state);
  EXPECT_EQ(block.is_complete(), state == BlockState::Complete);
  EXPECT_EQ(block.len(), len);
  EXPECT_EQ(block.remaining(), remaining);
}

template <class T>
void expect_refused(const Result<T>& result, ErrorCode code, std::uint64_t requested = 0,
                    std::uint64_t available = 0) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code);
  EXPECT_EQ(result.error().requested, requested);
  EXPECT_EQ(result.error().available, available);
}

TEST_F(BlockStateTest, AFreshBlockIsReset) {
  const Mutable block = one();
  expect_state(block, BlockState::Reset, 0, 0);
  expect_refused(block.sequence_hash(), ErrorCode::BlockNotComplete);
}

TEST_F(BlockStateTest, InitSequenceTakesAResetBlock) {
  Mutable block = one();
  ASSERT_TRUE(block.init_sequence().has_value());
  expect_state(block, BlockState::Partial, 0, kPage);
  block.add_token(5).value();
  expect_refused(block.init_sequence(), ErrorCode::InvalidMutableBlock);
  expect_state(block, BlockState::Partial, 1, kPage - 1);
}

TEST_F(BlockStateTest, InitSequenceRefusesACompleteBlock) {
  Mutable block = one();
  const auto tokens = sequence(1);
  block.apply_token_block(tokens.blocks()[0]).value();
  expect_refused(block.init_sequence(), ErrorCode::InvalidMutableBlock);
  EXPECT_EQ(block.sequence_hash().value(), tokens.blocks()[0].sequence_hash());
}

TEST_F(BlockStateTest, AddTokensTakesWhatFitsAndReturnsTheRest) {
  Mutable block = partial({1, 2, 3});
  const std::vector<Token> more = {4, 5, 6};
  const auto rest = block.add_tokens(more).value();
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(rest.data(), more.data() + 1);
  expect_state(block, BlockState::Partial, kPage, 0);

  expect_refused(block.add_tokens(more), ErrorCode::Full, 3, 0);
  expect_refused(block.add_token(7), ErrorCode::Full, 1, 0);
  EXPECT_TRUE(block.add_tokens({}).value().empty()) << "nothing fits always";
  expect_state(block, BlockState::Partial, kPage, 0);
}

TEST_F(BlockStateTest, OnlyAPartialBlockTakesAndGivesTokens) {
  const Token token = 1;
  Mutable reset = one();
  Mutable complete = one();
  complete.apply_token_block(sequence(1).blocks()[0]).value();
  for (Mutable* block : {&reset, &complete}) {
    expect_refused(block->add_token(token), ErrorCode::InvalidMutableBlock);
    expect_refused(block->add_tokens({&token, 1}), ErrorCode::InvalidMutableBlock);
    expect_refused(block->pop_token(), ErrorCode::InvalidMutableBlock);
    expect_refused(block->pop_tokens(2), ErrorCode::InvalidMutableBlock);
    expect_refused(block->commit(), ErrorCode::InvalidMutableBlock);
  }
  expect_state(reset, BlockState::Reset, 0, 0);
  expect_state(complete, BlockState::Complete, kPage, 0);
}

TEST_F(BlockStateTest, PopTakesTokensBack) {
  Mutable block = partial({1, 2, 9});
  block.pop_token().value();
  expect_state(block, BlockState::Partial, 2, 2);
  expect_refused(block.pop_tokens(3), ErrorCode::InsufficientTokens, 3, 2);
  expect_state(block, BlockState::Partial, 2, 2);
  block.pop_tokens(0).value();
  block.pop_tokens(2).value();
  expect_state(block, BlockState::Partial, 0, kPage);
  expect_refused(block.pop_token(), ErrorCode::Empty);
  expect_refused(block.pop_tokens(2), ErrorCode::InsufficientTokens, 2, 0);
}

TEST_F(BlockStateTest, CommitNamesAFullBlock) {
  Mutable block = partial({1, 2, 3});
  expect_refused(block.commit(), ErrorCode::Incomplete, kPage, 3);
  expect_state(block, BlockState::Partial, 3, 1);
  block.add_token(4).value();
  ASSERT_TRUE(block.commit().has_value());
  expect_state(block, BlockState::Complete, kPage, 0);
  EXPECT_EQ(block.sequence_hash().value(), sequence(1).blocks()[0].sequence_hash());
}

TEST_F(BlockStateTest, TheNameIsThatOfATokenSequenceWithTheSameSalt) {
  for (const SaltHash salt : {SaltHash{0}, SaltHash{1337}}) {
    Mutable block = one();
    block.init_sequence(salt).value();
    const std::vector<Token> tokens = {1, 2, 99};
    block.add_tokens(tokens).value();
    block.pop_token().value();
    block.add_token(3).value();
    block.add_token(4).value();
    block.commit().value();
    EXPECT_EQ(block.sequence_hash().value(), sequence(1, salt).blocks()[0].sequence_hash());
  }
  EXPECT_EQ(sequence(1, 1337).blocks()[0].sequence_hash(), SequenceHash(14643705804678351452u));
}

TEST_F(BlockStateTest, ApplyTokenBlockRefusesAnotherSizeAndAnotherState) {
  Mutable block = one();
  expect_refused(block.apply_token_block(sequence(1, 0, 3).blocks()[0]),
                 ErrorCode::InvalidMutableBlock, 3, kPage);
  expect_state(block, BlockState::Reset, 0, 0);
  const auto tokens = sequence(2);
  block.apply_token_block(tokens.blocks()[1]).value();
  expect_state(block, BlockState::Complete, kPage, 0);
  expect_refused(block.apply_token_block(tokens.blocks()[0]), ErrorCode::InvalidMutableBlock);
  EXPECT_EQ(block.sequence_hash().value(), tokens.blocks()[1].sequence_hash());

  Mutable other = partial({1});
  expect_refused(other.apply_token_block(tokens.blocks()[0]), ErrorCode::InvalidMutableBlock);
  expect_state(other, BlockState::Partial, 1, 3);
}

TEST_F(BlockStateTest, ResetTakesAnyState) {
  Mutable fresh = one();
  fresh.reset();
  expect_state(fresh, BlockState::Reset, 0, 0);
  fresh = {};

  Mutable half = partial({1, 2});
  half.set_priority(3).value();
  half.layer_view_mut(0, 0).value().bytes()[0] = std::byte{42};
  half.reset();
  expect_state(half, BlockState::Reset, 0, 0);
  EXPECT_EQ(half.metadata().priority, DEFAULT_PRIORITY);
  EXPECT_EQ(half.layer_view(0, 0).value().bytes()[0], std::byte{42}) << "the bytes stay";
  half.init_sequence().value();
  expect_state(half, BlockState::Partial, 0, kPage);

  Mutable complete = one();
  complete.apply_token_block(sequence(1).blocks()[0]).value();
  complete.reset();
  expect_state(complete, BlockState::Reset, 0, 0);
  expect_refused(complete.sequence_hash(), ErrorCode::BlockNotComplete);
  complete.apply_token_block(sequence(2).blocks()[1]).value();
  expect_state(complete, BlockState::Complete, kPage, 0);
}

TEST_F(BlockStateTest, MarkCompleteCommitsAndMovesTheBlock) {
  Mutable block = one();
  expect_refused(std::move(block).mark_complete(), ErrorCode::BlockNotComplete);
  ASSERT_TRUE(block) << "a refusal keeps the handle";
  block.init_sequence().value();
  block.add_tokens(std::vector<Token>{1, 2, 3}).value();
  expect_refused(std::move(block).mark_complete(), ErrorCode::Incomplete, kPage, 3);
  expect_state(block, BlockState::Partial, 3, 1);
  block.add_token(4).value();
  const auto complete = std::move(block).mark_complete().value();
  EXPECT_FALSE(block);
  EXPECT_EQ(complete.sequence_hash(), sequence(1).blocks()[0].sequence_hash());
}

TEST_F(BlockStateTest, TokensAreForgottenWithTheHandle) {
  BlockId id = 0;
  const Mutable other = one();  // leaves one block, so that the same one comes again
  {
    const Mutable block = partial({1, 2});
    id = block.block_id();
  }
  Mutable again = one();
  ASSERT_EQ(again.block_id(), id);
  expect_state(again, BlockState::Reset, 0, 0);
  again.init_sequence().value();
  expect_state(again, BlockState::Partial, 0, kPage);
  again = {};
  again = one();
  again.apply_token_block(sequence(1).blocks()[0]).value();
  again = {};
  expect_state(one(), BlockState::Reset, 0, 0);
}

TEST_F(BlockStateTest, BlocksOfOnePoolKeepTheirTokensApart) {
  Mutable first = partial({1, 2});
  Mutable second = partial({9});
  first.add_tokens(std::vector<Token>{3, 4}).value();
  first.commit().value();
  expect_state(second, BlockState::Partial, 1, 3);
  EXPECT_EQ(first.sequence_hash().value(), sequence(1).blocks()[0].sequence_hash());
}

}  // namespace
}  // namespace kvbm
