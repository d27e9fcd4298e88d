// Finding the driver, and the objects over it.
#include <algorithm>

#include "cuda/cuda_fixture.h"

namespace kvbm {
namespace {

class CudaDriverTest : public CudaTest {};
class FakeCudaDriverTest : public FakeCudaTest {};

TEST(CudaDriverLoadTest, AMissingDriverIsNamed) {
  const auto loaded = cuda::load_driver("/nowhere/libcuda.so.1");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::Cuda);
  EXPECT_EQ(loaded.error().native, 0);
  EXPECT_EQ(loaded.error().message,
            "no CUDA driver: /nowhere/libcuda.so.1: cannot open shared object file: No such file "
            "or directory");
}

TEST(CudaDriverLoadTest, AMissingFunctionIsNamed) {
  const auto loaded = cuda::load_driver(KVBM_OLD_CUDA);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().native, 0);
  EXPECT_EQ(loaded.error().message,
            std::string("no CUDA driver: ") + KVBM_OLD_CUDA + " has no cuGetErrorName");
}

TEST_F(FakeCudaDriverTest, ADriverWithoutBatchesIsEnough) {
  fake().hide("cuMemcpyBatchAsync");
  const auto api = cuda::load_driver(KVBM_FAKE_CUDA).value();
  EXPECT_EQ(api.cuMemcpyBatchAsync, nullptr);
  const auto old_device = cuda::Device::open(0, api).value();
  const auto source = Mirrored::make(old_device, Mirrored::Kind::Registered,
                                     LayoutType::FullyContiguous, {2, 3, 2, 4, 5}, 1);
  const auto target = Mirrored::make(old_device, Mirrored::Kind::Device,
                                     LayoutType::LayerSeparateOuterContiguous, {2, 3, 2, 4, 5}, 2);
  const auto executor =
      make_executor(old_device, {.table = CudaCopyTable::always(CudaWay::Engine)});
  EXPECT_EQ(codes(run(*executor, {.plan = plan_of(source, target), .blocks = {{0, 1, {}}}})), "ok");
  copy_oracle(source, target, std::vector<BlockCopy>{{0, 1, {}}});
  EXPECT_TRUE(target.bytes() == target.oracle_bytes());
  EXPECT_EQ(fake().calls("cuMemcpyBatchAsync"), 0u);
}

TEST_F(CudaDriverTest, ADeviceThatIsNotThereIsNamed) {
  const auto opened = cuda::Device::open(4711);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::Cuda);
  EXPECT_NE(opened.error().message.find("cuDeviceGet"), std::string::npos);
  EXPECT_NE(opened.error().message.find("4711"), std::string::npos);
}

TEST_F(CudaDriverTest, MemoryIsZeroedAndKnowsItsDevice) {
  const auto memory = cuda::allocate(device(), 100'000).value();
  EXPECT_EQ(memory->bytes(), 100'000u);
  EXPECT_EQ(memory->device(), 0u);
  EXPECT_NE(memory->description().find(device()->name()), std::string::npos);
  const auto bytes = device_bytes(device(), memory->address(), memory->bytes());
  EXPECT_EQ(std::count(bytes.begin(), bytes.end(), std::byte{0}), 100'000);
}

TEST_F(FakeCudaDriverTest, AnAllocationThatFailsTellsItsSize) {
  fake().limit_memory(1000);
  const auto memory = cuda::allocate(device(), 1001);
  ASSERT_FALSE(memory);
  EXPECT_EQ(memory.error().code, ErrorCode::Cuda);
  EXPECT_EQ(memory.error().native, 2);
  EXPECT_EQ(memory.error().requested, 1001u);
}

TEST_F(FakeCudaDriverTest, ARegistrationThatFailsHalfwayLeavesNothing) {
  constexpr std::size_t kPiece = cuda::HostRegistration::kPieceBytes;
  auto storage = PinnedAllocator().allocate(2 * kPiece).value();
  const std::size_t pieces = 2 + (storage.addr() % kPiece != 0 ? 1 : 0);
  {
    const auto whole =
        cuda::HostRegistration::create(device(), storage.as_mut_ptr(), 2 * kPiece).value();
    EXPECT_EQ(fake().live().registrations, pieces);
  }
  fake().reset(test_seed());
  fake().fail("cuMemHostRegister_v2", 1, 2);
  const auto failed = cuda::HostRegistration::create(device(), storage.as_mut_ptr(), 2 * kPiece);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().native, 2);
  EXPECT_EQ(fake().live().registrations, 0u);
}

TEST_F(CudaDriverTest, OnlyHostMemoryCanBeRegistered) {
  const auto memory = DeviceAllocator().allocate(4096).value();
  const auto registered = memory.memory()->register_with(device());
  ASSERT_FALSE(registered);
  EXPECT_EQ(registered.error().code, ErrorCode::NotAccessible);
}

TEST_F(FakeCudaDriverTest, AnEventIsReachedAfterTheStreamsWork) {
  const cuda::Current current(*device());
  const auto stream = cuda::Stream::create(device()).value();
  const auto other = cuda::Stream::create(device()).value();
  const auto event = cuda::Event::create(device()).value();
  const auto end = cuda::Event::create(device()).value();
  EXPECT_TRUE(event->reached().value()) << "nothing was recorded";
  fake().stop_streams(true);
  event->record(stream->handle()).value();
  event->hold_back(other->handle()).value();
  end->record(other->handle()).value();
  EXPECT_FALSE(event->reached().value());
  EXPECT_FALSE(end->reached().value());
  fake().stop_streams(false);
  while (!end->reached().value()) continue;
  EXPECT_TRUE(event->reached().value());
}

}  // namespace
}  // namespace kvbm
