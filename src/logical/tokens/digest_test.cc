// Digests of token blocks under a key.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <set>

#include "base/xxh3.h"
#include "kvbm/tokens.h"
#include "logical/tokens/sha256.h"

namespace kvbm {
namespace {

static_assert(sizeof(TokenBlock) == 64, "a digest costs a block no memory");

using Bytes = std::vector<std::byte>;

DigestKey key_of(int byte, std::size_t size = 32) {
  return DigestKey::create(Bytes(size, static_cast<std::byte>(byte))).value();
}

std::vector<Token> count_from(Token first, std::size_t count) {
  std::vector<Token> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<std::uint64_t> digests_of(const TokenBlockSequence& sequence) {
  std::vector<std::uint64_t> digests;
  for (const TokenBlock& block : sequence.blocks()) digests.push_back(block.digest());
  return digests;
}

std::vector<std::uint64_t> digests_of(std::span<const Token> tokens, const HashSeeds& seeds,
                                      std::span<const TokenBlockMmInfo> runs = {}) {
  return digests_of(TokenBlockSequence::create(tokens, 4, seeds, runs).value());
}

TEST(DigestKeyTest, TakesKeysOfSixteenToSixtyFourBytes) {
  for (const std::size_t size : {0u, 15u, 65u}) {
    const auto refused = DigestKey::create(Bytes(size));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::InvalidConfig);
    EXPECT_EQ(refused.error().native, 0);
    EXPECT_EQ(refused.error().requested, size);
    EXPECT_EQ(refused.error().available, 64u);
    EXPECT_EQ(refused.error().message, "a digest key must have 16 .. 64 bytes");
  }
  EXPECT_TRUE(DigestKey::create(Bytes(16)).has_value());
  EXPECT_TRUE(DigestKey::create(Bytes(64)).has_value());
}

TEST(DigestKeyTest, NoKeyGivesZeros) {
  const DigestKey none;
  EXPECT_TRUE(none.is_empty());
  EXPECT_EQ(none.fingerprint(), 0u);
  EXPECT_EQ(none.digest(Bytes(8)), 0u);
  EXPECT_FALSE(key_of(1).is_empty());
}

TEST(DigestKeyTest, DifferentKeysGiveDifferentFingerprintsAndDigests) {
  std::set<std::uint64_t> seen;
  for (const std::size_t size : {16u, 32u, 64u}) {
    for (const int byte : {0, 1}) {
      const DigestKey key = key_of(byte, size);
      seen.insert(key.fingerprint());
      for (const std::size_t length : {8u, 64u, 200u, 1000u})
        seen.insert(key.digest(Bytes(length)));
    }
  }
  EXPECT_EQ(seen.size(), 6u * 5);
  EXPECT_EQ(key_of(7).fingerprint(), key_of(7).fingerprint());
}

// The key is expanded as the header says, so that another program can make the same digests.
TEST(DigestKeyTest, IsXxh3UnderASecretOfSha256InCounterMode) {
  const Bytes secret(32, std::byte{5});
  Sha256 sha256 = Sha256::create().value();
  Bytes expanded;
  for (int i = 0; i < 6; ++i) {
    Bytes message;
    for (const char c : std::string_view("kvbm digest secret")) {
      message.push_back(static_cast<std::byte>(c));
    }
    message.push_back(std::byte{0});
    message.push_back(static_cast<std::byte>(i));
    message.insert(message.end(), secret.begin(), secret.end());
    const auto part = sha256.hash(message).value();
    expanded.insert(expanded.end(), part.begin(), part.end());
  }
  const Bytes text(100, std::byte{3});
  EXPECT_EQ(key_of(5).digest(text),
            XXH3_64bits_withSecret(text.data(), text.size(), expanded.data(), expanded.size()));
}

TEST(DigestTest, IsTheDocumentedHashOfTheWholePrefix) {
  const HashSeeds seeds{.salt = 11, .chain = 12, .key = key_of(1)};
  const auto tokens = count_from(1, 8);
  const auto digests = digests_of(tokens, seeds);
  std::uint64_t parent = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    const std::uint64_t head[] = {parent, 11, 12, 4};
    std::byte bytes[48];
    std::memcpy(bytes, head, 32);
    std::memcpy(bytes + 32, &tokens[4 * i], 16);
    parent = seeds.key.digest(bytes);
    EXPECT_EQ(digests[i], parent) << i;
  }
}

TEST(DigestTest, EverythingThatNamesABlockChangesIt) {
  const auto tokens = count_from(1, 8);
  const DigestKey key = key_of(1);
  const std::vector<TokenBlockMmInfo> run = {{77, 1, 2}};
  const std::vector<TokenBlockMmInfo> longer = {{77, 1, 3}};
  const std::vector<TokenBlockMmInfo> other = {{78, 1, 2}};
  std::set<std::uint64_t> seen;
  std::size_t count = 0;
  const auto add = [&](std::span<const Token> prompt, const HashSeeds& seeds,
                       std::span<const TokenBlockMmInfo> runs = {}) {
    for (const std::uint64_t digest : digests_of(prompt, seeds, runs)) {
      seen.insert(digest);
      ++count;
    }
  };
  add(tokens, {.key = key});
  add(count_from(2, 8), {.key = key});
  add(tokens, {.salt = 1, .key = key});
  add(tokens, {.chain = 1, .key = key});
  add(tokens, {.key = key_of(2)});
  add(tokens, {.key = key}, run);
  add(tokens, {.key = key}, longer);
  add(tokens, {.key = key}, other);
  EXPECT_EQ(count, 16u);
  EXPECT_EQ(seen.size(), count);
  EXPECT_FALSE(seen.contains(0));
}

TEST(DigestTest, NamesAreTheSameWithAndWithoutAKey) {
  const auto tokens = count_from(1, 8);
  const auto plain = TokenBlockSequence::create(tokens, 4).value();
  const auto keyed = TokenBlockSequence::create(tokens, 4, {.key = key_of(1)}).value();
  EXPECT_EQ(plain.sequence_hashes(), keyed.sequence_hashes());
  EXPECT_EQ(digests_of(plain), (std::vector<std::uint64_t>{0, 0}));
}

TEST(DigestTest, BlocksMadeOneByOneHaveThoseOfASequence) {
  const auto tokens = count_from(1, 8);
  const HashSeeds seeds{.salt = 3, .key = key_of(1)};
  const auto first = TokenBlock::create(std::span(tokens).first(4), nullptr, seeds).value();
  const auto second = TokenBlock::create(std::span(tokens).last(4), &first, seeds).value();
  EXPECT_EQ((std::vector{first.digest(), second.digest()}), digests_of(tokens, seeds));
}

TEST(DigestTest, GrownAndReopenedSequencesHaveThoseOfTheirTokens) {
  const HashSeeds seeds{.salt = 3, .key = key_of(1)};
  const auto tokens = count_from(1, 17);
  auto sequence = TokenBlockSequence::create(tokens, 4, seeds).value();
  for (const std::size_t length : {13u, 12u, 9u, 8u, 5u, 2u, 0u}) {
    sequence.truncate(length);
    sequence.extend(std::span(tokens).subspan(length));
    EXPECT_EQ(digests_of(sequence), digests_of(tokens, seeds)) << "from " << length;
  }
  ASSERT_TRUE(sequence.unwind(6));
  EXPECT_EQ(digests_of(sequence), digests_of(std::span(tokens).first(11), seeds));
  for (const Token token : std::span(tokens).subspan(11)) sequence.append(token);
  EXPECT_EQ(digests_of(sequence), digests_of(tokens, seeds));
}

TEST(DigestTest, AnExternalNameBringsItsOwn) {
  const auto tokens = count_from(1, 4);
  const HashSeeds seeds{.key = key_of(1)};
  const auto named = TokenBlock::create_external(tokens, SequenceHash(5), nullptr, 6).value();
  EXPECT_EQ(named.digest(), 6u);
  EXPECT_NE(TokenBlock::create(tokens, &named, seeds).value().digest(), 0u);
  const auto without = TokenBlock::create_external(tokens, SequenceHash(5)).value();
  EXPECT_EQ(without.digest(), 0u);
  EXPECT_EQ(TokenBlock::create(tokens, &without, seeds).value().digest(), 0u)
      << "it would not stand for the prefix";
}

}  // namespace
}  // namespace kvbm
