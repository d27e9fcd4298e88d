#include "physical/transfer/copy_block.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "base/xxh3.h"
#include "platform/os/fake_file.h"

namespace kvbm {
namespace {

using Bytes = std::vector<std::byte>;

constexpr LayoutType kTypes[] = {LayoutType::FullyContiguous,
                                 LayoutType::LayerSeparateOuterContiguous,
                                 LayoutType::LayerSeparateBlockContiguous};
constexpr std::size_t kBlocks = 3;
constexpr BlockId kFrom = 2;  // different ids, with neighbours to damage
constexpr BlockId kTo = 1;

// GTEST_RANDOM_SEED repeats a run.
std::uint64_t random_seed() {
  const int given = GTEST_FLAG_GET(random_seed);
  return given != 0 ? static_cast<std::uint64_t>(given) : std::random_device()() % 99999 + 1;
}

// Blocks of 3 layers and 2 outer parts with regions of this size.
LayoutConfig config_of(std::size_t region_bytes, std::size_t alignment = 1) {
  return {.num_blocks = kBlocks,
          .num_layers = 3,
          .outer_dim = 2,
          .page_size = 1,
          .inner_dim = region_bytes,
          .dtype = DType::INT8,
          .alignment = alignment};
}

// A layout and its memories, of which the test can see every byte.
struct Place {
  std::shared_ptr<const Layout> layout;
  Layout::Memories memories;
  std::vector<std::shared_ptr<FakeFile>> files;  // empty: in memory

  std::span<std::byte> bytes_of(std::size_t index) const {
    if (!files.empty()) return files[index]->contents();
    return {memories[index]->data(), memories[index]->bytes()};
  }
  std::span<std::byte> bytes_of(const Region& region) const {
    std::size_t index = 0;
    while (memories[index].get() != region.memory) ++index;
    return bytes_of(index).subspan(region.offset, region.bytes);
  }
  std::vector<Bytes> all() const {
    std::vector<Bytes> all;
    for (std::size_t i = 0; i < memories.size(); ++i) {
      all.emplace_back(bytes_of(i).begin(), bytes_of(i).end());
    }
    return all;
  }
  // Calls use(bytes) for each region of a block, layer by layer and outer part by outer part.
  template <class Use>
  void for_each_region(BlockId block, Use use) const {
    for (std::size_t layer = 0; layer < layout->config().num_layers; ++layer) {
      for (std::size_t outer = 0; outer < layout->config().outer_dim; ++outer) {
        use(bytes_of(layout->region(block, layer, outer).value()));
      }
    }
  }
  // A block's data, in one piece.
  Bytes block(BlockId id) const {
    Bytes block;
    for_each_region(id, [&](auto bytes) { block.insert(block.end(), bytes.begin(), bytes.end()); });
    return block;
  }
  void set_block(BlockId id, const Bytes& block) {
    auto from = block.begin();
    for_each_region(id, [&](auto bytes) {
      std::copy_n(from, bytes.size(), bytes.begin());
      from += static_cast<std::ptrdiff_t>(bytes.size());
    });
  }
  void fill(std::mt19937_64& random) {
    for (std::size_t i = 0; i < memories.size(); ++i) {
      for (std::byte& byte : bytes_of(i)) byte = std::byte(random());
    }
  }
};

Place in_memory(LayoutType type, const LayoutConfig& config) {
  Place place;
  for (std::size_t i = 0; i < config.storage_count(type); ++i) {
    place.memories.push_back(
        SystemAllocator().allocate(config.storage_bytes(type).value()).value().memory());
  }
  place.layout = Layout::create(type, config, place.memories).value();
  return place;
}

Place in_file(LayoutType type, const LayoutConfig& config, std::size_t io_alignment = 1) {
  Place place;
  for (std::size_t i = 0; i < config.storage_count(type); ++i) {
    const std::size_t bytes = config.storage_bytes(type).value();
    place.files.push_back(std::make_shared<FakeFile>(bytes, io_alignment));
    place.memories.push_back(std::make_shared<detail::Memory>(place.files.back()));
  }
  place.layout = Layout::create(type, config, place.memories).value();
  return place;
}

Place in_memory(const LayoutConfig& config) {
  return in_memory(LayoutType::FullyContiguous, config);
}
Place in_file(const LayoutConfig& config, std::size_t io_alignment = 1) {
  return in_file(LayoutType::FullyContiguous, config, io_alignment);
}

// The definition, computed from a copy of the bytes.
std::uint64_t expected_sum(const Place& place, BlockId block) {
  std::vector<XXH64_hash_t> sums;
  place.for_each_region(block, [&](auto bytes) {
    const Bytes copy(bytes.begin(), bytes.end());
    sums.push_back(XXH3_64bits(copy.data(), copy.size()));
  });
  return XXH3_64bits(sums.data(), sums.size() * 8);
}

Result<std::uint64_t> copy_between(std::shared_ptr<const Layout> source,
                                   std::shared_ptr<const Layout> target, const BlockCopy& copy) {
  KVBM_TRY(const auto plan, CopyPlan::create(std::move(source), std::move(target)));
  return copy_block(*plan, copy);
}

Result<std::uint64_t> copy(const Place& source, const Place& target,
                           std::optional<std::uint64_t> payload_sum = {}) {
  return copy_between(source.layout, target.layout, {kFrom, kTo, payload_sum});
}

void expect_error(const Result<std::uint64_t>& result, ErrorCode code, std::uint64_t requested = 0,
                  std::uint64_t available = 0) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code);
  EXPECT_EQ(result.error().requested, requested);
  EXPECT_EQ(result.error().available, available);
}

// Copies, and compares every byte of both places with what must be there afterwards.
void expect_copies_the_block_alone(Place& source, Place& target) {
  const std::uint64_t sum = expected_sum(source, kFrom);
  const auto source_before = source.all();
  const auto target_before = target.all();
  target.set_block(kTo, source.block(kFrom));
  const auto target_expected = target.all();
  for (std::size_t i = 0; i < target_before.size(); ++i) {
    std::copy(target_before[i].begin(), target_before[i].end(), target.bytes_of(i).begin());
  }

  const auto result = copy(source, target, sum);

  ASSERT_TRUE(result.has_value()) << result.error().to_string();
  EXPECT_EQ(*result, sum);
  EXPECT_TRUE(source.all() == source_before) << "the source is only read";
  EXPECT_TRUE(target.all() == target_expected) << "the target block has the bytes, nothing else";
}

constexpr std::size_t kRegionSizes[] = {1, 7, 64, 8191, 8192, 8193, 16384, 20001, 32768};

TEST(CopyBlockTest, MemoryToMemoryBetweenAllLayouts) {
  const std::uint64_t seed = random_seed();
  std::mt19937_64 random(seed);
  for (std::size_t bytes : kRegionSizes) {
    for (LayoutType from : kTypes) {
      for (LayoutType to : kTypes) {
        SCOPED_TRACE("GTEST_RANDOM_SEED=" + std::to_string(seed) + ", " + std::to_string(bytes) +
                     " bytes, from layout " + std::to_string(static_cast<int>(from)) + " to " +
                     std::to_string(static_cast<int>(to)));
        Place source = in_memory(from, config_of(bytes, 64));
        Place target = in_memory(to, config_of(bytes, 1));
        source.fill(random);
        target.fill(random);
        expect_copies_the_block_alone(source, target);
      }
    }
  }
}

TEST(CopyBlockTest, MemoryToFileAndBack) {
  const std::uint64_t seed = random_seed();
  std::mt19937_64 random(seed);
  for (std::size_t bytes : kRegionSizes) {
    for (std::size_t alignment : {1u, 512u}) {
      SCOPED_TRACE("GTEST_RANDOM_SEED=" + std::to_string(seed) + ", " + std::to_string(bytes) +
                   " bytes, alignment " + std::to_string(alignment));
      Place memory = in_memory(config_of(bytes, alignment));
      Place file = in_file(config_of(bytes, 512));
      memory.fill(random);
      file.fill(random);
      expect_copies_the_block_alone(memory, file);
      file.fill(random);
      expect_copies_the_block_alone(file, memory);
      EXPECT_EQ(file.files[0]->writes(), 1u);
      EXPECT_EQ(file.files[0]->reads(), 1u);
    }
  }
}

// With O_DIRECT whole I/O units move: the block and its own padding, never a neighbour.
TEST(CopyBlockTest, DirectFilesMoveWholeUnits) {
  const std::uint64_t seed = random_seed();
  std::mt19937_64 random(seed);
  for (std::size_t bytes : kRegionSizes) {
    SCOPED_TRACE("GTEST_RANDOM_SEED=" + std::to_string(seed) + ", " + std::to_string(bytes));
    Place memory = in_memory(config_of(bytes, 4096));
    Place file = in_file(config_of(bytes, 4096), 4096);
    Place back = in_memory(config_of(bytes, 4096));
    for (Place* place : {&memory, &file, &back}) place->fill(random);
    const Bytes block = memory.block(kFrom);
    const std::uint64_t sum = expected_sum(memory, kFrom);
    const Place neighbours[] = {file, back};
    const auto others = [&] {
      std::vector<Bytes> others;
      for (const Place& place : neighbours) {
        for (BlockId id = 0; id < kBlocks; ++id) {
          if (id != kTo) others.push_back(place.block(id));
        }
      }
      return others;
    };
    const auto others_before = others();

    EXPECT_EQ(copy(memory, file).value(), sum);
    EXPECT_EQ(copy_between(file.layout, back.layout, {kTo, kTo, sum}).value(), sum);

    EXPECT_TRUE(file.block(kTo) == block);
    EXPECT_TRUE(back.block(kTo) == block);
    EXPECT_TRUE(others() == others_before) << "the blocks beside the target";
  }
}

// The file's padding counts as much as the memory's.
TEST(CopyBlockTest, AUnitThatReachesIntoTheFilesNextBlockIsRefused) {
  // 4200 bytes a block, with strides of 8192 in memory and 6144 in the file, whose block 2 begins
  // at a unit's start.
  Place memory = in_memory(config_of(700, 4096));
  LayoutConfig config = config_of(700, 2048);
  config.num_blocks = 4;
  Place file = in_file(config, 4096);
  const Bytes neighbour(file.block(3).size(), std::byte{7});
  file.set_block(3, neighbour);
  const auto result = copy_between(memory.layout, file.layout, {0, 2, {}});
  expect_error(result, ErrorCode::OutOfBounds, 8192, 6144);
  EXPECT_TRUE(file.block(3) == neighbour) << "the next block was overwritten";
}

TEST(CopyBlockTest, TheSumStaysTheSameThroughAllTiers) {
  const std::uint64_t seed = random_seed();
  SCOPED_TRACE("GTEST_RANDOM_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (std::size_t bytes : {7u, 8193u}) {
    DiskAllocator allocator(testing::TempDir());
    const LayoutConfig padded = config_of(bytes, 4096);
    const auto type = LayoutType::FullyContiguous;
    const auto disk =
        Layout::create(type, padded,
                       {allocator.allocate(padded.storage_bytes(type).value()).value().memory()})
            .value();
    Place device = in_memory(LayoutType::LayerSeparateOuterContiguous, config_of(bytes));
    Place host = in_memory(padded);
    Place host_again = in_memory(padded);
    Place device_again = in_memory(LayoutType::LayerSeparateBlockContiguous, config_of(bytes));
    for (Place* place : {&device, &host, &host_again, &device_again}) place->fill(random);
    const Bytes block = device.block(0);
    const std::uint64_t sum = expected_sum(device, 0);

    EXPECT_EQ(sum_block(*device.layout, 0).value(), sum);
    EXPECT_EQ(copy_between(device.layout, host.layout, {0, 1, {}}).value(), sum);
    EXPECT_EQ(sum_block(*host.layout, 1).value(), sum);
    EXPECT_EQ(copy_between(host.layout, disk, {1, 2, {}}).value(), sum);
    EXPECT_EQ(copy_between(disk, host_again.layout, {2, 0, {}}).value(), sum);
    EXPECT_EQ(copy_between(host_again.layout, device_again.layout, {0, 2, sum}).value(), sum);
    EXPECT_TRUE(device_again.block(2) == block);
  }
}

// The target block holds zeros, and every other byte what it held before.
void expect_zeroed(Place& target, const std::vector<Bytes>& before) {
  const auto now = target.all();
  for (std::byte byte : target.block(kTo)) ASSERT_EQ(byte, std::byte{0});
  for (std::size_t i = 0; i < before.size(); ++i) {
    std::copy(before[i].begin(), before[i].end(), target.bytes_of(i).begin());
  }
  target.set_block(kTo, Bytes(target.layout->config().block_bytes()));
  ASSERT_TRUE(now == target.all());
}

TEST(CopyBlockTest, AFlippedByteAnywhereIsFoundAndTheTargetZeroed) {
  std::mt19937_64 random(1);
  for (LayoutType type : kTypes) {
    Place source = in_memory(type, config_of(7));
    source.fill(random);
    const std::uint64_t sum = expected_sum(source, kFrom);
    Bytes block = source.block(kFrom);
    for (std::byte& byte : block) {
      byte ^= std::byte{1};
      source.set_block(kFrom, block);
      Place target = in_memory(LayoutType::FullyContiguous, config_of(7));
      target.fill(random);
      const auto before = target.all();
      expect_error(copy(source, target, sum), ErrorCode::ChecksumMismatch);
      expect_zeroed(target, before);
      byte ^= std::byte{1};
    }
    source.set_block(kFrom, block);
    EXPECT_EQ(copy(source, in_memory(config_of(7)), sum).value(), sum);
  }
}

TEST(CopyBlockTest, AFlippedByteInAnyStripOfALargeRegionIsFound) {
  std::mt19937_64 random(2);
  Place source = in_memory(LayoutType::LayerSeparateOuterContiguous, config_of(20001));
  source.fill(random);
  const std::uint64_t sum = expected_sum(source, kFrom);
  Bytes block = source.block(kFrom);
  for (std::size_t at : {0u, 8191u, 8192u, 16383u, 16384u, 20000u, 20001u, 120005u}) {
    block[at] ^= std::byte{128};
    source.set_block(kFrom, block);
    Place target = in_memory(LayoutType::LayerSeparateBlockContiguous, config_of(20001));
    target.fill(random);
    const auto before = target.all();
    expect_error(copy(source, target, sum), ErrorCode::ChecksumMismatch);
    expect_zeroed(target, before);
    block[at] ^= std::byte{128};
  }
}

TEST(CopyBlockTest, AByteFlippedOnTheDiskIsFoundAndTheTargetZeroed) {
  std::mt19937_64 random(3);
  Place file = in_file(config_of(7));
  file.fill(random);
  const std::uint64_t sum = expected_sum(file, kFrom);
  for (std::size_t at = 0; at < file.layout->config().block_bytes(); ++at) {
    file.files[0]->set_hook([&](const FakeFile::Call&) { return FakeFile::flips(at); });
    Place target = in_memory(config_of(7));
    target.fill(random);
    const auto before = target.all();
    expect_error(copy(file, target, sum), ErrorCode::ChecksumMismatch);
    expect_zeroed(target, before);
  }
  file.files[0]->set_hook({});
  EXPECT_EQ(copy(file, in_memory(config_of(7)), sum).value(), sum);
}

TEST(CopyBlockTest, WithoutASumNothingIsVerified) {
  std::mt19937_64 random(4);
  Place source = in_memory(config_of(7));
  Place file = in_file(config_of(7));
  Place target = in_memory(config_of(7));
  source.fill(random);
  file.files[0]->set_hook([](const FakeFile::Call& call) {
    return call.op == FakeFile::Op::Write ? FakeFile::flips(0) : FakeFile::Fault{};
  });
  const std::uint64_t sum = copy(source, file).value();
  EXPECT_EQ(sum, expected_sum(source, kFrom)) << "of what was to be written";

  const auto result = copy_between(file.layout, target.layout, {kTo, kTo, {}});
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(*result, expected_sum(target, kTo)) << "of what came";
  EXPECT_NE(*result, sum);
  EXPECT_TRUE(target.block(kTo) == file.block(kTo));
}

TEST(CopyBlockTest, AWriteCarriesTheGivenSumUnchanged) {
  Place source = in_memory(config_of(7));
  EXPECT_EQ(copy(source, in_file(config_of(7)), 12345).value(), 12345u)
      << "the read verifies it; a damaged source is not blessed with a new sum";
}

TEST(CopyBlockTest, DifferentDataPerBlockIsRefused) {
  Place source = in_memory(config_of(8));
  LayoutConfig config = config_of(8);
  config.num_layers = 2;
  Place target = in_memory(config);
  expect_error(copy(source, target), ErrorCode::InvalidConfig, 48, 32);
  config = config_of(4);  // the same number of bytes in another shape
  config.page_size = 2;
  expect_error(copy(source, in_memory(config)), ErrorCode::InvalidConfig, 48, 48);
}

// The addresses are no memory of this process: reading one would end the test.
TEST(CopyBlockTest, DeviceMemoryIsNotTouchedByTheCpu) {
  const auto device = Layout::from_tensors({{{.axes = "LOBC",
                                              .shape = {3, 2, kBlocks, 8},
                                              .dtype = DType::INT8,
                                              .address = 4096,
                                              .storage = {StorageType::Kind::Device, 0}}}})
                          .value();
  const Place memory = in_memory(config_of(8));
  expect_error(copy_between(memory.layout, device, {0, 0, {}}), ErrorCode::NotAccessible);
  expect_error(copy_between(device, memory.layout, {0, 0, {}}), ErrorCode::NotAccessible);
  expect_error(sum_block(*device, 0), ErrorCode::NotAccessible);
}

TEST(CopyBlockTest, BadIdsAreRefused) {
  const Place memory = in_memory(config_of(8));
  const Place file = in_file(config_of(8));
  for (const Place* target : {&memory, &file}) {
    expect_error(copy_between(memory.layout, target->layout, {kBlocks, 0, {}}),
                 ErrorCode::InvalidBlockIndex, kBlocks, kBlocks);
    expect_error(copy_between(memory.layout, target->layout, {0, kBlocks, {}}),
                 ErrorCode::InvalidBlockIndex, kBlocks, kBlocks);
  }
  expect_error(copy_between(file.layout, memory.layout, {0, ~BlockId{0}, {}}),
               ErrorCode::InvalidBlockIndex, ~BlockId{0}, kBlocks);
  expect_error(sum_block(*memory.layout, kBlocks), ErrorCode::InvalidBlockIndex, kBlocks, kBlocks);
  EXPECT_EQ(file.files[0]->reads() + file.files[0]->writes(), 0u);
}

TEST(CopyBlockTest, FilesAreReachedOnlyThroughContiguousMemory) {
  const LayoutConfig config = config_of(8);
  const Place file = in_file(config);
  expect_error(copy(file, in_file(config)), ErrorCode::NotAccessible);
  expect_error(sum_block(*file.layout, 0), ErrorCode::NotAccessible);
  for (LayoutType type :
       {LayoutType::LayerSeparateOuterContiguous, LayoutType::LayerSeparateBlockContiguous}) {
    expect_error(copy(in_memory(type, config), file), ErrorCode::NotAccessible);
    expect_error(copy(file, in_memory(type, config)), ErrorCode::NotAccessible);
    const Place files = in_file(type, config);
    expect_error(copy(in_memory(config), files), ErrorCode::NotAccessible);
    expect_error(copy(files, in_memory(config)), ErrorCode::NotAccessible);
  }
  EXPECT_EQ(file.files[0]->reads() + file.files[0]->writes(), 0u);
}

// Reading would overwrite the next block in memory.
TEST(CopyBlockTest, PaddingSmallerThanTheFilesUnitIsRefused) {
  const Place memory = in_memory(config_of(1000, 64));  // blocks of 6000 bytes, 6016 apart
  const Place file = in_file(config_of(1000, 4096), 4096);
  expect_error(copy_between(memory.layout, file.layout, {0, 0, {}}), ErrorCode::OutOfBounds, 8192,
               6016);
  expect_error(copy_between(file.layout, memory.layout, {0, 0, {}}), ErrorCode::OutOfBounds, 8192,
               6016);
  EXPECT_EQ(file.files[0]->reads() + file.files[0]->writes(), 0u);
}

// A storage may end with the last block's data; the unit around it must not be touched then.
TEST(CopyBlockTest, AUnitBeyondTheEndOfTheMemoryIsRefused) {
  const LayoutConfig config = config_of(8, 4096);
  const std::size_t data = config.storage_bytes(LayoutType::FullyContiguous).value() - 4095;
  Place memory;
  memory.memories = {SystemAllocator().allocate(data).value().memory()};
  memory.layout = Layout::create(LayoutType::FullyContiguous, config, memory.memories).value();
  const Place file = in_file(config, 4096);
  expect_error(copy(memory, file), ErrorCode::OutOfBounds, 4096, 4096);
  EXPECT_TRUE(copy_between(memory.layout, file.layout, {kTo, kTo, {}}).has_value());
}

TEST(CopyBlockTest, AFaultingFileGivesOperationFailed) {
  const LayoutConfig config = config_of(8);
  const Place memory = in_memory(config);
  const Place file = in_file(config);
  for (std::int32_t error : {EIO, ENOSPC}) {
    file.files[0]->set_hook([&](const FakeFile::Call&) { return FakeFile::fails(error); });
    for (const auto& result : {copy(memory, file), copy(file, memory), copy(file, memory, 5)}) {
      expect_error(result, ErrorCode::OperationFailed, config.block_bytes(), 0);
      EXPECT_EQ(result.error().native, error);
    }
  }
  file.files[0]->set_hook([](const FakeFile::Call&) { return FakeFile::stops_after(13); });
  for (const auto& result : {copy(memory, file), copy(file, memory), copy(memory, file, 5)}) {
    expect_error(result, ErrorCode::OperationFailed, config.block_bytes(), 13);
    EXPECT_EQ(result.error().native, 0);
  }
}

}  // namespace
}  // namespace kvbm
