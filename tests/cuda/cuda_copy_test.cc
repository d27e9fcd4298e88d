// Every way of copying against plain copies: all bytes of both sides, those between blocks too.
#include "cuda/cuda_fixture.h"
#include "physical/transfer/cuda_measure.h"

namespace kvbm {
namespace {

using Kind = Mirrored::Kind;

struct Case {
  const char* name;
  LayoutType device_type;
  LayoutType host_type;
  LayoutConfig config;
};

constexpr auto kContiguous = LayoutType::FullyContiguous;
constexpr auto kOuter = LayoutType::LayerSeparateOuterContiguous;
constexpr auto kBlock = LayoutType::LayerSeparateBlockContiguous;

constexpr LayoutConfig config(std::size_t layers, std::size_t outer, std::size_t page,
                              std::size_t inner, std::size_t alignment = 1) {
  return {.num_blocks = 7,
          .num_layers = layers,
          .outer_dim = outer,
          .page_size = page,
          .inner_dim = inner,
          .dtype = DType::U8,
          .alignment = alignment};
}

const Case kCases[] = {
    {"whole 4 KiB blocks", kContiguous, kContiguous, config(2, 2, 16, 64, 4096)},
    {"4 KiB fragments", kOuter, kContiguous, config(4, 2, 16, 256, 4096)},
    {"fragments larger than a line of the kernel's table", kBlock, kContiguous,
     config(2, 2, 16, 5000)},
    {"1 byte", kOuter, kContiguous, config(1, 1, 1, 1)},
    {"21 bytes, alike to nothing", kOuter, kContiguous, config(3, 2, 3, 7)},
    {"52 bytes, alike to 4", kOuter, kContiguous, config(5, 1, 4, 13)},
    {"both sides by layers", kBlock, kOuter, config(3, 2, 8, 40, 64)},
    {"a block larger than a group", kOuter, kContiguous, config(2, 2, 64, 1200)},
};

class CudaCopyTest : public CudaTest {
 protected:
  void copies_as_plain_copies_do(const Case& c, Kind host_kind, CudaDirection direction,
                                 const CudaCopyTable& table) {
    SCOPED_TRACE(std::string(c.name) + ", " + table.description());
    const auto on_device = Mirrored::make(device(), Kind::Device, c.device_type, c.config, ++seed_);
    const auto on_host = Mirrored::make(device(), host_kind, c.host_type, c.config, ++seed_);
    const bool to_device = direction == CudaDirection::ToDevice;
    const Mirrored& source = to_device ? on_host : on_device;
    const Mirrored& target = to_device ? on_device : on_host;
    // Blocks 0 and 5 of the target stay as they are.
    const std::vector<BlockCopy> blocks = {
        {4, 1, source.sum(4)}, {0, 6, {}}, {1, 2, {}}, {2, 3, source.sum(2)}, {6, 4, {}}};
    const auto executor =
        make_executor(device(), {.threads = 1, .table = table, .group_bytes = 50'000});
    const TransferResult result =
        run(*executor, {.plan = plan_of(source, target), .blocks = blocks});
    ASSERT_EQ(codes(result), "ok ok ok ok ok") << result.blocks[0].error().to_string();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      EXPECT_EQ(result.blocks[i]->target(), blocks[i].target);
      EXPECT_EQ(result.blocks[i]->target_layout(), target.layout.get());
      EXPECT_EQ(result.blocks[i]->payload_sum(), source.sum(blocks[i].source));
    }
    copy_oracle(source, target, blocks);
    EXPECT_TRUE(on_device.bytes() == on_device.oracle_bytes());
    EXPECT_TRUE(on_host.bytes() == on_host.oracle_bytes());
  }

  std::uint64_t seed_ = test_seed();
};

TEST_F(CudaCopyTest, EachWayToTheDeviceMovesExactlyTheBlocks) {
  for (const Case& c : kCases) {
    for (CudaWay way : {CudaWay::Engine, CudaWay::Staged, CudaWay::Kernel}) {
      for (Kind kind : {Kind::Registered, Kind::Pageable}) {
        copies_as_plain_copies_do(c, kind, CudaDirection::ToDevice, CudaCopyTable::always(way));
      }
    }
  }
}

TEST_F(CudaCopyTest, EachWayToTheHostMovesExactlyTheBlocks) {
  for (const Case& c : kCases) {
    for (CudaWay way : {CudaWay::Engine, CudaWay::Staged}) {
      for (Kind kind : {Kind::Registered, Kind::Pageable}) {
        copies_as_plain_copies_do(c, kind, CudaDirection::ToHost, CudaCopyTable::always(way));
      }
    }
  }
}

TEST_F(CudaCopyTest, TheMeasuredTableWorksToo) {
  const auto executor = make_executor(device(), {});
  EXPECT_GT(executor->table().get(CudaDirection::ToDevice, CudaWay::Engine, 0), 0);
  const bool has_kernel = !cuda::copy_kernel_image().empty();
  EXPECT_EQ(executor->table().get(CudaDirection::ToHost, CudaWay::Staged, 5) > 0, has_kernel);
  EXPECT_EQ(executor->table().get(CudaDirection::ToHost, CudaWay::Kernel, 5), 0);
  copies_as_plain_copies_do(kCases[1], Kind::Registered, CudaDirection::ToDevice,
                            executor->table());
}

// Its memory is registered in pieces too, wherever it happens to lie.
TEST_F(CudaCopyTest, AMeasurementMayCrossPiecesOfARegistration) {
  auto shared = CudaShared::create(device()).value();
  shared.patience = std::chrono::seconds(30);
  constexpr std::size_t kBytes = 2 * cuda::HostRegistration::kPieceBytes;
  const auto meter = CudaMeter::create(shared, kBytes).value();
  const cuda::Current current(*device());
  for (const auto direction : {CudaDirection::ToDevice, CudaDirection::ToHost}) {
    for (const auto way : {CudaWay::Engine, CudaWay::Staged}) {
      const auto elapsed = meter->copy(direction, way, kBytes);
      EXPECT_TRUE(elapsed.has_value()) << elapsed.error().to_string();
    }
  }
}

TEST_F(CudaCopyTest, SomeLayersMoveAloneAndAreSummed) {
  const Case& c = kCases[1];
  for (bool to_device : {true, false}) {
    const auto on_device = Mirrored::make(device(), Kind::Device, c.device_type, c.config, ++seed_);
    const auto on_host = Mirrored::make(device(), Kind::Registered, c.host_type, c.config, ++seed_);
    const Mirrored& source = to_device ? on_host : on_device;
    const Mirrored& target = to_device ? on_device : on_host;
    const LayerRange layers{.first = 1, .count = 2};
    const auto executor =
        make_executor(device(), {.table = CudaCopyTable::always(CudaWay::Staged)});
    const TransferResult result =
        run(*executor, {.plan = CopyPlan::create(source.layout, target.layout, layers).value(),
                        .blocks = {{3, 5, {}}}});
    ASSERT_EQ(codes(result), "ok");
    EXPECT_FALSE(result.blocks[0]->is_whole());
    const auto oracle = CopyPlan::create(source.oracle, target.oracle, layers).value();
    EXPECT_EQ(result.blocks[0]->payload_sum(), copy_block(*oracle, {3, 5, {}}).value());
    EXPECT_TRUE(on_device.bytes() == on_device.oracle_bytes());
    EXPECT_TRUE(on_host.bytes() == on_host.oracle_bytes());
  }
}

// Registered memory is registered in pieces, and no copy may cross from one to the next.
TEST_F(CudaCopyTest, BlocksAcrossPiecesOfARegistrationAreMoved) {
  constexpr std::size_t kPiece = cuda::HostRegistration::kPieceBytes;
  LayoutConfig shape = config(2, 1, 1000, 1000);
  shape.num_blocks = kPiece / shape.block_bytes() + 3;
  auto storage = PinnedAllocator().allocate(shape.storage_bytes(kContiguous).value()).value();
  storage.memory()->register_with(device()).value();
  const std::uint64_t border = (storage.addr() / kPiece + 1) * kPiece;
  const auto on_border = static_cast<BlockId>((border - 1 - storage.addr()) / shape.block_bytes());
  ASSERT_LT(on_border, shape.num_blocks);
  const auto host = Layout::create(kContiguous, shape, {storage.memory()}).value();
  const Region extent = host->extent(on_border);
  for (std::size_t i = 0; i < extent.bytes; ++i) extent.data()[i] = static_cast<std::byte>(i * 7);

  LayoutConfig small = shape;
  small.num_blocks = 1;
  const auto on_device = Mirrored::make(device(), Kind::Device, kOuter, small, 1);
  const auto back = Mirrored::make(device(), Kind::Pageable, kContiguous, small, 2);
  for (CudaWay way : {CudaWay::Engine, CudaWay::Staged, CudaWay::Kernel}) {
    const auto executor = make_executor(device(), {.table = CudaCopyTable::always(way)});
    const std::uint64_t sum = sum_block(*host, on_border).value();
    EXPECT_EQ(codes(run(*executor, {.plan = CopyPlan::create(host, on_device.layout).value(),
                                    .blocks = {{on_border, 0, sum}}})),
              "ok");
    EXPECT_EQ(codes(run(*executor, {.plan = CopyPlan::create(on_device.layout, host).value(),
                                    .blocks = {{0, on_border, sum}}})),
              "ok");
    EXPECT_EQ(codes(run(*executor, {.plan = plan_of(on_device, back), .blocks = {{0, 0, sum}}})),
              "ok");
  }
}

}  // namespace
}  // namespace kvbm
