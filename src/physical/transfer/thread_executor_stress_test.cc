#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include "physical/transfer/thread_executor.h"
#include "platform/os/fake_file.h"

namespace kvbm {
namespace {

constexpr std::size_t kSubmitters = 4;
constexpr std::size_t kRequests = 200;  // of each submitter
constexpr std::size_t kBatch = 3;       // blocks of a request

constexpr LayoutConfig kConfig = {.num_blocks = kSubmitters * kRequests * kBatch,
                                  .num_layers = 2,
                                  .outer_dim = 2,
                                  .page_size = 1,
                                  .inner_dim = 33,
                                  .dtype = DType::INT8};
constexpr auto kType = LayoutType::FullyContiguous;

std::shared_ptr<const Layout> layout_on(std::shared_ptr<detail::Memory> memory) {
  return Layout::create(kType, kConfig, {std::move(memory)}).value();
}

std::shared_ptr<const Layout> make_memory() {
  return layout_on(
      SystemAllocator().allocate(kConfig.storage_bytes(kType).value()).value().memory());
}

std::shared_ptr<const Layout> filled_memory() {
  auto layout = make_memory();
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    std::memset(layout->extent(id).data(), static_cast<int>(id % 251) + 1, kConfig.block_bytes());
    std::memcpy(layout->extent(id).data(), &id, sizeof id);
  }
  return layout;
}

std::shared_ptr<const CopyPlan> plan_of(std::shared_ptr<const Layout> source,
                                        std::shared_ptr<const Layout> target) {
  return CopyPlan::create(std::move(source), std::move(target)).value();
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

TransferPriority priority_of(std::size_t request) {
  return request % 3 == 0 ? TransferPriority::Onboard : TransferPriority::Offload;
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

TEST(ThreadExecutorStressTest, ManySubmittersAreEachAnsweredOnce) {
  const auto source = filled_memory();
  const auto target = make_memory();
  Calls calls{};
  std::atomic<std::size_t> good = 0;
  {
    const auto owned = ThreadExecutor::create(3).value();
    ThreadExecutor& executor = *owned;
    run_submitters([&](std::size_t submitter, std::size_t request) {
      executor.submit({plan_of(source, target), batch_of(submitter, request), priority_of(request)},
                      [&, submitter, request](TransferResult result) {
                        ++calls[submitter * kRequests + request];
                        for (const auto& block : result.blocks) good += block.has_value();
                      });
    });
  }
  expect_one_call_each(calls);
  EXPECT_EQ(good, kConfig.num_blocks);
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) ASSERT_TRUE(same_block(*source, *target, id));
}

// Each transfer's answer starts the next: host to disk to host, as a block moves through tiers.
TEST(ThreadExecutorStressTest, ChainsThroughAFileKeepTheirSums) {
  const auto source = filled_memory();
  const auto file = std::make_shared<FakeFile>(kConfig.storage_bytes(kType).value());
  const auto disk = layout_on(std::make_shared<detail::Memory>(file));
  const auto back = make_memory();
  Calls calls{};
  std::atomic<std::size_t> good = 0;
  std::latch ended(kSubmitters * kRequests);
  const auto owned = ThreadExecutor::create(3).value();
  ThreadExecutor& executor = *owned;
  run_submitters([&](std::size_t submitter, std::size_t request) {
    const auto come_back = [&, submitter, request](TransferResult written) {
      auto blocks = batch_of(submitter, request);
      for (std::size_t i = 0; i < kBatch; ++i) {
        blocks[i].payload_sum = written.blocks[i].value().payload_sum();
      }
      executor.submit({plan_of(disk, back), blocks, TransferPriority::Onboard},
                      [&, submitter, request](TransferResult result) {
                        ++calls[submitter * kRequests + request];
                        for (const auto& block : result.blocks) good += block.has_value();
                        ended.count_down();
                      });
    };
    executor.submit({plan_of(source, disk), batch_of(submitter, request)}, come_back);
  });
  ended.wait();
  expect_one_call_each(calls);
  EXPECT_EQ(good, kConfig.num_blocks);
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) ASSERT_TRUE(same_block(*source, *back, id));
}

// Cancelling races with the copies: every block is either whole or was never begun.
TEST(ThreadExecutorStressTest, CancelledBlocksAreWholeOrUntouched) {
  const auto source = filled_memory();
  const auto target = make_memory();
  const auto untouched = make_memory();
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  Calls calls{};
  std::vector<char> copied(kConfig.num_blocks, 0);  // each element has one writer
  std::atomic<std::size_t> wrong = 0;
  {
    const auto owned = ThreadExecutor::create(3).value();
    ThreadExecutor& executor = *owned;
    run_submitters([&](std::size_t submitter, std::size_t request) {
      if (submitter == 0 && request == kRequests / 2) cancelled->store(true);
      auto blocks = batch_of(submitter, request);
      executor.submit({plan_of(source, target), blocks, priority_of(request), cancelled},
                      [&, submitter, request, blocks](TransferResult result) {
                        ++calls[submitter * kRequests + request];
                        for (std::size_t i = 0; i < kBatch; ++i) {
                          const auto& block = result.blocks[i];
                          copied[blocks[i].target] = block.has_value();
                          wrong += !block && block.error().code != ErrorCode::Cancelled;
                        }
                      });
    });
  }
  expect_one_call_each(calls);
  EXPECT_EQ(wrong, 0u);
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    ASSERT_TRUE(same_block(copied[id] ? *source : *untouched, *target, id)) << "block " << id;
  }
}

// The destructor races with threads that are about to wait for work.
TEST(ThreadExecutorStressTest, ShutsDownAtAnyMoment) {
  const auto source = filled_memory();
  const auto target = make_memory();
  for (std::size_t round = 0; round < 200; ++round) {
    std::atomic<std::size_t> answers = 0;
    {
      const auto owned = ThreadExecutor::create(3).value();
      ThreadExecutor& executor = *owned;
      for (std::size_t i = 0; i < round % 5; ++i) {
        executor.submit({plan_of(source, target), batch_of(0, i)},
                        [&](TransferResult) { ++answers; });
      }
    }
    ASSERT_EQ(answers, round % 5);
  }
}

}  // namespace
}  // namespace kvbm
