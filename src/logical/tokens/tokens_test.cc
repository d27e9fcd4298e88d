#include "kvbm/tokens.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <string_view>
#include <type_traits>

#include "base/xxh3.h"

namespace kvbm {
namespace {

static_assert(!std::is_default_constructible_v<TokenBlock>, "a token block is full and named");

SaltHash salt_of(std::string_view text) { return hash_salt(std::as_bytes(std::span(text))); }

std::vector<Token> count_from(Token first, std::size_t count) {
  std::vector<Token> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<Token> copy(std::span<const Token> tokens) { return {tokens.begin(), tokens.end()}; }

template <class T>
void expect_error(const Result<T>& result, ErrorCode code, std::uint64_t requested,
                  std::uint64_t available) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code);
  EXPECT_EQ(result.error().native, 0);
  EXPECT_EQ(result.error().requested, requested);
  EXPECT_EQ(result.error().available, available);
}

// {block hash, sequence hash} of every block.
using Names = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

Names names_of(std::span<const Token> tokens, std::size_t block_size, HashSeeds seeds) {
  Names names;
  const auto parts = TokenBlockSequence::split_tokens(tokens, block_size, seeds).value();
  for (const TokenBlock& block : parts.blocks) {
    names.emplace_back(block.block_hash(), block.sequence_hash().value());
  }
  return names;
}

// The published vectors of the reference implementation's token blocks.
TEST(TokensTest, NamesMatchTheReferenceVectors) {
  const auto tokens = count_from(1, 12);
  const auto eight = std::span(tokens).first(8);
  EXPECT_EQ(names_of(tokens, 4, {.salt = 1337}),
            (Names{{14643705804678351452u, 14643705804678351452u},
                   {16777012769546811212u, 4945711292740353085u},
                   {483935686894639516u, 12583592247330656132u}}));
  EXPECT_EQ(names_of(eight, 4, {}), (Names{{8052976908588476977u, 8052976908588476977u},
                                           {13852901005659965728u, 17538018756801271241u}}));
  EXPECT_EQ(names_of(eight, 4, {.chain = 0}),
            (Names{{8052976908588476977u, 8052976908588476977u},
                   {13852901005659965728u, 4185132130981121146u}}));
  EXPECT_EQ(names_of(eight, 4, {.salt = salt_of("{}")}),
            (Names{{8026409477313730465u, 8026409477313730465u},
                   {4932910930253085737u, 1505689164459802956u}}));
  EXPECT_EQ(names_of(count_from(0, 32), 16, {.salt = 1337}),
            (Names{{15310707395893867146u, 15310707395893867146u},
                   {15292316782987903195u, 13769157705258532664u}}));
}

TEST(TokensTest, FunctionsMatchTheReferenceVectors) {
  const std::vector<Token> first = {1, 2, 3, 4};
  const std::vector<Token> second = {5, 6, 7, 8};
  EXPECT_EQ(hash_block(first, 1337), 14643705804678351452u);
  EXPECT_EQ(hash_block(second, 1337), 16777012769546811212u);
  EXPECT_EQ(chain_hash(std::nullopt, 14643705804678351452u).value(), 14643705804678351452u);
  EXPECT_EQ(chain_hash(SequenceHash(14643705804678351452u), 16777012769546811212u).value(),
            4945711292740353085u);
}

TEST(TokensTest, SaltHashesMatchTheReferenceVectors) {
  EXPECT_EQ(salt_of(""), 3244421341483603138u);
  EXPECT_EQ(salt_of("abc"), 8696274497037089104u);
  EXPECT_EQ(salt_of("{}"), 1389868326933519382u);
}

TEST(TokensTest, SaltAndPrefixBothChangeEveryName) {
  const std::vector<Token> a = {1, 2, 3, 4};
  const std::vector<Token> b = {9, 2, 3, 4};
  const auto plain = names_of(a, 2, {});
  const auto salted = names_of(a, 2, {.salt = 5});
  const auto other_prefix = names_of(b, 2, {});
  EXPECT_NE(plain[0], salted[0]);
  EXPECT_NE(plain[1], salted[1]);
  EXPECT_EQ(plain[1].first, other_prefix[1].first);
  EXPECT_NE(plain[1].second, other_prefix[1].second);
}

TEST(TokenBlockTest, BlocksMadeOneByOneAreThoseOfASequence) {
  const auto tokens = count_from(1, 8);
  const HashSeeds seeds{.salt = 7, .chain = 8};
  const auto blocks = TokenBlockSequence::split_tokens(tokens, 4, seeds).value().blocks;

  const auto first = TokenBlock::create(std::span(tokens).first(4), nullptr, seeds).value();
  const auto second = TokenBlock::create(std::span(tokens).last(4), &first, seeds).value();

  EXPECT_EQ(first.block_hash(), blocks[0].block_hash());
  EXPECT_EQ(first.sequence_hash(), blocks[0].sequence_hash());
  EXPECT_EQ(first.parent_sequence_hash(), std::nullopt);
  EXPECT_EQ(first.position(), 0u);
  EXPECT_EQ(second.block_hash(), blocks[1].block_hash());
  EXPECT_EQ(second.sequence_hash(), blocks[1].sequence_hash());
  EXPECT_EQ(second.parent_sequence_hash(), first.sequence_hash());
  EXPECT_EQ(second.position(), 1u);
  EXPECT_EQ(copy(second.tokens()), count_from(5, 4));
}

TEST(TokenBlockTest, AnExternalNameReplacesOurs) {
  const auto tokens = count_from(1, 4);
  const auto first = TokenBlock::create_external(tokens, SequenceHash(11)).value();
  const auto second = TokenBlock::create_external(tokens, SequenceHash(12), &first).value();
  const auto third = TokenBlock::create(tokens, &second).value();

  EXPECT_EQ(second.sequence_hash(), SequenceHash(12));
  EXPECT_EQ(second.parent_sequence_hash(), SequenceHash(11));
  EXPECT_EQ(second.position(), 1u);
  EXPECT_EQ(second.block_hash(), hash_block(tokens, 0));
  EXPECT_EQ(third.sequence_hash(), chain_hash(SequenceHash(12), third.block_hash()));
}

TEST(TokenBlockTest, RefusesSizesOutsideTheRangeOrUnlikeTheParents) {
  const auto parent = TokenBlock::create(count_from(0, 4)).value();
  expect_error(TokenBlock::create({}), ErrorCode::InvalidConfig, 0, MAX_PAGE_SIZE);
  expect_error(TokenBlock::create(count_from(0, MAX_PAGE_SIZE + 1)), ErrorCode::InvalidConfig,
               MAX_PAGE_SIZE + 1, MAX_PAGE_SIZE);
  expect_error(TokenBlock::create(count_from(0, 5), &parent), ErrorCode::InvalidConfig, 5, 4);
  expect_error(TokenBlock::create_external(count_from(0, 5), SequenceHash(1), &parent),
               ErrorCode::InvalidConfig, 5, 4);
}

TEST(PartialTokenBlockTest, RefusesBlockSizesOutsideTheRange) {
  expect_error(PartialTokenBlock::create(0), ErrorCode::InvalidConfig, 0, MAX_PAGE_SIZE);
  expect_error(PartialTokenBlock::create(MAX_PAGE_SIZE + 1), ErrorCode::InvalidConfig,
               MAX_PAGE_SIZE + 1, MAX_PAGE_SIZE);
  EXPECT_TRUE(PartialTokenBlock::create(MAX_PAGE_SIZE).has_value());
}

TEST(PartialTokenBlockTest, TakesWhatFits) {
  auto partial = PartialTokenBlock::create(4).value();
  EXPECT_TRUE(partial.is_empty());
  EXPECT_EQ(partial.remaining(), 4u);

  ASSERT_TRUE(partial.push_token(1));
  EXPECT_EQ(partial.len(), 1u);
  EXPECT_EQ(partial.remaining(), 3u);
  EXPECT_FALSE(partial.is_empty());

  EXPECT_EQ(copy(partial.push_tokens(count_from(2, 5))).size(), 2u);
  EXPECT_EQ(copy(partial.tokens()), count_from(1, 4));
  EXPECT_EQ(partial.remaining(), 0u);

  expect_error(partial.push_token(9), ErrorCode::Full, 1, 0);
  const std::vector<Token> more = {9};
  EXPECT_EQ(partial.push_tokens(more).data(), more.data());
  EXPECT_EQ(copy(partial.tokens()), count_from(1, 4));
}

TEST(PartialTokenBlockTest, PopsWhatIsThere) {
  auto partial = PartialTokenBlock::create(4).value();
  partial.push_tokens(count_from(1, 4));

  EXPECT_EQ(partial.pop_token().value(), 4u);
  expect_error(partial.pop_tokens(4), ErrorCode::InsufficientTokens, 4, 3);
  EXPECT_EQ(copy(partial.tokens()), count_from(1, 3));
  ASSERT_TRUE(partial.pop_tokens(3));
  EXPECT_TRUE(partial.is_empty());
  ASSERT_TRUE(partial.pop_tokens(0));
  expect_error(partial.pop_token(), ErrorCode::Empty, 0, 0);
}

TEST(PartialTokenBlockTest, CommitLeavesTheNextBlock) {
  const HashSeeds seeds{.salt = 3, .chain = 4};
  auto partial = PartialTokenBlock::create(2, seeds).value();
  ASSERT_TRUE(partial.push_token(1));
  expect_error(partial.commit(), ErrorCode::Incomplete, 2, 1);
  EXPECT_EQ(partial.len(), 1u) << "a refusal changes nothing";

  ASSERT_TRUE(partial.push_token(2));
  const auto first = partial.commit().value();
  EXPECT_EQ(first.position(), 0u);
  EXPECT_TRUE(partial.is_empty());
  EXPECT_EQ(partial.parent_sequence_hash(), first.sequence_hash());
  EXPECT_EQ(partial.position(), 1u);

  partial.push_tokens(count_from(3, 2));
  const auto second = partial.commit().value();
  EXPECT_EQ(names_of(count_from(1, 4), 2, seeds),
            (Names{{first.block_hash(), first.sequence_hash().value()},
                   {second.block_hash(), second.sequence_hash().value()}}));
}

// Byte by byte, as the header says.
BlockHash hash_slots(const std::vector<std::vector<std::uint64_t>>& frames, SaltHash salt) {
  std::vector<unsigned char> bytes;
  const auto put = [&](std::uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes.push_back(static_cast<unsigned char>(value >> (8 * i)));
  };
  for (const auto& frame : frames) {
    put(frame[0], 1);
    put(frame[1], 4);
    put(frame[2], 8);
  }
  EXPECT_EQ(bytes.size(), frames.size() * 13);
  return xxh3(bytes.data(), bytes.size(), salt);
}

TEST(MultimodalTest, ABlockWithPlaceholdersHashesFrames) {
  constexpr std::uint64_t kImage = 0xfedcba9876543210u;
  constexpr std::uint64_t kSound = 0x0123456789abcdefu;
  const std::vector<TokenBlockMmInfo> runs = {{kImage, 1, 2}, {kSound, 3, 1}, {kImage, 10, 7}};
  const std::vector<Token> tokens = {0xa1b2c3d4u, 0, 0, 0, 5};

  EXPECT_EQ(
      hash_block(tokens, 0, runs, 6),
      hash_slots({{0, 0xa1b2c3d4u, 0}, {1, 0, kImage}, {1, 1, kImage}, {1, 0, kSound}, {0, 5, 0}},
                 6));
  // A run that began before the block, and one that goes on behind it.
  const std::vector<Token> two = {8, 9};
  EXPECT_EQ(hash_block(two, 9, runs, 6), hash_slots({{0, 8, 0}, {1, 0, kImage}}, 6));
  EXPECT_EQ(hash_block(two, 13, runs, 6), hash_slots({{1, 3, kImage}, {1, 4, kImage}}, 6));
  EXPECT_EQ(hash_block(two, 16, runs, 6), hash_slots({{1, 6, kImage}, {0, 9, 0}}, 6));
}

TEST(MultimodalTest, ABlockWithoutPlaceholdersHashesTokens) {
  const std::vector<Token> tokens = {1, 2, 3, 4};
  const std::vector<TokenBlockMmInfo> runs = {{77, 0, 4}, {78, 8, 4}};
  EXPECT_EQ(hash_block(tokens, 4, runs, 1337), 14643705804678351452u);
  EXPECT_EQ(hash_block(tokens, 12, runs, 1337), 14643705804678351452u);
  EXPECT_EQ(hash_block(tokens, 0, {}, 1337), 14643705804678351452u);
}

TEST(MultimodalTest, TokensUnderAPlaceholderDoNotCount) {
  const std::vector<TokenBlockMmInfo> runs = {{77, 1, 3}};
  const auto a = TokenBlockSequence::create(std::vector<Token>{1, 9, 9, 9}, 2, {}, runs).value();
  const auto b = TokenBlockSequence::create(std::vector<Token>{1, 8, 7, 6}, 2, {}, runs).value();
  EXPECT_EQ(a.sequence_hashes(), b.sequence_hashes());
  EXPECT_EQ(copy(b.blocks()[1].tokens()), (std::vector<Token>{7, 6}));
}

TEST(MultimodalTest, RefusesInvalidRunsByNumber) {
  constexpr std::size_t kHuge = std::numeric_limits<std::size_t>::max();
  const auto refuse = [](std::vector<TokenBlockMmInfo> runs, std::string_view message,
                         std::uint64_t requested, std::uint64_t available) {
    const auto result = TokenBlockSequence::create(count_from(0, 10), 4, {}, runs);
    ASSERT_FALSE(result.has_value());
    expect_error(result, ErrorCode::InvalidConfig, requested, available);
    EXPECT_EQ(result.error().message, message);
  };
  refuse({{1, 0, 2}, {2, 5, 0}}, "multimodal run 1 is empty", 0, 0);
  refuse({{1, 0, 3}, {2, 2, 1}}, "multimodal run 1 begins before the end of the run before it", 2,
         3);
  refuse({{1, 5, 1}, {2, 0, 1}}, "multimodal run 1 begins before the end of the run before it", 0,
         6);
  refuse({{1, 8, 3}}, "multimodal run 0 is longer than the tokens from its offset on", 3, 2);
  refuse({{1, 11, 1}}, "multimodal run 0 is longer than the tokens from its offset on", 1, 0);
  refuse({{1, 2, kHuge}}, "multimodal run 0 is longer than the tokens from its offset on", kHuge,
         8);
  EXPECT_TRUE(TokenBlockSequence::create(count_from(0, 10), 4, {},
                                         std::vector<TokenBlockMmInfo>{{1, 0, 3}, {2, 3, 7}}));
}

}  // namespace
}  // namespace kvbm
