#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <latch>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "physical/transfer/file_executor.h"
#include "platform/os/fake_file.h"

namespace kvbm {
namespace {

constexpr std::size_t kSubmitters = 4;
constexpr std::size_t kRequests = 100;  // of each submitter
constexpr std::size_t kBatch = 3;       // blocks of a request

constexpr LayoutConfig kConfig = {.num_blocks = kSubmitters * kRequests * kBatch,
                                  .num_layers = 2,
                                  .outer_dim = 2,
                                  .page_size = 1,
                                  .inner_dim = 33,
                                  .dtype = DType::INT8,
                                  .alignment = 4096};
constexpr auto kType = LayoutType::FullyContiguous;

// GTEST_RANDOM_SEED repeats a run.
std::uint64_t random_seed() {
  const int given = GTEST_FLAG_GET(random_seed);
  return given != 0 ? static_cast<std::uint64_t>(given) : std::random_device()() % 99999 + 1;
}

std::size_t storage_bytes() { return kConfig.storage_bytes(kType).value(); }

std::shared_ptr<const Layout> layout_on(std::shared_ptr<detail::Memory> memory) {
  return Layout::create(kType, kConfig, {std::move(memory)}).value();
}

std::shared_ptr<const Layout> make_memory() {
  return layout_on(SystemAllocator().allocate(storage_bytes()).value().memory());
}

std::shared_ptr<const Layout> filled_memory() {
  auto layout = make_memory();
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    std::memset(layout->extent(id).data(), static_cast<int>(id % 251) + 1, kConfig.block_bytes());
    std::memcpy(layout->extent(id).data(), &id, sizeof id);
  }
  return layout;
}

std::shared_ptr<const CopyPlan> plan_of(const std::shared_ptr<const Layout>& source,
                                        const std::shared_ptr<const Layout>& target) {
  return CopyPlan::create(source, target).value();
}

bool same_block(const Layout& a, const Layout& b, BlockId id) {
  return std::memcmp(a.extent(id).data(), b.extent(id).data(), kConfig.block_bytes()) == 0;
}

// One submitter's request: blocks of its own, so that no two transfers touch the same bytes.
std::vector<BlockCopy> batch_of(std::size_t submitter, std::size_t request) {
  std::vector<BlockCopy> blocks;
  for (std::size_t i = 0; i < kBatch; ++i) {
    const auto id = static_cast<BlockId>((submitter * kRequests + request) * kBatch + i);
    blocks.push_back({id, id, {}});
  }
  return blocks;
}

template <class Submit>
void run_submitters(Submit submit) {
  std::latch start(kSubmitters);
  std::vector<std::jthread> threads;
  for (std::size_t submitter = 0; submitter < kSubmitters; ++submitter) {
    threads.emplace_back([&, submitter] {
      start.arrive_and_wait();
      for (std::size_t request = 0; request < kRequests; ++request) submit(submitter, request);
    });
  }
}

using Calls = std::array<std::atomic<int>, kSubmitters * kRequests>;

void expect_one_call_each(const Calls& calls) {
  for (const auto& count : calls) ASSERT_EQ(count, 1);
}

std::unique_ptr<FileExecutor> blocking_executor() {
  return FileExecutor::create(
             []() -> Result<std::unique_ptr<IoQueue>> { return create_blocking_queue(5); })
      .value();
}

// Host to disk to host; each answer starts the next transfer, on the executor's own thread.
void expect_chains_keep_their_sums(FileExecutor& executor,
                                   const std::shared_ptr<const Layout>& disk) {
  const auto source = filled_memory();
  const auto back = make_memory();
  const auto out = plan_of(source, disk);
  const auto home = plan_of(disk, back);
  Calls calls{};
  std::atomic<std::size_t> good = 0;
  std::latch ended(kSubmitters * kRequests);
  run_submitters([&](std::size_t submitter, std::size_t request) {
    const auto come_back = [&, submitter, request](TransferResult written) {
      auto blocks = batch_of(submitter, request);
      for (std::size_t i = 0; i < kBatch; ++i) {
        blocks[i].payload_sum = written.blocks[i].value().payload_sum();
      }
      executor.submit({home, blocks, TransferPriority::Onboard},
                      [&, submitter, request](TransferResult result) {
                        ++calls[submitter * kRequests + request];
                        for (const auto& block : result.blocks) good += block.has_value();
                        ended.count_down();
                      });
    };
    executor.submit({out, batch_of(submitter, request)}, come_back);
  });
  ended.wait();
  expect_one_call_each(calls);
  EXPECT_EQ(good, kConfig.num_blocks);
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) ASSERT_TRUE(same_block(*source, *back, id));
}

TEST(FileExecutorStressTest, ChainsThroughAFileInMemoryKeepTheirSums) {
  const auto file = std::make_shared<FakeFile>(storage_bytes());
  const auto executor = blocking_executor();
  expect_chains_keep_their_sums(*executor, layout_on(std::make_shared<detail::Memory>(file)));
}

TEST(FileExecutorStressTest, ChainsThroughIoUringKeepTheirSums) {
  const auto disk =
      layout_on(DiskAllocator(testing::TempDir()).allocate(storage_bytes()).value().memory());
  const auto executor = FileExecutor::create(
      [&] { return create_probed_uring_queue(FileExecutor::kDepth, *disk->memory(0).file()); });
  if (!executor) GTEST_SKIP() << executor.error().to_string();
  expect_chains_keep_their_sums(**executor, disk);
}

// Cancelling and faults race with reads: every block is whole, zero, or was never begun.
TEST(FileExecutorStressTest, BlocksAreWholeOrZeroOrUntouched) {
  const std::uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto file = std::make_shared<FakeFile>(storage_bytes());
  for (std::byte& byte : file->contents()) byte = std::byte(random());
  const std::uint64_t fault = random() % 5 + 2;
  file->set_hook([&](const FakeFile::Call& call) {
    if (call.number % fault == 0) return FakeFile::fails(EIO);
    if (call.number % fault == 1) return FakeFile::stops_after(call.bytes / 2);
    return FakeFile::Fault{};
  });
  const auto target = filled_memory();
  const auto before = filled_memory();
  const auto plan = plan_of(layout_on(std::make_shared<detail::Memory>(file)), target);
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  const std::size_t cancel_at = random() % kRequests;
  Calls calls{};
  std::vector<ErrorCode> codes(kConfig.num_blocks, ErrorCode{});  // each element has one writer
  {
    const auto executor = blocking_executor();
    run_submitters([&](std::size_t submitter, std::size_t request) {
      if (submitter == 0 && request == cancel_at) cancelled->store(true);
      auto blocks = batch_of(submitter, request);
      executor->submit({plan, blocks, TransferPriority::Offload, cancelled},
                       [&, submitter, request, blocks](TransferResult result) {
                         ++calls[submitter * kRequests + request];
                         for (std::size_t i = 0; i < kBatch; ++i) {
                           const auto& block = result.blocks[i];
                           codes[blocks[i].target] = block ? ErrorCode{} : block.error().code;
                         }
                       });
    });
  }
  expect_one_call_each(calls);
  const std::vector<std::byte> zeros(kConfig.block_bytes());
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    const std::byte* const got = target->extent(id).data();
    const std::byte* const in_file = file->contents().data() + plan->source().extent(id).offset;
    const std::byte* const expected = codes[id] == ErrorCode{} ? in_file
                                      : codes[id] == ErrorCode::Cancelled
                                          ? before->extent(id).data()
                                          : zeros.data();
    ASSERT_EQ(std::memcmp(got, expected, kConfig.block_bytes()), 0)
        << "block " << id << ", " << to_string(codes[id]);
  }
}

// The destructor races with a thread that is about to wait.
TEST(FileExecutorStressTest, ShutsDownAtAnyMoment) {
  const auto source = filled_memory();
  const auto plan = plan_of(
      source,
      layout_on(std::make_shared<detail::Memory>(std::make_shared<FakeFile>(storage_bytes()))));
  for (std::size_t round = 0; round < 400; ++round) {
    auto executor = round % 2 == 0
                        ? blocking_executor()
                        : FileExecutor::create([] { return create_uring_queue(4); }).value();
    std::atomic<std::size_t> answers = 0;
    const std::size_t count = round / 2 % 5;
    for (std::size_t i = 0; i < count; ++i) {
      executor->submit({plan, i % 2 == 0 ? batch_of(0, i) : std::vector<BlockCopy>()},
                       [&](TransferResult) { ++answers; });
    }
    executor.reset();
    ASSERT_EQ(answers, count);
  }
}

}  // namespace
}  // namespace kvbm
