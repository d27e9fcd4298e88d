#include "physical/transfer/file_executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <random>

#include "platform/os/fake_file.h"

namespace kvbm {
namespace {

constexpr std::size_t kUnit = 4096;
// A block's data is smaller than its extent, so that there is padding to keep apart.
constexpr LayoutConfig kConfig = {.num_blocks = 64,
                                  .num_layers = 2,
                                  .outer_dim = 2,
                                  .page_size = 4,
                                  .inner_dim = 125,
                                  .dtype = DType::FP16,
                                  .alignment = kUnit};
constexpr auto kType = LayoutType::FullyContiguous;

// GTEST_RANDOM_SEED repeats a run.
std::uint64_t random_seed() {
  const int given = GTEST_FLAG_GET(random_seed);
  return given != 0 ? static_cast<std::uint64_t>(given) : std::random_device()() % 99999 + 1;
}

std::shared_ptr<const Layout> layout_on(std::shared_ptr<detail::Memory> memory) {
  return Layout::create(kType, kConfig, {std::move(memory)}).value();
}

std::size_t storage_bytes() { return kConfig.storage_bytes(kType).value(); }

// Memory full of random bytes.
std::shared_ptr<const Layout> filled_memory(std::mt19937_64& random) {
  auto storage = SystemAllocator().allocate(storage_bytes()).value();
  for (std::size_t i = 0; i < storage.size(); ++i) storage.as_mut_ptr()[i] = std::byte(random());
  return layout_on(storage.memory());
}

std::shared_ptr<const Layout> filled_memory() {
  std::mt19937_64 random(1);
  return filled_memory(random);
}

std::shared_ptr<FakeFile> make_fake() { return std::make_shared<FakeFile>(storage_bytes()); }

std::shared_ptr<const Layout> layout_on(const std::shared_ptr<FakeFile>& file) {
  return layout_on(std::make_shared<detail::Memory>(file));
}

std::shared_ptr<const Layout> real_disk() {
  return layout_on(DiskAllocator(testing::TempDir()).allocate(storage_bytes()).value().memory());
}

std::vector<std::byte> block_of(const Layout& layout, BlockId id) {
  const std::byte* begin = layout.extent(id).data();
  return {begin, begin + kConfig.block_bytes()};
}

bool is_zero(const Layout& layout, BlockId id) {
  return block_of(layout, id) == std::vector<std::byte>(kConfig.block_bytes());
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

std::shared_ptr<const CopyPlan> plan_of(std::shared_ptr<const Layout> source,
                                        std::shared_ptr<const Layout> target) {
  return CopyPlan::create(std::move(source), std::move(target)).value();
}

TransferResult run(TransferExecutor& executor, TransferRequest request) {
  std::promise<TransferResult> answer;
  executor.submit(std::move(request),
                  [&](TransferResult result) { answer.set_value(std::move(result)); });
  return answer.get_future().get();
}

void expect_code(const Result<TransferToken>& block, ErrorCode code) {
  ASSERT_FALSE(block.has_value());
  EXPECT_EQ(block.error().code, code);
}

std::unique_ptr<FileExecutor> blocking_executor(std::size_t depth = FileExecutor::kDepth) {
  return FileExecutor::create(
             [=]() -> Result<std::unique_ptr<IoQueue>> { return create_blocking_queue(depth); })
      .value();
}

// A queue whose requests end when and in the order in which the test says.
class ManualQueue final : public IoQueue {
 public:
  explicit ManualQueue(std::size_t depth) : IoQueue(depth, "by hand") {}

  void push(IoRequest request) override {
    pushed_.push_back(std::move(request));
    ++in_flight_;
  }
  void poll(Wait wait, std::vector<IoDone>& done) override {
    MutexLock lock(mutex_);
    for (const IoRequest& request : pushed_) begun_.push_back(request);
    pushed_.clear();
    changed_.notify_all();
    while (wait == Wait::ForOne && answers_.empty() && !woken_) changed_.wait(mutex_);
    woken_ = false;
    in_flight_ -= answers_.size();
    for (IoDone& answer : answers_) done.push_back(std::move(answer));
    answers_.clear();
  }
  void wake() override {
    MutexLock lock(mutex_);
    woken_ = true;
    changed_.notify_all();
  }

  // Waits until so many requests have begun in all.
  std::vector<IoRequest> begun(std::size_t count) {
    MutexLock lock(mutex_);
    while (begun_.size() < count) changed_.wait(mutex_);
    return begun_;
  }
  std::size_t begun_now() {
    MutexLock lock(mutex_);
    return begun_.size();
  }
  void end(std::uint64_t tag, Result<void> result = {}) {
    MutexLock lock(mutex_);
    answers_.push_back({tag, std::move(result)});
    changed_.notify_all();
  }

 private:
  std::vector<IoRequest> pushed_;  // the owner's
  Mutex mutex_;
  CondVar changed_;
  std::vector<IoRequest> begun_ KVBM_GUARDED_BY(mutex_);
  std::vector<IoDone> answers_ KVBM_GUARDED_BY(mutex_);
  bool woken_ KVBM_GUARDED_BY(mutex_) = false;
};

struct Manual {
  explicit Manual(std::size_t depth) {
    executor = FileExecutor::create([&]() -> Result<std::unique_ptr<IoQueue>> {
                 auto made = std::make_unique<ManualQueue>(depth);
                 queue = made.get();
                 return std::unique_ptr<IoQueue>(std::move(made));
               }).value();
  }
  ManualQueue* queue = nullptr;
  std::unique_ptr<FileExecutor> executor;
};

std::vector<BlockCopy> copies(BlockId first, std::size_t count) {
  std::vector<BlockCopy> blocks;
  for (BlockId id = first; id < first + count; ++id) blocks.push_back({id, id, {}});
  return blocks;
}

std::vector<BlockId> blocks_begun(const std::vector<IoRequest>& requests) {
  std::vector<BlockId> ids;
  for (const IoRequest& request : requests) {
    ids.push_back(static_cast<BlockId>(request.offset / kUnit));
  }
  return ids;
}

// The round trip through a real file; `uring` where the kernel has it.
class FileExecutorRoundTripTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Blocking, FileExecutorRoundTripTest, testing::Values("blocking"));
INSTANTIATE_TEST_SUITE_P(Uring, FileExecutorRoundTripTest, testing::Values("uring"));

TEST_P(FileExecutorRoundTripTest, BlocksComeBackWithTheirSums) {
  const std::uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto source = filled_memory(random);
  const auto disk = real_disk();
  const auto back = filled_memory(random);
  const bool uring = GetParam() == std::string("uring");
  auto executor = FileExecutor::create([&] {
    return uring ? create_probed_uring_queue(7, *disk->memory(0).file())
                 : Result<std::unique_ptr<IoQueue>>(create_blocking_queue(7));
  });
  if (!executor) GTEST_SKIP() << executor.error().to_string();
  EXPECT_EQ((*executor)->description(),
            uring ? "io_uring, 7 requests deep" : "blocking reads and writes");

  std::vector<BlockCopy> out;  // block i to place (i + 5) % n
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    const auto place = static_cast<BlockId>((id + 5) % kConfig.num_blocks);
    out.push_back({id, place, sum_block(*source, id).value()});
  }
  const TransferResult written = run(**executor, {plan_of(source, disk), out});
  std::vector<BlockCopy> home;
  for (const BlockCopy& copy : out) {
    const TransferToken& token = written.blocks[copy.source].value();
    EXPECT_EQ(token.payload_sum(), copy.payload_sum);
    EXPECT_EQ(token.target(), copy.target);
    EXPECT_EQ(token.target_layout(), disk.get());
    home.push_back({copy.target, copy.source, token.payload_sum()});
  }
  const TransferResult read =
      run(**executor, {plan_of(disk, back), home, TransferPriority::Onboard});
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    ASSERT_EQ(read.blocks[id].value().payload_sum(), sum_block(*source, id).value());
    ASSERT_EQ(block_of(*source, id), block_of(*back, id)) << "block " << id;
  }
  EXPECT_GT(read.busy.count(), 0);
}

TEST(FileExecutorTest, AWriteWithoutASumIsSummed) {
  const auto executor = blocking_executor();
  const auto source = filled_memory();
  const TransferResult result =
      run(*executor, {plan_of(source, layout_on(make_fake())), {{3, 4, {}}}});
  EXPECT_EQ(result.blocks[0].value().payload_sum(), sum_block(*source, 3).value());
}

TEST(FileExecutorTest, ARequestWithoutBlocksIsAnswered) {
  const auto executor = blocking_executor();
  EXPECT_TRUE(
      run(*executor, {plan_of(filled_memory(), layout_on(make_fake())), {}}).blocks.empty());
}

TEST(FileExecutorTest, AQueueThatCannotBeMadeIsTold) {
  const auto executor = FileExecutor::create([]() -> Result<std::unique_ptr<IoQueue>> {
    return Error{ErrorCode::OperationFailed, ENOSYS, 0, 0, "no queue"};
  });
  ASSERT_FALSE(executor.has_value());
  EXPECT_EQ(executor.error().native, ENOSYS);
  EXPECT_EQ(executor.error().message, "no queue");
}

TEST(FileExecutorTest, AReadThatFailsConcernsItsBlockAloneAndLeavesZeros) {
  const auto memory = filled_memory();
  const auto file = make_fake();
  const auto disk = layout_on(file);
  const auto executor = blocking_executor();
  std::vector<BlockCopy> blocks = copies(0, 4);
  const TransferResult written = run(*executor, {plan_of(memory, disk), blocks});
  for (std::size_t i = 0; i < 4; ++i) {
    blocks[i].payload_sum = written.blocks[i].value().payload_sum();
  }
  file->set_hook([](const FakeFile::Call& call) {
    switch (call.number) {
      case 0: return FakeFile::fails(EIO);
      case 1: return FakeFile::stops_after(100);
      case 2: return FakeFile::flips(17);
      default: return FakeFile::Fault{};
    }
  });
  std::mt19937_64 random(2);
  const auto back = filled_memory(random);
  const TransferResult read =
      run(*executor, {plan_of(disk, back), blocks, TransferPriority::Onboard});
  expect_code(read.blocks[0], ErrorCode::OperationFailed);
  EXPECT_EQ(read.blocks[0].error().native, EIO);
  expect_code(read.blocks[1], ErrorCode::OperationFailed);
  EXPECT_EQ(read.blocks[1].error().available, 100u);
  expect_code(read.blocks[2], ErrorCode::ChecksumMismatch);
  for (BlockId id = 0; id < 3; ++id) EXPECT_TRUE(is_zero(*back, id)) << "block " << id;
  EXPECT_TRUE(read.blocks[3].has_value());
  EXPECT_EQ(block_of(*memory, 3), block_of(*back, 3));
}

TEST(FileExecutorTest, AWriteThatFailsLeavesItsSourceAlone) {
  const auto memory = filled_memory();
  const auto before = block_of(*memory, 0);
  const auto file = make_fake();
  file->set_hook([](const FakeFile::Call&) { return FakeFile::fails(ENOSPC); });
  const auto executor = blocking_executor();
  const TransferResult written = run(*executor, {plan_of(memory, layout_on(file)), {{0, 0, {}}}});
  expect_code(written.blocks[0], ErrorCode::OperationFailed);
  EXPECT_EQ(written.blocks[0].error().native, ENOSPC);
  EXPECT_EQ(block_of(*memory, 0), before);
}

TEST(FileExecutorTest, BlocksThatCannotMoveSoAreRefusedOneByOne) {
  const auto memory = filled_memory();
  const auto disk = layout_on(make_fake());
  const auto executor = blocking_executor();
  const TransferResult mixed = run(*executor, {plan_of(memory, disk), {{0, 64, {}}, {1, 1, {}}}});
  expect_code(mixed.blocks[0], ErrorCode::InvalidBlockIndex);
  EXPECT_TRUE(mixed.blocks[1].has_value());
  std::mt19937_64 random(2);
  const TransferResult memories =
      run(*executor, {plan_of(memory, filled_memory(random)), {{0, 0, {}}}});
  expect_code(memories.blocks[0], ErrorCode::NotAccessible);
}

TEST(FileExecutorTest, TheQueueIsKeptFullAcrossTransfers) {
  Manual manual(4);
  const auto source = filled_memory();
  const auto disk = layout_on(make_fake());
  std::atomic<bool> first = false;
  std::promise<void> second;
  manual.executor->submit({plan_of(source, disk), copies(0, 3)},
                          [&](TransferResult) { first = true; });
  manual.executor->submit({plan_of(source, disk), copies(10, 3)},
                          [&](TransferResult) { second.set_value(); });
  auto begun = manual.queue->begun(4);
  EXPECT_EQ(blocks_begun(begun), (std::vector<BlockId>{0, 1, 2, 10}));
  // Out of order; each end makes room for one more.
  manual.queue->end(begun[3].tag);
  begun = manual.queue->begun(5);
  EXPECT_EQ(blocks_begun(begun).back(), 11u);
  manual.queue->end(begun[1].tag);
  begun = manual.queue->begun(6);
  EXPECT_EQ(blocks_begun(begun).back(), 12u);
  manual.queue->end(begun[4].tag);
  manual.queue->end(begun[5].tag);
  second.get_future().get();  // before the first, of which two blocks still move
  EXPECT_FALSE(first);
  manual.queue->end(begun[0].tag);
  EXPECT_FALSE(first);
  manual.queue->end(begun[2].tag);
  manual.executor.reset();
  EXPECT_TRUE(first);
}

TEST(FileExecutorTest, OnboardingBlocksGoBeforeOffloadingOnes) {
  Manual manual(2);
  const auto memory = filled_memory();
  const auto disk = layout_on(make_fake());
  manual.executor->submit({plan_of(memory, disk), copies(0, 4)}, [](TransferResult) {});
  auto begun = manual.queue->begun(2);
  manual.executor->submit({plan_of(disk, memory), copies(20, 2), TransferPriority::Onboard},
                          [](TransferResult) {});
  for (std::size_t i = 0; i < 6; ++i) {
    begun = manual.queue->begun(std::min<std::size_t>(i + 2, 6));
    manual.queue->end(begun[i].tag);
  }
  EXPECT_EQ(blocks_begun(begun), (std::vector<BlockId>{0, 1, 20, 21, 2, 3}));
}

TEST(FileExecutorTest, BlocksThatHaveNotBegunAreCancelled) {
  Manual manual(2);
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  std::promise<TransferResult> answer;
  manual.executor->submit({plan_of(filled_memory(), layout_on(make_fake())), copies(0, 5),
                           TransferPriority::Offload, cancelled},
                          [&](TransferResult result) { answer.set_value(std::move(result)); });
  const auto begun = manual.queue->begun(2);
  cancelled->store(true);
  auto result = answer.get_future();
  manual.queue->end(begun[0].tag);
  manual.queue->end(begun[1].tag);
  const TransferResult got = result.get();
  ASSERT_EQ(got.blocks.size(), 5u);
  EXPECT_TRUE(got.blocks[0].has_value());
  EXPECT_TRUE(got.blocks[1].has_value()) << "a block that has begun is finished";
  for (std::size_t i = 2; i < 5; ++i) expect_code(got.blocks[i], ErrorCode::Cancelled);
  EXPECT_EQ(manual.queue->begun_now(), 2u);
}

// Blocks of so many bytes, without padding between them.
struct Dense {
  Dense(std::size_t block_bytes, std::size_t num_blocks) {
    const LayoutConfig config{.num_blocks = num_blocks,
                              .num_layers = 1,
                              .outer_dim = 1,
                              .page_size = block_bytes / kUnit,
                              .inner_dim = kUnit,
                              .dtype = DType::INT8,
                              .alignment = kUnit};
    const std::size_t bytes = block_bytes * num_blocks;
    const auto storage = SystemAllocator().allocate(bytes).value().memory();
    memory = Layout::create(kType, config, {storage}).value();
    disk =
        Layout::create(kType, config,
                       {std::make_shared<detail::Memory>(std::make_shared<FakeFile>(bytes, kUnit))})
            .value();
  }
  std::shared_ptr<const Layout> memory;
  std::shared_ptr<const Layout> disk;
};

// What each request moves, as "first block of the file * blocks".
std::vector<std::string> moves_of(const Dense& dense, const std::vector<IoRequest>& requests) {
  const std::size_t bytes = dense.disk->config().block_bytes();
  std::vector<std::string> moves;
  for (const IoRequest& request : requests) {
    moves.push_back(std::to_string(request.offset / bytes) + " * " +
                    std::to_string(request.memory.size()));
  }
  return moves;
}

TEST(FileExecutorTest, NeighboursInATransferAndInItsFileAreOneRequest) {
  const Dense dense(kUnit, 32);
  Manual manual(16);
  // Where a block lies in memory does not matter.
  manual.executor->submit({plan_of(dense.memory, dense.disk),
                           {{9, 4, 0}, {1, 5, 0}, {2, 6, 0}, {3, 9, 0}, {4, 8, 0}, {5, 9, 0}}},
                          [](TransferResult) {});
  manual.executor->submit({plan_of(dense.memory, dense.disk), {{10, 10, 0}, {11, 11, 0}}},
                          [](TransferResult) {});
  const auto begun = manual.queue->begun(4);
  EXPECT_EQ(moves_of(dense, begun),
            (std::vector<std::string>{"4 * 3", "9 * 1", "8 * 2", "10 * 2"}));
  for (std::size_t run = 0; run < 3; ++run) {
    const BlockId source = run == 0 ? 9 : static_cast<BlockId>(run);
    EXPECT_EQ(begun[0].memory[run].data(), dense.memory->extent(source).data());
    EXPECT_EQ(begun[0].memory[run].size(), kUnit);
  }
  for (const IoRequest& request : begun) manual.queue->end(request.tag);
}

TEST(FileExecutorTest, ARequestOfManyBlocksIsSmall) {
  const auto moves = [](std::size_t block_bytes, std::size_t num_blocks, std::size_t requests) {
    const Dense dense(block_bytes, num_blocks);
    Manual manual(16);
    std::vector<BlockCopy> blocks = copies(0, num_blocks);
    manual.executor->submit({plan_of(dense.disk, dense.memory), blocks, TransferPriority::Onboard},
                            [](TransferResult) {});
    const auto begun = manual.queue->begun(requests);
    for (const IoRequest& request : begun) manual.queue->end(request.tag);
    return moves_of(dense, begun);
  };
  using Moves = std::vector<std::string>;
  static_assert(FileExecutor::kJoinedBlocks == 64 && FileExecutor::kJoinedBytes == 1 << 20);
  EXPECT_EQ(moves(kUnit, 70, 2), (Moves{"0 * 64", "64 * 6"}));
  EXPECT_EQ(moves(256 << 10, 6, 2), (Moves{"0 * 4", "4 * 2"}));
  EXPECT_EQ(moves(384 << 10, 5, 3), (Moves{"0 * 2", "2 * 2", "4 * 1"}));
  EXPECT_EQ(moves(1 << 20, 2, 2), (Moves{"0 * 1", "1 * 1"}));
}

TEST(FileExecutorTest, ARequestOfManyBlocksThatFailsIsAskedAgainBlockByBlock) {
  const Dense dense(kUnit, 8);
  std::memset(dense.memory->extent(0).data(), 7, 8 * kUnit);
  Manual manual(2);
  std::promise<TransferResult> answer;
  manual.executor->submit({plan_of(dense.disk, dense.memory), copies(1, 3)},
                          [&](TransferResult result) { answer.set_value(std::move(result)); });
  auto begun = manual.queue->begun(1);
  EXPECT_EQ(moves_of(dense, begun).back(), "1 * 3");
  const auto failed = [] { return Error{ErrorCode::OperationFailed, EIO, kUnit, 0, {}}; };
  manual.queue->end(begun[0].tag, failed());
  begun = manual.queue->begun(3);  // as many as the queue is deep
  manual.queue->end(begun[1].tag);
  manual.queue->end(begun[2].tag, failed());
  begun = manual.queue->begun(4);
  manual.queue->end(begun[3].tag);
  const TransferResult result = answer.get_future().get();
  EXPECT_EQ(moves_of(dense, begun), (std::vector<std::string>{"1 * 3", "1 * 1", "2 * 1", "3 * 1"}));
  EXPECT_TRUE(result.blocks[0].has_value());
  expect_code(result.blocks[1], ErrorCode::OperationFailed);
  EXPECT_TRUE(result.blocks[2].has_value());
  for (BlockId id = 1; id < 4; ++id) {
    EXPECT_EQ(*dense.memory->extent(id).data(), std::byte(id == 2 ? 0 : 7)) << "block " << id;
  }
}

// Refuses one block and counts.
class RefusingJournal final : public BlockJournal {
 public:
  Result<void> before_write(const BlockCopy& copy) override {
    ++before;
    if (copy.target != 5) return {};
    return Error{ErrorCode::OperationFailed, ENOSPC, 0, 0, {}};
  }
  Result<void> after_write(const BlockCopy&, std::uint64_t) override {
    ++after;
    return {};
  }
  void write_failed(const BlockCopy&, const Error&) noexcept override { ++failed; }
  void before_read(const BlockCopy&) noexcept override {}
  void after_read(const BlockCopy&, const Result<std::uint64_t>&) noexcept override {}

  int before = 0;
  int after = 0;
  int failed = 0;
};

TEST(FileExecutorTest, ABlockThatTheJournalRefusesPartsItsNeighbours) {
  const Dense dense(kUnit, 8);
  RefusingJournal journal;
  Manual manual(4);
  std::promise<TransferResult> answer;
  manual.executor->submit(
      {.plan = plan_of(dense.memory, dense.disk), .blocks = copies(3, 5), .journal = &journal},
      [&](TransferResult result) { answer.set_value(std::move(result)); });
  auto begun = manual.queue->begun(2);
  EXPECT_EQ(moves_of(dense, begun), (std::vector<std::string>{"3 * 2", "6 * 2"}));
  // Asked again, blocks have not begun again.
  manual.queue->end(begun[1].tag, Error{ErrorCode::OperationFailed, EIO, 0, 0, {}});
  begun = manual.queue->begun(4);
  manual.queue->end(begun[0].tag);
  manual.queue->end(begun[2].tag);
  manual.queue->end(begun[3].tag, Error{ErrorCode::OperationFailed, EIO, 0, 0, {}});
  const TransferResult result = answer.get_future().get();
  EXPECT_EQ(result.blocks[2].error().native, ENOSPC);
  EXPECT_EQ(journal.before, 5);
  EXPECT_EQ(journal.after, 3);
  EXPECT_EQ(journal.failed, 1);
}

TEST(FileExecutorTest, TheBytesInFlightAreBounded) {
  constexpr std::size_t kBlock = std::size_t{16} << 20;
  static_assert(FileExecutor::kMaxBytesInFlight == 3 * kBlock);
  LayoutConfig config = kConfig;
  config.num_blocks = 8;
  config.page_size = 64;
  config.inner_dim = kBlock / 64 / 2 / 2 / 2;
  const auto bytes = config.storage_bytes(kType).value();
  const auto memory =
      Layout::create(kType, config, {SystemAllocator().allocate(bytes).value().memory()}).value();
  const auto file = DiskAllocator("/dev/shm").allocate(bytes);
  if (!file) GTEST_SKIP() << file.error().to_string();
  const auto disk = Layout::create(kType, config, {file->memory()}).value();
  Manual manual(32);
  std::vector<BlockCopy> blocks = copies(0, 8);
  for (BlockCopy& block : blocks) block.payload_sum = 0;
  manual.executor->submit({plan_of(memory, disk), blocks}, [](TransferResult) {});
  for (std::size_t i = 0; i < 8; ++i) {
    const std::size_t expected = std::min<std::size_t>(i + 3, 8);
    const auto begun = manual.queue->begun(expected);
    EXPECT_EQ(manual.queue->begun_now(), expected);
    manual.queue->end(begun[i].tag);
  }
}

TEST(FileExecutorTest, TheDestructorFinishesWhatWasSubmitted) {
  Gate gate;
  const auto file = make_fake();
  file->set_hook([&](const FakeFile::Call&) {
    gate.pass();
    return FakeFile::Fault{};
  });
  const auto source = filled_memory();
  const auto disk = layout_on(file);
  int good = 0;  // the executor's thread writes it
  auto executor = blocking_executor(3);
  for (BlockId id = 0; id < 8; ++id) {
    const auto priority = id % 2 == 0 ? TransferPriority::Onboard : TransferPriority::Offload;
    executor->submit({plan_of(source, disk), copies(id, 2), priority}, [&](TransferResult result) {
      good += result.blocks[0].has_value() && result.blocks[1].has_value();
    });
  }
  std::jthread opener([&] { gate.open(); });
  executor.reset();
  EXPECT_EQ(good, 8);
}

TEST(FileExecutorTest, DoneMaySubmitAgainAlsoWhileTheExecutorGoes) {
  const auto source = filled_memory();
  const auto disk = layout_on(make_fake());
  int left = 10;
  auto executor = blocking_executor();
  FileExecutor* const raw = executor.get();
  TransferExecutor::Done next = [&](TransferResult result) {
    EXPECT_TRUE(result.blocks.empty() || result.blocks[0].has_value());
    // Every other transfer is empty and so answered without the queue.
    if (--left > 0) raw->submit({plan_of(source, disk), copies(0, left % 2)}, next);
  };
  executor->submit({plan_of(source, disk), copies(0, 1)}, next);
  executor.reset();
  EXPECT_EQ(left, 0);
}

TEST(FileExecutorTest, LayoutsLiveUntilTheTransferEnds) {
  Manual manual(1);
  std::weak_ptr<const Layout> source;
  std::promise<void> ended;
  {
    auto layout = filled_memory();
    source = layout;
    manual.executor->submit({plan_of(std::move(layout), layout_on(make_fake())), copies(0, 1)},
                            [&](TransferResult) { ended.set_value(); });
  }
  const auto begun = manual.queue->begun(1);
  EXPECT_FALSE(source.expired());
  manual.queue->end(begun[0].tag);
  ended.get_future().get();
}

}  // namespace
}  // namespace kvbm
