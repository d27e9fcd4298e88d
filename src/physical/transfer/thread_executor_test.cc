#include "physical/transfer/thread_executor.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <string>
#include <type_traits>
#include <utility>

#include "platform/os/fake_file.h"

namespace kvbm {
namespace {

static_assert(!std::is_default_constructible_v<TransferToken> &&
                  !std::is_copy_constructible_v<TransferToken> &&
                  !std::is_constructible_v<TransferToken, const Layout*, BlockId, std::uint64_t>,
              "only an executor proves that a copy ended well");
static_assert(std::is_nothrow_move_constructible_v<TransferToken>);

constexpr LayoutConfig kConfig = {.num_blocks = 8,
                                  .num_layers = 2,
                                  .outer_dim = 2,
                                  .page_size = 4,
                                  .inner_dim = 5,
                                  .dtype = DType::FP16};
constexpr auto kType = LayoutType::FullyContiguous;

std::shared_ptr<const Layout> layout_on(std::shared_ptr<detail::Memory> memory) {
  return Layout::create(kType, kConfig, {std::move(memory)}).value();
}

// Memory whose blocks differ from each other.
std::shared_ptr<const Layout> filled_memory() {
  auto storage = SystemAllocator().allocate(kConfig.storage_bytes(kType).value()).value();
  for (std::size_t i = 0; i < storage.size(); ++i) storage.as_mut_ptr()[i] = std::byte(i * 7 / 3);
  return layout_on(storage.memory());
}

std::shared_ptr<const Layout> empty_memory() {
  return layout_on(
      SystemAllocator().allocate(kConfig.storage_bytes(kType).value()).value().memory());
}

std::shared_ptr<FakeFile> make_file() {
  return std::make_shared<FakeFile>(kConfig.storage_bytes(kType).value());
}

std::shared_ptr<const Layout> layout_on(const std::shared_ptr<FakeFile>& file) {
  return layout_on(std::make_shared<detail::Memory>(file));
}

std::shared_ptr<const CopyPlan> plan_of(std::shared_ptr<const Layout> source,
                                        std::shared_ptr<const Layout> target) {
  return CopyPlan::create(std::move(source), std::move(target)).value();
}

bool same_block(const Layout& a, BlockId in_a, const Layout& b, BlockId in_b) {
  return std::memcmp(a.extent(in_a).data(), b.extent(in_b).data(), kConfig.block_bytes()) == 0;
}

// Closed until open() is called.
class Gate {
 public:
  void open() { opened_.set_value(); }
  void pass() { open_.wait(); }

 private:
  std::promise<void> opened_;
  std::shared_future<void> open_ = opened_.get_future().share();
};

// Collects the answer of one request and counts how often it came.
class Answer {
 public:
  TransferExecutor::Done done() {
    return [state = state_](TransferResult result) {
      if (state->calls++ == 0) state->promise.set_value(std::move(result));
    };
  }
  TransferResult get() { return state_->promise.get_future().get(); }
  int calls() const { return state_->calls; }

 private:
  struct State {
    std::promise<TransferResult> promise;
    std::atomic<int> calls = 0;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

void expect_code(const Result<TransferToken>& block, ErrorCode code) {
  ASSERT_FALSE(block.has_value());
  EXPECT_EQ(block.error().code, code);
}

TEST(ThreadExecutorTest, AnswersOnceWithATokenPerBlockInOrder) {
  const auto source = filled_memory();
  const auto target = empty_memory();
  Answer answer;
  {
    const auto owned = ThreadExecutor::create(2).value();
    ThreadExecutor& executor = *owned;
    const std::uint64_t known = sum_block(*source, 1).value();
    executor.submit({plan_of(source, target), {{0, 5, {}}, {1, 4, known}, {7, 0, {}}}},
                    answer.done());
  }
  EXPECT_EQ(answer.calls(), 1);
  const TransferResult result = answer.get();
  ASSERT_EQ(result.blocks.size(), 3u);
  const BlockId from[] = {0, 1, 7};
  const BlockId to[] = {5, 4, 0};
  for (std::size_t i = 0; i < 3; ++i) {
    const TransferToken& token = result.blocks[i].value();
    EXPECT_EQ(token.target_layout(), target.get());
    EXPECT_EQ(token.target(), to[i]);
    EXPECT_EQ(token.payload_sum(), sum_block(*source, from[i]).value());
    EXPECT_TRUE(same_block(*source, from[i], *target, to[i]));
  }
  EXPECT_GT(result.busy.count(), 0);
}

TEST(ThreadExecutorTest, ARequestWithoutBlocksIsAnswered) {
  const auto owned = ThreadExecutor::create(1).value();
  ThreadExecutor& executor = *owned;
  Answer answer;
  executor.submit({plan_of(filled_memory(), empty_memory()), {}}, answer.done());
  EXPECT_TRUE(answer.get().blocks.empty());
}

TEST(ThreadExecutorTest, AnswersOnAThreadOfItsOwn) {
  std::promise<std::thread::id> thread;
  const auto owned = ThreadExecutor::create(1).value();
  ThreadExecutor& executor = *owned;
  executor.submit({plan_of(filled_memory(), empty_memory()), {{0, 0, {}}}},
                  [&](TransferResult) { thread.set_value(std::this_thread::get_id()); });
  EXPECT_NE(thread.get_future().get(), std::this_thread::get_id());
}

TEST(ThreadExecutorTest, AnErrorConcernsItsBlockAlone) {
  const auto memory = filled_memory();
  const auto file = make_file();
  file->set_hook([](const FakeFile::Call& call) {
    return call.number == 1 ? FakeFile::fails(EIO) : FakeFile::Fault{};
  });
  const auto disk = layout_on(file);
  const auto owned = ThreadExecutor::create(1).value();
  ThreadExecutor& executor = *owned;

  Answer written;
  executor.submit({plan_of(memory, disk), {{0, 0, {}}, {1, 1, {}}, {2, 99, {}}, {3, 3, {}}}},
                  written.done());
  const TransferResult result = written.get();
  ASSERT_EQ(result.blocks.size(), 4u);
  EXPECT_TRUE(result.blocks[0].has_value());
  expect_code(result.blocks[1], ErrorCode::OperationFailed);
  EXPECT_EQ(result.blocks[1].error().native, EIO);
  expect_code(result.blocks[2], ErrorCode::InvalidBlockIndex);
  EXPECT_TRUE(result.blocks[3].has_value());

  file->set_hook({});
  const auto back = empty_memory();
  Answer read;
  executor.submit({plan_of(disk, back), {{0, 0, 1}, {3, 3, result.blocks[3]->payload_sum()}}},
                  read.done());
  const TransferResult again = read.get();
  expect_code(again.blocks[0], ErrorCode::ChecksumMismatch);
  EXPECT_TRUE(again.blocks[1].has_value());
  EXPECT_TRUE(same_block(*memory, 3, *back, 3));
}

TEST(ThreadExecutorTest, BlocksThatHaveNotBegunAreCancelled) {
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  const auto file = make_file();
  file->set_hook([&](const FakeFile::Call& call) {
    if (call.number == 1) cancelled->store(true);  // while the second block moves
    return FakeFile::Fault{};
  });
  const auto owned = ThreadExecutor::create(1).value();
  ThreadExecutor& executor = *owned;
  Answer answer;
  executor.submit({.plan = plan_of(filled_memory(), layout_on(file)),
                   .blocks = {{0, 0, {}}, {1, 1, {}}, {2, 2, {}}, {3, 3, {}}},
                   .cancelled = cancelled},
                  answer.done());
  const TransferResult result = answer.get();
  ASSERT_EQ(result.blocks.size(), 4u);
  EXPECT_TRUE(result.blocks[0].has_value());
  EXPECT_TRUE(result.blocks[1].has_value()) << "a block that has begun is finished";
  expect_code(result.blocks[2], ErrorCode::Cancelled);
  expect_code(result.blocks[3], ErrorCode::Cancelled);
  EXPECT_EQ(file->writes(), 2u);
}

TEST(ThreadExecutorTest, ARequestCancelledInTheQueueMovesNothing) {
  const auto cancelled = std::make_shared<std::atomic<bool>>(true);
  const auto file = make_file();
  const auto owned = ThreadExecutor::create(1).value();
  ThreadExecutor& executor = *owned;
  Answer answer;
  executor.submit({.plan = plan_of(filled_memory(), layout_on(file)),
                   .blocks = {{0, 0, {}}, {1, 1, {}}},
                   .cancelled = cancelled},
                  answer.done());
  const TransferResult result = answer.get();
  ASSERT_EQ(result.blocks.size(), 2u);
  expect_code(result.blocks[0], ErrorCode::Cancelled);
  expect_code(result.blocks[1], ErrorCode::Cancelled);
  EXPECT_EQ(file->writes(), 0u);
}

TEST(ThreadExecutorTest, OnboardingGoesBeforeQueuedOffloading) {
  Gate gate;
  Gate begun;
  const auto file = make_file();
  file->set_hook([&](const FakeFile::Call& call) {
    if (call.number == 0) {
      begun.open();
      gate.pass();
    }
    return FakeFile::Fault{};
  });
  const auto source = filled_memory();
  const auto target = layout_on(file);
  std::vector<std::string> order;  // the executor's only thread writes it
  {
    const auto owned = ThreadExecutor::create(1).value();
    ThreadExecutor& executor = *owned;
    const auto submit = [&](TransferPriority priority, const char* name) {
      executor.submit({plan_of(source, target), {{0, 0, {}}}, priority},
                      [&order, name](TransferResult) { order.push_back(name); });
    };
    submit(TransferPriority::Offload, "running");
    begun.pass();  // the thread is busy; the rest is queued
    submit(TransferPriority::Offload, "offload 1");
    submit(TransferPriority::Offload, "offload 2");
    submit(TransferPriority::Onboard, "onboard 1");
    submit(TransferPriority::Onboard, "onboard 2");
    gate.open();
  }
  EXPECT_EQ(order, (std::vector<std::string>{"running", "onboard 1", "onboard 2", "offload 1",
                                             "offload 2"}));
}

// While the first block of an offload moves, somebody asks for an onboarding.
struct MakesWay {
  std::shared_ptr<FakeFile> file = make_file();
  std::shared_ptr<const CopyPlan> plan = plan_of(filled_memory(), layout_on(file));
  std::vector<std::string> order;  // the executor's only thread writes it
  TransferResult offloaded;

  void submit_to(TransferExecutor& executor) {
    file->set_hook([this, &executor](const FakeFile::Call& call) {
      order.push_back("block " + std::to_string(call.offset / kConfig.block_bytes()));
      if (call.number == 0) {
        executor.submit({plan, {{7, 7, {}}, {6, 6, {}}}, TransferPriority::Onboard},
                        [this](TransferResult) { order.emplace_back("onboarded"); });
      }
      return FakeFile::Fault{};
    });
    executor.submit({plan, {{0, 0, {}}, {1, 1, {}}, {2, 99, {}}}, TransferPriority::Offload},
                    [this](TransferResult result) {
                      order.emplace_back("offloaded");
                      offloaded = std::move(result);
                    });
  }
  void check() {
    EXPECT_EQ(order, (std::vector<std::string>{"block 0", "block 7", "block 6", "onboarded",
                                               "block 1", "offloaded"}));
    ASSERT_EQ(offloaded.blocks.size(), 3u);
    for (const BlockId id : {0u, 1u}) EXPECT_EQ(offloaded.blocks[id].value().target(), id);
    expect_code(offloaded.blocks[2], ErrorCode::InvalidBlockIndex);
  }
};

TEST(ThreadExecutorTest, AnOffloadMakesWayBetweenItsBlocks) {
  MakesWay test;
  auto executor = ThreadExecutor::create(1).value();
  test.submit_to(*executor);
  executor.reset();
  test.check();
}

TEST(SharedExecutorTest, AnOffloadMakesWayBetweenItsBlocks) {
  MakesWay test;
  std::vector<std::function<void()>> tasks;
  SharedExecutor executor([&](std::function<void()> task) { tasks.push_back(std::move(task)); });
  test.submit_to(executor);
  for (std::size_t i = 0; i < tasks.size(); ++i) std::exchange(tasks[i], {})();
  EXPECT_EQ(tasks.size(), 2u);
  test.check();
}

// Two blocked transfers at once: the second thread is no decoration.
TEST(ThreadExecutorTest, EachThreadRunsATransfer) {
  Gate both;
  std::atomic<int> inside = 0;
  const auto file = make_file();
  file->set_hook([&](const FakeFile::Call&) {
    if (++inside == 2) both.open();
    both.pass();
    return FakeFile::Fault{};
  });
  const auto owned = ThreadExecutor::create(2).value();
  ThreadExecutor& executor = *owned;
  const auto source = filled_memory();
  const auto target = layout_on(file);
  Answer first;
  Answer second;
  executor.submit({plan_of(source, target), {{0, 0, {}}}}, first.done());
  executor.submit({plan_of(source, target), {{1, 1, {}}}}, second.done());
  EXPECT_TRUE(first.get().blocks[0].has_value());
  EXPECT_TRUE(second.get().blocks[0].has_value());
}

TEST(ThreadExecutorTest, TheDestructorFinishesWhatWasSubmitted) {
  for (std::size_t threads : {1u, 3u}) {
    Gate gate;
    const auto file = make_file();
    file->set_hook([&](const FakeFile::Call&) {
      gate.pass();
      return FakeFile::Fault{};
    });
    const auto source = filled_memory();
    const auto target = layout_on(file);
    std::atomic<int> good = 0;
    auto executor = ThreadExecutor::create(threads).value();
    for (BlockId i = 0; i < kConfig.num_blocks; ++i) {
      const auto priority = i % 2 == 0 ? TransferPriority::Onboard : TransferPriority::Offload;
      executor->submit({plan_of(source, target), {{0, i, {}}}, priority},
                       [&](TransferResult result) { good += result.blocks[0].has_value(); });
    }
    std::jthread opener([&] { gate.open(); });
    executor.reset();
    EXPECT_EQ(good, 8);
  }
}

TEST(ThreadExecutorTest, DoneMaySubmitAgain) {
  auto executor = ThreadExecutor::create(1).value();
  const auto source = filled_memory();
  const auto target = empty_memory();
  std::promise<void> last;
  int left = 10;
  TransferExecutor::Done next = [&](TransferResult result) {
    EXPECT_TRUE(result.blocks[0].has_value());
    if (--left == 0) return last.set_value();
    executor->submit({plan_of(source, target), {{0, 0, {}}}}, next);
  };
  executor->submit({plan_of(source, target), {{0, 0, {}}}}, next);
  last.get_future().get();
  executor.reset();  // before what its thread still refers to
}

TEST(ThreadExecutorTest, LayoutsLiveUntilTheTransferEnds) {
  Gate gate;
  const auto file = make_file();
  file->set_hook([&](const FakeFile::Call&) {
    gate.pass();
    return FakeFile::Fault{};
  });
  const auto owned = ThreadExecutor::create(1).value();
  ThreadExecutor& executor = *owned;
  Answer answer;
  std::weak_ptr<const Layout> source;
  {
    auto layout = filled_memory();
    source = layout;
    executor.submit({plan_of(std::move(layout), layout_on(file)), {{0, 0, {}}}}, answer.done());
  }
  EXPECT_FALSE(source.expired());
  gate.open();
  EXPECT_TRUE(answer.get().blocks[0].has_value());
}

}  // namespace
}  // namespace kvbm
