#include "remote/blockset.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>

#include "base/xxh3.h"
#include "remote/test_blocksets.h"
#include "remote/test_remote_blocks.h"

namespace kvbm::remote {
namespace {

using Bytes = std::vector<std::byte>;

// Makes length and checksum right again.
Bytes sealed(Bytes bytes) {
  const auto length = static_cast<std::uint32_t>(bytes.size());
  std::memcpy(&bytes[12], &length, sizeof length);
  const std::uint64_t sum = xxh3(bytes.data(), bytes.size() - 8);
  std::memcpy(&bytes[bytes.size() - 8], &sum, sizeof sum);
  return bytes;
}

void expect_refused(const Bytes& bytes, const std::string& why) {
  const auto answer = decode_blockset(bytes);
  ASSERT_FALSE(answer) << why;
  EXPECT_EQ(answer.error().code, ErrorCode::InvalidConfig);
  EXPECT_NE(answer.error().message.find(why), std::string::npos)
      << answer.error().message << "\nshould say: " << why;
}

// validate() and decode_blockset() refuse the same.
void expect_refused(const std::function<void(Blockset&)>& change, const std::string& why) {
  Blockset set = test_blockset();
  change(set);
  const auto answer = set.validate();
  ASSERT_FALSE(answer) << why;
  EXPECT_NE(answer.error().message.find(why), std::string::npos) << answer.error().message;
  expect_refused(encode(set), why);
}

TEST(BlocksetTest, ComesBackAsItWas) {
  const Blockset set = test_blockset();
  ASSERT_TRUE(set.validate());
  const Bytes bytes = encode(set);
  const auto decoded = decode_blockset(bytes);
  ASSERT_TRUE(decoded) << decoded.error().to_string();
  EXPECT_EQ(*decoded, set);
  EXPECT_EQ(encode(*decoded), bytes);

  const Blockset least{.started_at_ns = 1, .block_size = 1};
  EXPECT_EQ(encode(least).size(), 88u);
  EXPECT_EQ(decode_blockset(encode(least)).value(), least);
}

TEST(BlocksetTest, OfARealLayout) {
  for (const auto type : kTestTypes) {
    const auto layout = test_layout(type, test_config(1000));
    Blockset set = test_blockset();
    set.tiers = {TierBlocks::of(Tier::Host, *layout).value()};
    const auto decoded = decode_blockset(encode(set)).value();
    EXPECT_EQ(decoded, set);
    EXPECT_EQ(decoded.tiers[0].memories[0].address, layout->memory(0).address());
    EXPECT_EQ(decoded.tiers[0].fragments.size(), layout->fragments().size());
  }
}

// The format is a promise to other versions: docs/blocksets.md.
TEST(BlocksetTest, LiesAsTheDocumentSays) {
  const Bytes bytes = encode(test_blockset());
  const auto at = [&]<class T>(std::size_t offset, T) {
    T value{};
    std::memcpy(&value, &bytes[offset], sizeof value);
    return value;
  };
  EXPECT_EQ(std::memcmp(bytes.data(), "kvbm-bks", 8), 0);
  EXPECT_EQ(at(8, std::uint32_t{}), 1u);
  EXPECT_EQ(at(12, std::uint32_t{}), bytes.size());
  EXPECT_EQ(at(16, std::uint64_t{}), 5u);
  EXPECT_EQ(at(24, std::uint64_t{}), 0x1122334455667788u);
  EXPECT_EQ(at(32, std::uint64_t{}), 1'000'000u);
  EXPECT_EQ(at(40, std::uint64_t{}), 9u);
  EXPECT_EQ(at(48, std::uint64_t{}), 77u);
  EXPECT_EQ(at(56, std::uint32_t{}), 16u);
  EXPECT_EQ(at(60, std::uint8_t{}), 2u);
  EXPECT_EQ(at(61, std::uint8_t{}), 1u);
  EXPECT_EQ(at(62, std::uint16_t{}), 5u);
  EXPECT_EQ(at(70, std::uint16_t{}), 4u);
  EXPECT_EQ(at(72, std::uint32_t{}), 3u);
  EXPECT_EQ(std::memcmp(&bytes[80], "0.2.01.0127.0.0.1:7000llamakvbm", 31), 0);
  EXPECT_EQ(at(114, std::uint8_t{}), 1u) << "the boot id";
  EXPECT_EQ(at(146, std::uint32_t{}), 6u) << "the pid";
  EXPECT_EQ(at(158, std::uint32_t{}), 4u) << "blocks of the first tier";
  EXPECT_EQ(at(162, std::uint64_t{}), 1u) << "its device";
  EXPECT_EQ(at(186, std::uint64_t{}), 0x10000u) << "its first memory";
  EXPECT_EQ(at(226, std::uint32_t{}), 0u) << "the memory of its first fragment";
  EXPECT_EQ(at(238, std::uint64_t{}), 100u) << "and the bytes";
}

TEST(BlocksetTest, RefusesEveryTruncationAndEveryBitThatTurns) {
  const Bytes bytes = encode(test_blockset());
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_FALSE(decode_blockset(std::span(bytes).first(length))) << length;
  }
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    Bytes turned = bytes;
    turned[bit / 8] ^= std::byte(1u << (bit % 8));
    ASSERT_FALSE(decode_blockset(turned)) << bit;
  }
}

// The same with a checksum that is right: who lies can make one.
TEST(BlocksetTest, WhatIsAcceptedEncodesToTheSameBytes) {
  const Bytes bytes = encode(test_blockset());
  for (std::size_t length = 88; length < bytes.size(); ++length) {
    Bytes cut = bytes;
    cut.resize(length);
    ASSERT_FALSE(decode_blockset(sealed(std::move(cut)))) << length;
  }
  for (std::size_t bit = 0; bit < 8 * (bytes.size() - 8); ++bit) {
    Bytes turned = bytes;
    turned[bit / 8] ^= std::byte(1u << (bit % 8));
    turned = sealed(std::move(turned));
    if (const auto decoded = decode_blockset(turned)) {
      ASSERT_EQ(encode(*decoded), turned) << bit;
    }
  }
}

TEST(BlocksetTest, RefusesOtherFormatsAndWhatIsTooLong) {
  Bytes bytes = encode(test_blockset());
  bytes[8] = std::byte{2};
  expect_refused(sealed(bytes), "its format is 2, it must be 1 .. 1");
  bytes[0] = std::byte{'K'};
  expect_refused(sealed(bytes), "kvbm-bks");
  bytes = encode(test_blockset());
  bytes.insert(bytes.end() - 8, 3, std::byte{0});
  expect_refused(bytes, "it says that it has");
  expect_refused(sealed(bytes), "3 bytes too many");
  expect_refused(Bytes(Blockset::kMaxBytes + 1), "its length is 1048577, it must be 88 .. 1048576");
  expect_refused(Bytes{}, "its length is 0");
}

TEST(BlocksetTest, RefusesCountsThatWouldTakeMemory) {
  const Bytes bytes = encode(test_blockset());
  constexpr std::size_t kFirstTier = 154;
  for (const std::size_t count : {16u, 20u, 24u}) {
    Bytes huge = bytes;
    std::memset(&huge[kFirstTier + count], 0xFF, 4);
    expect_refused(sealed(huge), "a tier's lists need");
  }
  Bytes huge = bytes;
  std::memset(&huge[72], 0xFF, 4);
  expect_refused(sealed(huge), "the length of the NIXL metadata is 4294967295");
  huge = bytes;
  huge[60] = std::byte{3};
  expect_refused(sealed(huge), "the number of tiers is 3, it must be 0 .. 2");
  huge = bytes;
  huge[61] = std::byte{2};
  expect_refused(sealed(huge), "number of processes is 2");
  huge = bytes;
  huge[76] = std::byte{1};
  expect_refused(sealed(huge), "reserved");
  huge = bytes;
  huge[kFirstTier + 2] = std::byte{1};
  expect_refused(sealed(huge), "a tier's reserved");
}

TEST(BlocksetTest, RefusesWhatNoWorkerIs) {
  expect_refused([](Blockset& set) { set.block_size = 0; },
                 "the block size is 0, it must be 1 .. 1024");
  expect_refused([](Blockset& set) { set.block_size = 1025; }, "the block size is 1025");
  expect_refused([](Blockset& set) { set.started_at_ns = 0; }, "no time");
  expect_refused([](Blockset& set) { set.model = std::string(257, 'x'); },
                 "the model has 257 bytes, it must have at most 256");
  expect_refused([](Blockset& set) { set.address = "a\nb"; },
                 "the address has a control character");
  expect_refused([](Blockset& set) { set.nixl_metadata.resize((256u << 10) + 1); },
                 "the length of the NIXL metadata is 262145");
  expect_refused([](Blockset& set) { std::swap(set.tiers[0], set.tiers[1]); }, "the fastest first");
  expect_refused([](Blockset& set) { set.tiers[0].tier = Tier::Host; }, "must differ");
}

TEST(BlocksetTest, RefusesMemoryThatCannotBe) {
  const auto refuse = [](const std::function<void(TierBlocks&)>& change, const std::string& why) {
    expect_refused([&](Blockset& set) { change(set.tiers[1]); }, why);
  };
  constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();
  using Kind = StorageType::Kind;
  refuse([](TierBlocks& tier) { tier.tier = Tier::Disk; }, "tier 2 has no memory");
  refuse([](TierBlocks& tier) { tier.storage.kind = Kind::Nixl; }, "memory of kind 4");
  refuse([](TierBlocks& tier) { tier.storage.id = 1; }, "ordinal");
  refuse([](TierBlocks& tier) { tier.num_blocks = 0; }, "blocks of a tier must be 1");
  refuse([](TierBlocks& tier) { tier.num_blocks = kNoBlock; }, "blocks of a tier must be 1");
  refuse([](TierBlocks& tier) { tier.memories.clear(); }, "memories of a tier must be 1 .. 256");
  refuse([](TierBlocks& tier) { tier.memories.resize(257, {1, 1}); }, "there are 257");
  refuse([](TierBlocks& tier) { tier.memories[0].bytes = 0; }, "must have bytes");
  refuse([](TierBlocks& tier) { tier.memories[0].address = kMax; }, "end below 2^64");
  refuse([](TierBlocks& tier) { tier.memories[0].address = 0; }, "begins at 0");
  refuse([](TierBlocks& tier) { tier.memories.push_back({0x7000'0000'0010, 8}); }, "overlap");
  refuse([](TierBlocks& tier) { tier.fragments_of_region = {}; }, "regions of a tier must be 1");
  refuse([](TierBlocks& tier) { tier.fragments_of_region = {2, 0}; }, "at least 1 fragment");
  refuse([](TierBlocks& tier) { tier.fragments_of_region = {1, 2}; }, "3 fragments, 2 are there");
  refuse([](TierBlocks& tier) { tier.fragments[0].memory = 1; }, "memory 1 of 1");
  refuse([](TierBlocks& tier) { tier.fragments[0].bytes = 0; }, "must have bytes");
  refuse([](TierBlocks& tier) { tier.fragments[0].bytes = 257; }, "257 of 256");
  refuse([](TierBlocks& tier) { tier.fragments[0].block_stride = kMax; }, "overflows");
  refuse([](TierBlocks& tier) { tier.fragments[0].offset = kMax - 10; }, "overflows");
  refuse([](TierBlocks& tier) { tier.fragments[1].offset = (1 << 20) - 100; }, "too small");
  refuse([](TierBlocks& tier) { tier.fragments[1].offset = 163; }, "overlap");
  refuse([](TierBlocks& tier) { tier.fragments[1].offset = 300; }, "overlap");
}

}  // namespace
}  // namespace kvbm::remote
