// Many threads give an executor requests in both directions at once.
#include "cuda/cuda_fixture.h"

namespace kvbm {
namespace {

class CudaStressTest : public CudaTest {};

TEST_F(CudaStressTest, RequestsOfManyThreadsAllMoveTheirBlocks) {
  constexpr std::size_t kThreads = 4;
  constexpr std::size_t kRequests = 30;
  constexpr LayoutConfig kConfig = {.num_blocks = 8 * kThreads,
                                    .num_layers = 2,
                                    .outer_dim = 2,
                                    .page_size = 4,
                                    .inner_dim = 100,
                                    .dtype = DType::U8};
  const auto on_device = Mirrored::make(device(), Mirrored::Kind::Device,
                                        LayoutType::LayerSeparateOuterContiguous, kConfig, 1);
  const auto on_host =
      Mirrored::make(device(), Mirrored::Kind::Registered, LayoutType::FullyContiguous, kConfig, 2);
  const auto up = plan_of(on_host, on_device);
  const auto down = plan_of(on_device, on_host);
  const auto executor = make_executor(
      device(),
      {.threads = 3, .table = CudaCopyTable::always(CudaWay::Staged), .group_bytes = 3000});
  std::vector<std::jthread> threads;
  for (BlockId thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      const BlockId first = 8 * thread;
      std::uint64_t sum = on_host.sum(first);
      for (BlockId i = 0; i < kRequests; ++i) {
        // A block goes up and down again to the next place; its bytes stay the same.
        const BlockId there = first + i % 8;
        const BlockId next = first + (i + 1) % 8;
        EXPECT_EQ(codes(run(*executor, {.plan = up, .blocks = {{there, there, sum}}})), "ok");
        EXPECT_EQ(codes(run(*executor, {.plan = down, .blocks = {{there, next, sum}}})), "ok");
      }
    });
  }
}

}  // namespace
}  // namespace kvbm
