#include "kvbm/tokens.h"

#include <gtest/gtest.h>

#include <string_view>

namespace kvbm {
namespace {

constexpr std::uint64_t kSaltEqualToChainSeed = 0;

std::vector<SequenceHash> hashes_of(SaltHash salt, std::uint64_t chain_seed) {
  const std::vector<Token> tokens = {1, 2, 3, 4, 5, 6, 7, 8};
  return TokenBlockSequence::create(tokens, 4, salt, chain_seed).value().sequence_hashes();
}

SaltHash salt_of(std::string_view text) { return hash_salt(std::as_bytes(std::span(text))); }

// The published vectors of the reference implementation's token blocks.
TEST(TokensTest, BlockHashesMatchTheReferenceVectors) {
  const std::vector<Token> first = {1, 2, 3, 4};
  const std::vector<Token> second = {5, 6, 7, 8};
  EXPECT_EQ(hash_block(first, 1337), 14643705804678351452u);
  EXPECT_EQ(hash_block(second, 1337), 16777012769546811212u);
  EXPECT_EQ(hash_block(first, 0), 8052976908588476977u);
  EXPECT_EQ(hash_block(second, 0), 13852901005659965728u);
  EXPECT_EQ(hash_block(first, 1389868326933519382u), 8026409477313730465u);
  EXPECT_EQ(hash_block(second, 1389868326933519382u), 4932910930253085737u);
}

TEST(TokensTest, SequenceHashesMatchTheReferenceVectors) {
  EXPECT_EQ(hashes_of(1337, DEFAULT_CHAIN_SEED)[0].value(), 14643705804678351452u);
  EXPECT_EQ(hashes_of(1337, DEFAULT_CHAIN_SEED)[1].value(), 4945711292740353085u);
  EXPECT_EQ(hashes_of(0, DEFAULT_CHAIN_SEED)[0].value(), 8052976908588476977u);
  EXPECT_EQ(hashes_of(0, DEFAULT_CHAIN_SEED)[1].value(), 17538018756801271241u);
  EXPECT_EQ(hashes_of(0, kSaltEqualToChainSeed)[1].value(), 4185132130981121146u);
  EXPECT_EQ(hashes_of(1389868326933519382u, DEFAULT_CHAIN_SEED)[1].value(), 1505689164459802956u);
}

TEST(TokensTest, SaltHashesMatchTheReferenceVectors) {
  EXPECT_EQ(salt_of(""), 3244421341483603138u);
  EXPECT_EQ(salt_of("abc"), 8696274497037089104u);
  EXPECT_EQ(salt_of("{}"), 1389868326933519382u);
}

TEST(TokenBlockSequenceTest, ExtendInAnyPiecesGivesTheSameBlocks) {
  std::vector<Token> tokens;
  for (Token t = 0; t < 100; ++t) tokens.push_back(t * 7 + 3);
  const auto whole = TokenBlockSequence::create(tokens, 16).value();

  for (std::size_t piece : {1u, 3u, 16u, 17u, 99u}) {
    auto grown = TokenBlockSequence::create({}, 16).value();
    for (std::size_t at = 0; at < tokens.size(); at += piece) {
      grown.extend(std::span(tokens).subspan(at, std::min(piece, tokens.size() - at)));
    }
    EXPECT_EQ(grown.sequence_hashes(), whole.sequence_hashes()) << "pieces of " << piece;
    EXPECT_EQ(grown.tail().size(), 4u);
    EXPECT_EQ(grown.total_tokens(), 100u);
  }
}

TEST(TokenBlockSequenceTest, BlocksKeepTheirTokensAndParents) {
  const std::vector<Token> tokens = {1, 2, 3, 4, 5};
  const auto sequence = TokenBlockSequence::create(tokens, 2).value();
  ASSERT_EQ(sequence.blocks().size(), 2u);
  EXPECT_FALSE(sequence.blocks()[0].parent_sequence_hash().has_value());
  EXPECT_EQ(sequence.blocks()[1].parent_sequence_hash(), sequence.blocks()[0].sequence_hash());
  EXPECT_EQ(sequence.blocks()[1].tokens()[0], 3u);
  EXPECT_EQ(sequence.tail()[0], 5u);
}

TEST(TokenBlockSequenceTest, SaltAndPrefixBothChangeEveryName) {
  const std::vector<Token> a = {1, 2, 3, 4};
  const std::vector<Token> b = {9, 2, 3, 4};
  const auto plain = TokenBlockSequence::create(a, 2).value().sequence_hashes();
  const auto salted = TokenBlockSequence::create(a, 2, 5).value().sequence_hashes();
  const auto other_prefix = TokenBlockSequence::create(b, 2).value().sequence_hashes();
  EXPECT_NE(plain[0], salted[0]);
  EXPECT_NE(plain[1], salted[1]);
  EXPECT_NE(plain[1], other_prefix[1]);
}

TEST(TokenBlockSequenceTest, RefusesBlockSizesOutsideTheRange) {
  for (std::size_t size : {std::size_t{0}, MAX_PAGE_SIZE + 1}) {
    const auto result = TokenBlockSequence::create({}, size);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, ErrorCode::InvalidConfig);
    EXPECT_EQ(result.error().requested, size);
    EXPECT_EQ(result.error().available, MAX_PAGE_SIZE);
  }
}

}  // namespace
}  // namespace kvbm
