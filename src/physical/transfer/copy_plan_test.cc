#include "physical/transfer/copy_plan.h"

#include <gtest/gtest.h>

#include <string>

#include "platform/os/fake_file.h"

namespace kvbm {
namespace {

constexpr LayoutConfig kConfig = {.num_blocks = 4,
                                  .num_layers = 3,
                                  .outer_dim = 2,
                                  .page_size = 4,
                                  .inner_dim = 8,
                                  .dtype = DType::INT8,
                                  .alignment = 64};
constexpr std::size_t kRegionBytes = 32;

std::shared_ptr<const Layout> make(LayoutType type, const LayoutConfig& config = kConfig) {
  Layout::Memories memories;
  for (std::size_t i = 0; i < config.storage_count(type); ++i) {
    memories.push_back(
        SystemAllocator().allocate(config.storage_bytes(type).value()).value().memory());
  }
  return Layout::create(type, config, std::move(memories)).value();
}

std::shared_ptr<const Layout> make_file(const LayoutConfig& config = kConfig) {
  const auto type = LayoutType::FullyContiguous;
  auto file = std::make_shared<FakeFile>(config.storage_bytes(type).value());
  return Layout::create(type, config, {std::make_shared<detail::Memory>(file)}).value();
}

// Heads apart: each region in four runs of 8 bytes.
std::shared_ptr<const Layout> make_heads_apart(std::uint64_t address) {
  return Layout::from_tensors({{{.axes = "LOHBC",
                                 .shape = {3, 2, 4, 4, 8},
                                 .dtype = DType::INT8,
                                 .address = address}}})
      .value();
}

template <class T>
void expect_error(const Result<T>& result, ErrorCode code, std::uint64_t requested,
                  std::uint64_t available) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code) << result.error().to_string();
  EXPECT_EQ(result.error().requested, requested);
  EXPECT_EQ(result.error().available, available);
}

using Type = LayoutType;

TEST(CopyPlanTest, PiecesAreAsLongAsBothSidesAllow) {
  const auto pieces = [](Type from, Type to) {
    return CopyPlan::create(make(from), make(to)).value()->pieces().size();
  };
  EXPECT_EQ(pieces(Type::FullyContiguous, Type::FullyContiguous), 1u);
  EXPECT_EQ(pieces(Type::FullyContiguous, Type::LayerSeparateBlockContiguous), 3u);
  EXPECT_EQ(pieces(Type::LayerSeparateOuterContiguous, Type::LayerSeparateBlockContiguous), 6u);
  EXPECT_EQ(pieces(Type::LayerSeparateOuterContiguous, Type::FullyContiguous), 6u);
}

TEST(CopyPlanTest, PiecesAreCutAtTheEndsOfRegionsForTheirSums) {
  const auto plan =
      CopyPlan::create(make(Type::FullyContiguous), make(Type::FullyContiguous)).value();
  EXPECT_EQ(plan->bytes(), 6 * kRegionBytes);
  EXPECT_EQ(plan->pieces()[0].bytes, 6 * kRegionBytes);
  ASSERT_EQ(plan->num_regions(), 6u);
  for (std::size_t region = 0; region < 6; ++region) {
    ASSERT_EQ(plan->region_pieces(region).size(), 1u);
    const CopyPiece& piece = plan->region_pieces(region)[0];
    EXPECT_EQ(piece.bytes, kRegionBytes);
    EXPECT_EQ(piece.source, plan->pieces()[0].source + region * kRegionBytes);
  }
}

TEST(CopyPlanTest, ARegionInSeveralRunsHasSeveralPieces) {
  const auto apart = make_heads_apart(1 << 20);
  const LayoutConfig shape{.num_blocks = 2,
                           .num_layers = 3,
                           .outer_dim = 2,
                           .page_size = 1,
                           .inner_dim = 32,
                           .dtype = DType::INT8};
  auto memory = SystemAllocator().allocate(4096).value().memory();
  const auto host = Layout::contiguous(apart->content(), shape, memory).value();
  const auto plan = CopyPlan::create(apart, host).value();
  EXPECT_EQ(plan->pieces().size(), 24u);
  ASSERT_EQ(plan->region_pieces(1).size(), 4u);
  for (std::size_t head = 0; head < 4; ++head) {
    const CopyPiece& piece = plan->region_pieces(1)[head];
    EXPECT_EQ(piece.bytes, 8u);
    EXPECT_EQ(piece.source_of(3), (1u << 20) + 4 * 32 + head * 32 + 3 * 8);
    EXPECT_EQ(piece.target_of(1), memory->address() + host->block_stride() + 32 + head * 8);
  }
}

TEST(CopyPlanTest, AddressesAreThoseOfTheLayouts) {
  for (Type from : {Type::FullyContiguous, Type::LayerSeparateOuterContiguous}) {
    const auto source = make(from);
    const auto target = make(Type::LayerSeparateBlockContiguous);
    const auto plan = CopyPlan::create(source, target).value();
    for (std::size_t layer = 0; layer < 3; ++layer) {
      for (std::size_t outer = 0; outer < 2; ++outer) {
        const CopyPiece& piece = plan->region_pieces(layer * 2 + outer)[0];
        const Region in_source = source->region(3, layer, outer).value();
        const Region in_target = target->region(1, layer, outer).value();
        EXPECT_EQ(piece.source_of(3), reinterpret_cast<std::uintptr_t>(in_source.data()));
        EXPECT_EQ(piece.target_of(1), reinterpret_cast<std::uintptr_t>(in_target.data()));
      }
    }
  }
}

TEST(CopyPlanTest, SomeLayersOnly) {
  const auto host = make(Type::FullyContiguous);
  const auto device = make(Type::LayerSeparateBlockContiguous);
  const auto plan = CopyPlan::create(host, device, {.first = 1, .count = 2}).value();
  EXPECT_FALSE(plan->is_whole());
  EXPECT_EQ(plan->bytes(), 4 * kRegionBytes);
  EXPECT_EQ(plan->num_regions(), 4u);
  EXPECT_EQ(plan->pieces()[0].source_of(0),
            reinterpret_cast<std::uintptr_t>(host->region(0, 1, 0).value().data()));
  EXPECT_EQ(CopyPlan::create(host, device, {.first = 2}).value()->bytes(), 2 * kRegionBytes);
  EXPECT_TRUE(CopyPlan::create(host, device, {.first = 0, .count = 3}).value()->is_whole());

  expect_error(CopyPlan::create(host, device, {.first = 3}), ErrorCode::InvalidLayerIndex, 3, 3);
  expect_error(CopyPlan::create(host, device, {.first = 1, .count = 3}),
               ErrorCode::InvalidLayerIndex, 3, 3);
  expect_error(CopyPlan::create(host, device, {.first = 1, .count = 0}),
               ErrorCode::InvalidLayerIndex, 1, 3);
  expect_error(plan->check({0, 0, 77}), ErrorCode::InvalidConfig, 0, 0);
  EXPECT_TRUE(plan->check({0, 0, {}}).has_value());
}

TEST(CopyPlanTest, OtherDataPerBlockIsRefusedWithBothNamed) {
  LayoutConfig other = kConfig;
  other.dtype = DType::FP16;
  const auto plan =
      CopyPlan::create(make(Type::FullyContiguous), make(Type::FullyContiguous, other));
  expect_error(plan, ErrorCode::InvalidConfig, 6 * kRegionBytes, 12 * kRegionBytes);
  EXPECT_NE(plan.error().message.find("3x(2xN4C8:int8) and kvbm-block-1 3x(2xN4C8:fp16)"),
            std::string::npos)
      << plan.error().message;
}

TEST(CopyPlanTest, FilesTakeWholeContiguousBlocksFromMemory) {
  const auto file = make_file();
  const auto memory = make(Type::FullyContiguous);
  const auto plan = CopyPlan::create(memory, file).value();
  EXPECT_EQ(plan->source_side(), CopyPlan::Side::Memory);
  EXPECT_EQ(plan->target_side(), CopyPlan::Side::File);
  EXPECT_EQ(plan->pieces()[0].target_of(2), 2 * file->block_stride());
  expect_error(CopyPlan::create(file, file), ErrorCode::NotAccessible, 0, 0);
  expect_error(CopyPlan::create(file, make(Type::LayerSeparateBlockContiguous)),
               ErrorCode::NotAccessible, 0, 0);
  expect_error(CopyPlan::create(file, memory, {.first = 0, .count = 2}), ErrorCode::NotAccessible,
               2, 3);
}

TEST(CopyPlanTest, IdsAreChecked) {
  LayoutConfig more = kConfig;
  more.num_blocks = 6;
  const auto plan =
      CopyPlan::create(make(Type::FullyContiguous), make(Type::FullyContiguous, more)).value();
  EXPECT_TRUE(plan->check({3, 5, 77}).has_value());
  expect_error(plan->check({4, 5, {}}), ErrorCode::InvalidBlockIndex, 4, 4);
  expect_error(plan->check({3, 6, {}}), ErrorCode::InvalidBlockIndex, 6, 6);
}

TEST(CopyPlanTest, ABlockIsNotCopiedOntoItself) {
  const auto layout = make(Type::LayerSeparateOuterContiguous);
  const auto plan = CopyPlan::create(layout, layout).value();
  EXPECT_TRUE(plan->check({0, 1, {}}).has_value());
  EXPECT_EQ(plan->check({2, 2, {}}).error().code, ErrorCode::InvalidConfig);
}

TEST(CopyPlanTest, TwoLayoutsOfOneMemoryMayOverlapInSomeBlocks) {
  std::vector<std::byte> bytes(4096);
  const auto base = reinterpret_cast<std::uintptr_t>(bytes.data());
  const auto layout = [](std::uint64_t address) {
    return Layout::from_tensors(
               {{{.axes = "BC", .shape = {4, 100}, .dtype = DType::U8, .address = address}}})
        .value();
  };
  const auto plan = CopyPlan::create(layout(base), layout(base + 150)).value();
  for (BlockId source = 0; source < 4; ++source) {
    for (BlockId target = 0; target < 4; ++target) {
      const int from = static_cast<int>(source) * 100;
      const int to = 150 + static_cast<int>(target) * 100;
      const bool overlap = from < to + 100 && to < from + 100;
      EXPECT_EQ(plan->check({source, target, {}}).has_value(), !overlap) << source << target;
    }
  }
}

}  // namespace
}  // namespace kvbm
