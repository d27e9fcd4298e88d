#include "kvbm/vllm_hash.h"

#include <gtest/gtest.h>

#include <numeric>
#include <type_traits>

#include "logical/tokens/sha256.h"

namespace kvbm {
namespace {

static_assert(!std::is_copy_constructible_v<VllmHasher>, "a hasher has one context");

using Bytes = std::vector<std::byte>;

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    text += kDigits[std::to_integer<unsigned>(byte) >> 4];
    text += kDigits[std::to_integer<unsigned>(byte) & 15];
  }
  return text;
}

std::vector<Token> count_from(Token first, std::size_t count) {
  std::vector<Token> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

VllmHasher hasher(std::string_view seed = DEFAULT_VLLM_SEED) {
  return VllmHasher::create(seed).value();
}

// A plain hash of bytes that a test wrote by hand.
VllmHash sha256(const Bytes& bytes) { return Sha256::create().value().hash(bytes).value(); }

void put(Bytes& bytes, std::initializer_list<int> values) {
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
}

void put(Bytes& bytes, std::string_view text) {
  for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
}

void put(Bytes& bytes, const VllmHash& hash) {
  put(bytes, {0x58, 0x20});
  bytes.insert(bytes.end(), hash.begin(), hash.end());
}

template <class T>
void expect_refused(const Result<T>& result, std::string_view message, std::uint64_t requested,
                    std::uint64_t available) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::InvalidConfig);
  EXPECT_EQ(result.error().native, 0);
  EXPECT_EQ(result.error().message, message);
  EXPECT_EQ(result.error().requested, requested);
  EXPECT_EQ(result.error().available, available);
}

// The published vectors of vLLM's hash.
TEST(VllmHashTest, TheVectorsOfTheDefaultSeed) {
  VllmHasher vllm = hasher();
  EXPECT_EQ(hex(vllm.none_hash()),
            "9bd96a485ad84efdafb72ee48a1d7a69bcead0f8f0433173941b276b9581eef0");

  const auto first = vllm.hash_block(vllm.none_hash(), count_from(1, 4)).value();
  EXPECT_EQ(hex(first), "58d0879dff3800f65f8c5fd449d73048c0f7699dd238a03b84b146b151d55111");
  EXPECT_EQ(vllm_sequence_hash(first), SequenceHash(9561501211280363793u));
  const auto second = vllm.hash_block(first, count_from(5, 4)).value();
  EXPECT_EQ(hex(second), "e1bc29393a2da9fd798f35ff04d215f846aee6df4b803ce3d43b57df56b58fb1");
  EXPECT_EQ(vllm_sequence_hash(second), SequenceHash(15292913576410714033u));

  const auto sixteen = vllm.hash_block(vllm.none_hash(), count_from(0, 16)).value();
  EXPECT_EQ(hex(sixteen), "dc918a88b139e5afe60b88eda27508d4aee16c10fdc354791efea06206ac0749");
  EXPECT_EQ(vllm_sequence_hash(sixteen), SequenceHash(2233398808101521225u));
  const auto behind = vllm.hash_block(sixteen, count_from(16, 16)).value();
  EXPECT_EQ(hex(behind), "c300ec275d7bf08af8fc63e76cdc0086911bbc7091e03c5cf892553bef84ef0c");
  EXPECT_EQ(vllm_sequence_hash(behind), SequenceHash(17911472383915781900u));

  const auto salted =
      vllm.hash_block(vllm.none_hash(), count_from(0, 16), {.cache_salt = "tenant-a"}).value();
  EXPECT_EQ(hex(salted), "6cb0a72bb1d5fcd9e8edc0a7c0d918f6545a8d98f4370ef894cac0191c41787a");
  EXPECT_EQ(vllm_sequence_hash(salted), SequenceHash(10721593076989655162u));
}

TEST(VllmHashTest, TheVectorsOfSeedZero) {
  VllmHasher vllm = hasher("0");
  EXPECT_EQ(hex(vllm.none_hash()),
            "4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e");
  const auto first = vllm.hash_block(vllm.none_hash(), count_from(0, 16)).value();
  EXPECT_EQ(hex(first), "d830de3d42c00f25a2949b5d12d98642664a44872c1614c5b0147556276afc9c");
  EXPECT_EQ(hex(vllm.hash_block(first, count_from(16, 16)).value()),
            "fedd9e4abebebbe6f6cf96b682f08d316063fe2f22a5c552192dd62904fcccac");
}

TEST(VllmHashTest, NumbersTakeTheShortestForm) {
  VllmHasher vllm = hasher();
  const std::vector<Token> tokens = {0, 23, 24, 255, 256, 65535, 65536, 0x01020304, 0xFFFF'FFFFu};
  Bytes bytes;
  put(bytes, {0x83});
  put(bytes, vllm.none_hash());
  put(bytes, {0x89, 0x00, 0x17, 0x18, 24, 0x18, 0xFF, 0x19, 1,    0,    0x19, 0xFF, 0xFF, 0x1A, 0,
              1,    0,    0,    0x1A, 1,  2,    3,    4,    0x1A, 0xFF, 0xFF, 0xFF, 0xFF, 0xF6});
  EXPECT_EQ(hex(vllm.hash_block(vllm.none_hash(), tokens).value()), hex(sha256(bytes)));
}

TEST(VllmHashTest, CountsOfTokensTakeTheShortestForm) {
  VllmHasher vllm = hasher();
  const std::vector<std::pair<std::size_t, std::vector<int>>> heads = {
      {1, {0x81}},        {23, {0x97}},        {24, {0x98, 24}},
      {255, {0x98, 255}}, {256, {0x99, 1, 0}}, {1024, {0x99, 4, 0}}};
  for (const auto& [count, head] : heads) {
    Bytes bytes;
    put(bytes, {0x83});
    put(bytes, vllm.none_hash());
    for (const int byte : head) put(bytes, {byte});
    for (std::size_t i = 0; i < count; ++i) put(bytes, {7});
    put(bytes, {0xF6});
    EXPECT_EQ(hex(vllm.hash_block(vllm.none_hash(), std::vector<Token>(count, 7)).value()),
              hex(sha256(bytes)))
        << count;
  }
}

TEST(VllmHashTest, LengthsOfTextsTakeTheShortestForm) {
  VllmHasher vllm = hasher();
  const std::vector<std::pair<std::size_t, std::vector<int>>> heads = {
      {23, {0x77}},        {24, {0x78, 24}},          {255, {0x78, 255}},
      {256, {0x79, 1, 0}}, {65535, {0x79, 255, 255}}, {65536, {0x7A, 0, 1, 0, 0}}};
  for (const auto& [length, head] : heads) {
    const std::string salt(length, 's');
    Bytes bytes;
    put(bytes, {0x83});
    put(bytes, vllm.none_hash());
    put(bytes, {0x81, 7, 0x81});
    for (const int byte : head) put(bytes, {byte});
    put(bytes, salt);
    EXPECT_EQ(
        hex(vllm.hash_block(vllm.none_hash(), count_from(7, 1), {.cache_salt = salt}).value()),
        hex(sha256(bytes)))
        << length;
  }
}

TEST(VllmHashTest, OffsetsTakeTheShortestForm) {
  VllmHasher vllm = hasher();
  const std::vector<std::pair<std::int64_t, std::vector<int>>> heads = {
      {0xFFFF, {0x19, 255, 255}},
      {0x10000, {0x1A, 0, 1, 0, 0}},
      {0xFFFF'FFFF, {0x1A, 255, 255, 255, 255}},
      {0x1'0000'0000, {0x1B, 0, 0, 0, 1, 0, 0, 0, 0}},
      {0x0102'0304'0506'0708, {0x1B, 1, 2, 3, 4, 5, 6, 7, 8}},
      {-24, {0x37}},
      {-25, {0x38, 24}},
      {-0x1'0000'0001, {0x3B, 0, 0, 0, 1, 0, 0, 0, 0}}};
  for (const auto& [offset, head] : heads) {
    const std::vector<VllmBlockKeys::Multimodal> objects = {{"i", offset}};
    Bytes bytes;
    put(bytes, {0x83});
    put(bytes, vllm.none_hash());
    put(bytes, {0x81, 7, 0x81, 0x82, 0x61});
    put(bytes, "i");
    for (const int byte : head) put(bytes, {byte});
    const VllmBlockKeys keys{.multimodal = objects};
    EXPECT_EQ(hex(vllm.hash_block(vllm.none_hash(), count_from(7, 1), keys).value()),
              hex(sha256(bytes)))
        << offset;
  }
}

TEST(VllmHashTest, KeysStandInTheOrderOfVllm) {
  VllmHasher vllm = hasher();
  const VllmHash embeds = sha256({});
  const std::string identifier(300, 'i');
  const std::vector<VllmBlockKeys::Multimodal> objects = {
      {"image", -1}, {"video", -300}, {identifier, 3}};
  const VllmBlockKeys keys{"adapter", objects, "salt", &embeds};

  Bytes bytes;
  put(bytes, {0x83});
  put(bytes, vllm.none_hash());
  put(bytes, {0x81, 5, 0x86, 0x67});
  put(bytes, "adapter");
  put(bytes, {0x82, 0x65});
  put(bytes, "image");
  put(bytes, {0x20, 0x82, 0x65});
  put(bytes, "video");
  put(bytes, {0x39, 1, 43, 0x82, 0x79, 1, 44});
  put(bytes, identifier);
  put(bytes, {3, 0x64});
  put(bytes, "salt");
  put(bytes, embeds);
  EXPECT_EQ(hex(vllm.hash_block(vllm.none_hash(), count_from(5, 1), keys).value()),
            hex(sha256(bytes)));
}

TEST(VllmHashTest, APromptIsItsBlocksOneBehindTheOther) {
  const auto blocks = hasher().hash_prompt(count_from(0, 40), 16).value();
  ASSERT_EQ(blocks.size(), 2u) << "only full blocks";
  EXPECT_EQ(blocks[0].sequence_hash(), SequenceHash(2233398808101521225u));
  EXPECT_EQ(blocks[1].sequence_hash(), SequenceHash(17911472383915781900u));
  EXPECT_EQ(blocks[0].parent_sequence_hash(), std::nullopt);
  EXPECT_EQ(blocks[1].parent_sequence_hash(), blocks[0].sequence_hash());
  EXPECT_EQ(blocks[1].position(), 1u);
  EXPECT_EQ(blocks[1].tokens()[0], 16u);
  EXPECT_EQ(blocks[1].digest(), 0u) << "no key";
  EXPECT_TRUE(hasher().hash_prompt(count_from(0, 15), 16).value().empty());
}

TEST(VllmHashTest, APromptGivesEachBlockItsKeys) {
  VllmHasher vllm = hasher();
  const auto tokens = count_from(0, 16);
  const std::vector<VllmHash> embeds = {sha256({std::byte{0}}), sha256({std::byte{1}}),
                                        sha256({std::byte{2}}), sha256({std::byte{3}})};
  const VllmPromptKeys keys{"adapter", {{"a", 1, 3}, {"b", 5, 5}, {"c", 11, 1}}, "salt", embeds};
  const auto blocks = vllm.hash_prompt(tokens, 4, keys).value();
  ASSERT_EQ(blocks.size(), 4u);

  using Multimodal = VllmBlockKeys::Multimodal;
  const std::vector<std::vector<Multimodal>> expected = {
      {{"a", 1}}, {{"b", 1}}, {{"b", -3}, {"c", 3}}, {}};
  VllmHash hash = vllm.none_hash();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const VllmBlockKeys block_keys{"adapter", expected[i], i == 0 ? "salt" : "", &embeds[i]};
    hash = vllm.hash_block(hash, std::span(tokens).subspan(4 * i, 4), block_keys).value();
    EXPECT_EQ(blocks[i].sequence_hash(), vllm_sequence_hash(hash)) << i;
  }
}

TEST(VllmHashTest, DigestsAreTheKeysOverTheWholeHash) {
  const Bytes secret(32, std::byte{9});
  const DigestKey key = DigestKey::create(secret).value();
  VllmHasher vllm = VllmHasher::create(DEFAULT_VLLM_SEED, key).value();
  const auto blocks = vllm.hash_prompt(count_from(1, 8), 4).value();
  const auto first = vllm.hash_block(vllm.none_hash(), count_from(1, 4)).value();
  EXPECT_EQ(blocks[0].sequence_hash(), vllm_sequence_hash(first));
  EXPECT_EQ(blocks[0].digest(), key.digest(first));
  EXPECT_EQ(blocks[1].digest(), key.digest(vllm.hash_block(first, count_from(5, 4)).value()));
}

TEST(VllmHashTest, RefusesWhatCannotBeABlock) {
  VllmHasher vllm = hasher();
  const auto tokens = count_from(0, 8);
  expect_refused(vllm.hash_block(vllm.none_hash(), {}), "a block must have 1 .. 1024 tokens", 0,
                 MAX_PAGE_SIZE);
  expect_refused(vllm.hash_block(vllm.none_hash(), count_from(0, MAX_PAGE_SIZE + 1)),
                 "a block must have 1 .. 1024 tokens", MAX_PAGE_SIZE + 1, MAX_PAGE_SIZE);
  for (const std::size_t size : {std::size_t{0}, MAX_PAGE_SIZE + 1}) {
    expect_refused(vllm.hash_prompt(tokens, size), "block_size must be 1 .. 1024 tokens", size,
                   MAX_PAGE_SIZE);
  }
  expect_refused(vllm.hash_prompt(tokens, 4, {.prompt_embeds = {VllmHash{}}}),
                 "prompt_embeds must have none or one for each full block", 1, 2);
  expect_refused(vllm.hash_prompt(tokens, 4, {.multimodal = {{"a", 3, 1}, {"b", 2, 1}}}),
                 "multimodal object 1 begins before the one in front of it", 2, 3);
}

}  // namespace
}  // namespace kvbm
