// A driver that fails at any call, a device that breaks, is too small, or never answers.
#include "cuda/cuda_fixture.h"
#include "platform/os/fake_file.h"

namespace kvbm {
namespace {

using Kind = Mirrored::Kind;

constexpr LayoutConfig kConfig = {.num_blocks = 6,
                                  .num_layers = 2,
                                  .outer_dim = 1,
                                  .page_size = 4,
                                  .inner_dim = 33,
                                  .dtype = DType::U8};
constexpr int kIllegalAddress = 700;
constexpr int kUnknown = 999;

class CudaFaultTest : public FakeCudaTest {
 protected:
  void SetUp() override {
    FakeCudaTest::SetUp();
    if (IsSkipped()) return;
    on_device_ = Mirrored::make(device(), Kind::Device, LayoutType::LayerSeparateOuterContiguous,
                                kConfig, 1);
    on_host_ = Mirrored::make(device(), Kind::Registered, LayoutType::FullyContiguous, kConfig, 2);
    fake().reset(test_seed());
  }
  void TearDown() override {
    on_device_ = {};
    on_host_ = {};
    FakeCudaTest::TearDown();
  }

  // A request in each direction: what has ended well must be right, the rest failed with Cuda, and
  // blocks that are no target are as before. Returns how many blocks failed.
  std::size_t copy_both_ways(CudaExecutor& executor) {
    std::size_t failed = 0;
    for (const bool to_device : {true, false}) {
      const Mirrored& source = to_device ? on_host_ : on_device_;
      const Mirrored& target = to_device ? on_device_ : on_host_;
      const std::vector<BlockCopy> blocks = {{0, 1, source.sum(0)}, {1, 2, {}}, {2, 3, {}}};
      Answer answer;
      executor.submit({.plan = plan_of(source, target), .blocks = blocks}, answer.done());
      const TransferResult result = answer.get();
      EXPECT_EQ(result.blocks.size(), blocks.size());
      for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (result.blocks[i]) {
          EXPECT_EQ(result.blocks[i]->payload_sum(), source.sum(blocks[i].source));
          copy_oracle(source, target, {&blocks[i], 1});
          continue;
        }
        ++failed;
        EXPECT_EQ(result.blocks[i].error().code, ErrorCode::Cuda);
        EXPECT_NE(result.blocks[i].error().native, 0);
        failed_targets_.push_back({to_device, blocks[i].target});
      }
    }
    return failed;
  }
  // Every byte but those of failed targets is what it must be.
  void expect_only_failed_targets_differ() {
    for (const auto& [device_side, block] : failed_targets_) {
      const Mirrored& side = device_side ? on_device_ : on_host_;
      for (const Fragment& fragment : side.layout->fragments()) {
        const Region place = side.layout->place(fragment, block);
        const std::vector<std::byte> now =
            device_side
                ? device_bytes(device(), place.memory->address() + place.offset, place.bytes)
                : std::vector<std::byte>(place.data(), place.data() + place.bytes);
        const Region oracle = side.oracle->place(fragment, block);
        std::memcpy(oracle.data(), now.data(), now.size());
      }
    }
    failed_targets_.clear();
    EXPECT_TRUE(on_device_.bytes() == on_device_.oracle_bytes());
    EXPECT_TRUE(on_host_.bytes() == on_host_.oracle_bytes());
  }

  struct FailedTarget {
    bool device_side;
    BlockId block;
  };
  std::vector<FailedTarget> failed_targets_;
  Mirrored on_device_;
  Mirrored on_host_;
};

CudaExecutorOptions options(CudaWay way) {
  return {.threads = 1, .table = CudaCopyTable::always(way), .group_bytes = 300};
}

TEST_F(CudaFaultTest, AFailureOfAnyCallEndsInAnErrorAndLeavesNothing) {
  const fake_cuda::Live before = fake().live();
  for (CudaWay way : {CudaWay::Engine, CudaWay::Staged, CudaWay::Kernel}) {
    std::size_t failures = 0;
    std::size_t at = 0;
    for (std::size_t calls = at + 1; at < calls; ++at) {  // up to the first that is never made
      SCOPED_TRACE(std::string(to_string(way)) + ", call " + std::to_string(at));
      fake().reset(test_seed());
      fake().fail(at, kUnknown);
      {
        auto executor =
            CudaExecutor::create(device(), options(way), ThreadExecutor::create(1).value());
        if (executor) {
          failures += copy_both_ways(**executor);
        } else {
          EXPECT_EQ(executor.error().code, ErrorCode::Cuda);
          EXPECT_EQ(executor.error().native, kUnknown);
          ++failures;
        }
      }
      if (fake().calls() > at) calls = at + 2;
      EXPECT_EQ(fake().waiting(), 0u);
      EXPECT_EQ(fake().live(), before);
      fake().reset(test_seed());
      expect_only_failed_targets_differ();
    }
    EXPECT_GT(at, 50u);
    EXPECT_GT(failures, 20u);
  }
}

// From then on the driver answers everything with that error, as after a fault of a kernel.
TEST_F(CudaFaultTest, ABrokenDeviceEndsAllRequestsWithItsError) {
  for (CudaWay way : {CudaWay::Engine, CudaWay::Staged, CudaWay::Kernel}) {
    for (std::size_t operation = 0; operation < 12; ++operation) {
      SCOPED_TRACE(std::string(to_string(way)) + ", operation " + std::to_string(operation));
      {
        const auto executor = make_executor(device(), options(way));
        fake().reset(test_seed());
        fake().break_at_operation(operation, kIllegalAddress);
        EXPECT_GT(copy_both_ways(*executor), 0u);
        EXPECT_EQ(copy_both_ways(*executor), 6u) << "it stays broken";
      }
      fake().reset(test_seed());
      fake().drop_work();
      expect_only_failed_targets_differ();
    }
  }
}

TEST_F(CudaFaultTest, ADeviceThatDoesNotAnswerIsGivenUpUntilItDoes) {
  for (CudaWay way : {CudaWay::Engine, CudaWay::Staged}) {
    auto given_up = options(way);
    given_up.patience = std::chrono::milliseconds(5);
    const auto executor = make_executor(device(), given_up);
    fake().stop_streams(true);
    EXPECT_EQ(copy_both_ways(*executor), 6u);
    fake().stop_streams(false);
    // The copies that were under way end now; later ones work again.
    EXPECT_EQ(copy_both_ways(*executor), 0u);
    failed_targets_ = {{true, 1}, {true, 2}, {true, 3}, {false, 1}, {false, 2}, {false, 3}};
    expect_only_failed_targets_differ();
  }
}

TEST_F(CudaFaultTest, MemoryThatASilentDeviceMayTouchIsNeverFreed) {
  std::weak_ptr<const Layout> layout;
  {
    auto given_up = options(CudaWay::Engine);
    given_up.patience = std::chrono::milliseconds(5);
    const auto source =
        Mirrored::make(device(), Kind::Registered, LayoutType::FullyContiguous, kConfig, 3);
    layout = source.layout;
    const auto executor = make_executor(device(), given_up);
    fake().stop_streams(true);
    EXPECT_EQ(codes(run(*executor, {.plan = plan_of(source, on_device_), .blocks = {{0, 0, {}}}})),
              "Cuda");
  }
  EXPECT_FALSE(layout.expired());
  fake().drop_work();
  keeps_objects();
}

TEST_F(CudaFaultTest, WithoutRoomForStagingTheCopyEnginesCopy) {
  const auto executor = make_executor(device(), options(CudaWay::Staged));
  fake().limit_memory(0);
  EXPECT_EQ(copy_both_ways(*executor), 0u);
  expect_only_failed_targets_differ();
}

TEST_F(CudaFaultTest, WithoutAKernelTheCopyEnginesCopy) {
  fake().fail("cuModuleLoadData", 0, 209);  // no binary for this device
  for (CudaWay way : {CudaWay::Staged, CudaWay::Kernel}) {
    const auto executor = make_executor(device(), options(way));
    EXPECT_EQ(copy_both_ways(*executor), 0u);
    fake().reset(test_seed());
    fake().fail("cuModuleLoadData", 0, 209);
  }
  EXPECT_EQ(fake().calls("cuLaunchKernel"), 0u);
  expect_only_failed_targets_differ();
}

TEST_F(CudaFaultTest, WhereBatchesAreNotSupportedCopiesGoOneByOne) {
  for (std::size_t i = 0; i < 100; ++i) fake().fail("cuMemcpyBatchAsync", i, cuda::kNotSupported);
  {
    const auto executor = make_executor(device(), options(CudaWay::Engine));
    EXPECT_EQ(copy_both_ways(*executor), 0u);
  }
  EXPECT_GT(fake().calls("cuMemcpyBatchAsync"), 0u);
  EXPECT_GT(fake().calls("cuMemcpyAsync"), 0u);
  expect_only_failed_targets_differ();
}

TEST_F(CudaFaultTest, MemoryThatCannotBeRegisteredIsCopiedAllTheSame) {
  for (std::size_t i = 0; i < 100; ++i) fake().fail("cuMemHostRegister_v2", i, kUnknown);
  const auto file = std::make_shared<FakeFile>(kConfig.num_blocks * 4096);
  LayoutConfig on_file = kConfig;
  on_file.alignment = 4096;
  const auto disk =
      Layout::create(LayoutType::FullyContiguous, on_file, {std::make_shared<detail::Memory>(file)})
          .value();
  const auto executor = make_executor(device(), options(CudaWay::Kernel));
  const TransferResult written =
      run(*executor,
          {.plan = CopyPlan::create(on_device_.layout, disk).value(), .blocks = {{1, 4, {}}}});
  ASSERT_EQ(codes(written), "ok");
  EXPECT_EQ(written.blocks[0]->payload_sum(), on_device_.sum(1));
  EXPECT_EQ(copy_both_ways(*executor), 0u);
  EXPECT_EQ(fake().calls("cuLaunchKernel"), 0u) << "its table would lie in unregistered memory";
  expect_only_failed_targets_differ();
}

}  // namespace
}  // namespace kvbm
