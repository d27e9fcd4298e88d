// What the CUDA executor promises besides moving bytes.
#include "cuda/cuda_fixture.h"
#include "platform/os/fake_file.h"

namespace kvbm {
namespace {

using Kind = Mirrored::Kind;

constexpr LayoutConfig kConfig = {.num_blocks = 8,
                                  .num_layers = 2,
                                  .outer_dim = 2,
                                  .page_size = 4,
                                  .inner_dim = 64,
                                  .dtype = DType::U8};
constexpr auto kOnDevice = LayoutType::LayerSeparateOuterContiguous;
constexpr auto kOnHost = LayoutType::FullyContiguous;

// Both ends, and an executor of one thread that copies block by block.
class CudaExecutorTest : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    on_device_ = Mirrored::make(device(), Kind::Device, kOnDevice, kConfig, 1);
    on_host_ = Mirrored::make(device(), Kind::Registered, kOnHost, kConfig, 2);
    executor_ = make_executor(device(), {.threads = 1,
                                         .table = CudaCopyTable::always(CudaWay::Engine),
                                         .group_bytes = 1,
                                         .patience = patience_});
  }
  void TearDown() override {
    executor_ = nullptr;
    on_device_ = {};
    on_host_ = {};
    CudaTest::TearDown();
  }
  std::shared_ptr<const CopyPlan> up() { return plan_of(on_host_, on_device_); }
  std::shared_ptr<const CopyPlan> down() { return plan_of(on_device_, on_host_); }
  // Both sides are what the oracles are.
  void expect_as_oracle() {
    EXPECT_TRUE(on_device_.bytes() == on_device_.oracle_bytes());
    EXPECT_TRUE(on_host_.bytes() == on_host_.oracle_bytes());
  }

  std::chrono::nanoseconds patience_ = std::chrono::seconds(30);
  Mirrored on_device_;
  Mirrored on_host_;
  std::unique_ptr<CudaExecutor> executor_;
};

class FakeCudaExecutorTest : public CudaExecutorTest {
 protected:
  void SetUp() override {
    if (!on_fake()) GTEST_SKIP() << "needs the fake driver";
    CudaExecutorTest::SetUp();
    fake().reset(test_seed());  // counts from here
  }
};

TEST_F(CudaExecutorTest, ARequestWithoutBlocksIsAnswered) {
  EXPECT_EQ(codes(run(*executor_, {.plan = up(), .blocks = {}})), "");
}

TEST_F(CudaExecutorTest, AWrongBlockNeverReachesTheDevice) {
  const std::vector<BlockCopy> blocks = {{0, 1, on_host_.sum(0)}, {1, 2, 12345}, {2, 3, {}}};
  EXPECT_EQ(codes(run(*executor_, {.plan = up(), .blocks = blocks})), "ok ChecksumMismatch ok");
  copy_oracle(on_host_, on_device_, std::vector<BlockCopy>{blocks[0], blocks[2]});
  expect_as_oracle();
}

TEST_F(CudaExecutorTest, AWrongBlockThatReachedTheHostIsZeroed) {
  const std::vector<BlockCopy> blocks = {{0, 1, on_device_.sum(0)}, {1, 2, 12345}, {2, 3, {}}};
  EXPECT_EQ(codes(run(*executor_, {.plan = down(), .blocks = blocks})), "ok ChecksumMismatch ok");
  copy_oracle(on_device_, on_host_, std::vector<BlockCopy>{blocks[0], blocks[2]});
  zero_block(*on_host_.oracle, 2);
  expect_as_oracle();
}

TEST_F(CudaExecutorTest, ABlockThatDoesNotExistConcernsItselfAlone) {
  const TransferResult result =
      run(*executor_, {.plan = up(), .blocks = {{0, 0, {}}, {8, 1, {}}, {1, 9, {}}, {3, 3, {}}}});
  EXPECT_EQ(codes(result), "ok InvalidBlockIndex InvalidBlockIndex ok");
  EXPECT_EQ(result.blocks[1].error().requested, 8u);
  EXPECT_EQ(result.blocks[1].error().available, 8u);
}

TEST_F(CudaExecutorTest, RequestsWithoutDeviceMemoryAreLeftToTheOther) {
  const auto other = Mirrored::make(device(), Kind::Pageable, kOnHost, kConfig, 3);
  EXPECT_EQ(codes(run(*executor_, {.plan = plan_of(on_host_, other), .blocks = {{0, 5, {}}}})),
            "ok");
  copy_oracle(on_host_, other, std::vector<BlockCopy>{{0, 5, {}}});
  EXPECT_TRUE(other.bytes() == other.oracle_bytes());
}

TEST_F(CudaExecutorTest, CopiesFromDeviceToDeviceAreRefused) {
  const auto other = Mirrored::make(device(), Kind::Device, kOnHost, kConfig, 3);
  const TransferResult result =
      run(*executor_, {.plan = plan_of(on_device_, other), .blocks = {{0, 5, {}}}});
  EXPECT_EQ(codes(result), "NotAccessible");
}

TEST_F(CudaExecutorTest, MemoryOfAnotherDeviceIsRefused) {
  Layout::Memories memories;
  for (std::size_t i = 0; i < 2; ++i) {
    memories.push_back(std::make_shared<detail::Memory>(StorageType{StorageType::Kind::Device, 3},
                                                        (i + 1) << 50, std::size_t{1} << 20));
  }
  const auto elsewhere = Layout::create(kOnDevice, kConfig, memories).value();
  const TransferResult result =
      run(*executor_,
          {.plan = CopyPlan::create(on_host_.layout, elsewhere).value(), .blocks = {{0, 5, {}}}});
  ASSERT_EQ(codes(result), "InvalidConfig");
  EXPECT_EQ(result.blocks[0].error().message,
            "blocks of CUDA device 3 were given to the executor of device 0");
}

// The event is held back by another stream's work; the copy's source changes in that work.
TEST_F(FakeCudaExecutorTest, CopiesWaitForTheEventOnTheDevice) {
  for (CudaWay way : {CudaWay::Engine, CudaWay::Staged, CudaWay::Kernel}) {
    for (const bool to_device : {true, false}) {
      executor_ = make_executor(device(), {.threads = 1, .table = CudaCopyTable::always(way)});
      const cuda::Current current(*device());
      const auto stream = cuda::Stream::create(device()).value();
      const auto event = cuda::Event::create(device()).value();
      // The work that the event stands for overwrites the device's block 0 many times.
      const auto& memory = on_device_.layout->memory(0);
      std::vector<std::byte> last(kConfig.region_bytes(), std::byte{0x3C});
      std::vector<std::byte> before(kConfig.region_bytes(), std::byte{0x11});
      fake().stop_streams(true);
      cuda::CopyBatch batch;
      for (int i = 0; i < 500; ++i) {
        const auto& bytes = i == 499 ? last : before;
        const cuda::CopyRange range{reinterpret_cast<std::uintptr_t>(bytes.data()),
                                    memory.address(), bytes.size()};
        batch.enqueue(*device(), stream->handle(), {&range, 1}).value();
      }
      event->record(stream->handle()).value();
      Answer answer;
      executor_->submit({.plan = to_device ? up() : down(),
                         .blocks = {{0, 0, {}}},
                         .order = {.after_event = event->handle()}},
                        answer.done());
      fake().stop_streams(false);
      ASSERT_EQ(codes(answer.get()), "ok");
      std::memcpy(on_device_.oracle->memory(0).data(), last.data(), last.size());
      if (to_device) {
        copy_oracle(on_host_, on_device_, std::vector<BlockCopy>{{0, 0, {}}});
      } else {
        copy_oracle(on_device_, on_host_, std::vector<BlockCopy>{{0, 0, {}}});
      }
      expect_as_oracle();
    }
  }
}

TEST_F(FakeCudaExecutorTest, CopiesRunInTheCallersStream) {
  for (CudaWay way : {CudaWay::Engine, CudaWay::Staged}) {
    executor_ = make_executor(device(), {.threads = 1, .table = CudaCopyTable::always(way)});
    const cuda::Current current(*device());
    const auto stream = cuda::Stream::create(device()).value();
    const std::vector<std::byte> last(kConfig.region_bytes(), std::byte{0x5A});
    // What was given to the stream before is done first.
    for (int i = 0; i < 300; ++i) {
      const cuda::CopyRange range{reinterpret_cast<std::uintptr_t>(last.data()),
                                  on_device_.layout->memory(0).address(), last.size()};
      cuda::CopyBatch().enqueue(*device(), stream->handle(), {&range, 1}).value();
    }
    ASSERT_EQ(
        codes(run(*executor_,
                  {.plan = down(), .blocks = {{0, 4, {}}}, .order = {.stream = stream->handle()}})),
        "ok");
    std::memcpy(on_device_.oracle->memory(0).data(), last.data(), last.size());
    copy_oracle(on_device_, on_host_, std::vector<BlockCopy>{{0, 4, {}}});
    expect_as_oracle();
  }
}

TEST_F(FakeCudaExecutorTest, BlocksThatHaveNotBegunAreCancelled) {
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  fake().stop_streams(true);
  Answer answer;
  executor_->submit({.plan = down(),
                     .blocks = {{0, 0, {}}, {1, 1, {}}, {2, 2, {}}, {3, 3, {}}},
                     .cancelled = cancelled},
                    answer.done());
  // Two groups of a block each are under way; the third waits for the first.
  while (fake().calls("cuEventQuery") == 0) continue;
  cancelled->store(true);
  fake().stop_streams(false);
  EXPECT_EQ(codes(answer.get()), "ok ok Cancelled Cancelled");
  copy_oracle(on_device_, on_host_, std::vector<BlockCopy>{{0, 0, {}}, {1, 1, {}}});
  expect_as_oracle();
}

TEST_F(FakeCudaExecutorTest, OnboardingGoesBeforeQueuedOffloading) {
  std::mutex mutex;
  std::vector<std::string> order;
  const auto submit = [&](const char* name, TransferPriority priority) {
    executor_->submit({.plan = down(), .blocks = {{0, 0, {}}}, .priority = priority},
                      [&, name](TransferResult) {
                        const std::lock_guard lock(mutex);
                        order.push_back(name);
                      });
  };
  fake().stop_streams(true);
  submit("running", TransferPriority::Offload);
  while (fake().calls("cuEventQuery") == 0) continue;  // the only thread waits for the device
  submit("offload", TransferPriority::Offload);
  submit("onboard", TransferPriority::Onboard);
  fake().stop_streams(false);
  executor_ = nullptr;
  EXPECT_EQ(order, (std::vector<std::string>{"running", "onboard", "offload"}));
}

// The file is read for the next block while the last one is on its way to the device.
TEST_F(FakeCudaExecutorTest, FileReadsGoOnBesideCopies) {
  const auto file = std::make_shared<FakeFile>(kConfig.num_blocks * 4096, 512);
  LayoutConfig on_file = kConfig;
  on_file.alignment = 4096;
  const auto disk =
      Layout::create(kOnHost, on_file, {std::make_shared<detail::Memory>(file)}).value();
  std::size_t beside = 0;
  file->set_hook([&](const FakeFile::Call& call) {
    if (call.op == FakeFile::Op::Read && fake().waiting() > 0) ++beside;
    return FakeFile::Fault{};
  });
  const TransferResult result =
      run(*executor_, {.plan = CopyPlan::create(disk, on_device_.layout).value(),
                       .blocks = {{0, 0, {}}, {1, 1, {}}, {2, 2, {}}, {3, 3, {}}, {4, 4, {}}}});
  EXPECT_EQ(codes(result), "ok ok ok ok ok");
  EXPECT_GE(beside, 1u);
}

TEST_F(CudaExecutorTest, BlocksGoToAFileAndBack) {
  const auto file = std::make_shared<FakeFile>(kConfig.num_blocks * 4096, 512);
  LayoutConfig on_file = kConfig;
  on_file.alignment = 4096;
  const auto disk =
      Layout::create(kOnHost, on_file, {std::make_shared<detail::Memory>(file)}).value();
  for (const std::size_t group_bytes : {std::size_t{1}, std::size_t{2100}, std::size_t{1} << 20}) {
    executor_ = make_executor(device(), {.threads = 1,
                                         .table = CudaCopyTable::always(CudaWay::Staged),
                                         .group_bytes = group_bytes});
    std::vector<BlockCopy> blocks;
    for (BlockId i = 0; i < 7; ++i) blocks.push_back({i, (i + 3) % 8, {}});
    const TransferResult written = run(
        *executor_, {.plan = CopyPlan::create(on_device_.layout, disk).value(), .blocks = blocks});
    ASSERT_EQ(codes(written), "ok ok ok ok ok ok ok");
    std::vector<BlockCopy> back;
    for (BlockId i = 0; i < 7; ++i) {
      EXPECT_EQ(written.blocks[i]->payload_sum(), on_device_.sum(i));
      back.push_back({(i + 3) % 8, i + 1, on_device_.sum(i)});
    }
    back[2].payload_sum = 99;
    const TransferResult read = run(
        *executor_, {.plan = CopyPlan::create(disk, on_device_.layout).value(), .blocks = back});
    ASSERT_EQ(codes(read), "ok ok ChecksumMismatch ok ok ok ok");
    // Block i is now block i + 1, but for the third, which was not touched.
    for (BlockId i = 7; i > 0; --i) {
      if (i == 3) continue;
      copy_oracle(on_device_, on_device_, std::vector<BlockCopy>{{i - 1, i, {}}});
    }
    expect_as_oracle();
  }
}

TEST_F(CudaExecutorTest, AnErrorOfTheFileConcernsItsBlockAlone) {
  const auto file = std::make_shared<FakeFile>(kConfig.num_blocks * 4096, 512);
  LayoutConfig on_file = kConfig;
  on_file.alignment = 4096;
  const auto disk =
      Layout::create(kOnHost, on_file, {std::make_shared<detail::Memory>(file)}).value();
  file->set_hook([](const FakeFile::Call& call) {
    return call.number == 1 ? FakeFile::fails(EIO) : FakeFile::Fault{};
  });
  const std::vector<BlockCopy> blocks = {{0, 0, {}}, {1, 1, {}}, {2, 2, {}}};
  EXPECT_EQ(codes(run(*executor_, {.plan = CopyPlan::create(on_device_.layout, disk).value(),
                                   .blocks = blocks})),
            "ok OperationFailed ok");
  EXPECT_EQ(codes(run(*executor_, {.plan = CopyPlan::create(disk, on_device_.layout).value(),
                                   .blocks = blocks})),
            "ok OperationFailed ok");
}

}  // namespace
}  // namespace kvbm
