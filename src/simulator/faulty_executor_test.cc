#include "simulator/faulty_executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <future>
#include <random>

#include "physical/transfer/thread_executor.h"
#include "platform/os/fake_file.h"

namespace kvbm::simulator {
namespace {

constexpr std::size_t kBlocks = 400;
constexpr LayoutConfig kShape = {.num_blocks = kBlocks,
                                 .num_layers = 2,
                                 .outer_dim = 2,
                                 .page_size = 4,
                                 .inner_dim = 16,
                                 .dtype = DType::U8};

// Hears what happens to the file.
class CountingJournal final : public BlockJournal {
 public:
  Result<void> before_write(const BlockCopy&) override {
    ++begun;
    return {};
  }
  Result<void> after_write(const BlockCopy&, std::uint64_t) override {
    ++written;
    return {};
  }
  void write_failed(const BlockCopy&, const Error&) noexcept override { ++failed; }
  void before_read(const BlockCopy&) noexcept override { ++begun; }
  void after_read(const BlockCopy&, const Result<std::uint64_t>& sum) noexcept override {
    ++(sum ? written : failed);
  }
  std::atomic<std::size_t> begun = 0, written = 0, failed = 0;
};

std::shared_ptr<const Layout> layout_on(LayoutType type, std::mt19937_64& random) {
  const std::size_t bytes = kShape.storage_bytes(type).value();
  Layout::Memories memories;
  for (std::size_t i = 0; i < kShape.storage_count(type); ++i) {
    auto storage = SystemAllocator().allocate(bytes).value();
    for (std::size_t b = 0; b < bytes; ++b) storage.as_mut_ptr()[b] = std::byte(random());
    memories.push_back(storage.memory());
  }
  return Layout::create(type, kShape, std::move(memories)).value();
}

std::shared_ptr<const Layout> file_layout() {
  const auto type = LayoutType::FullyContiguous;
  auto file = std::make_shared<FakeFile>(kShape.storage_bytes(type).value());
  return Layout::create(type, kShape, {std::make_shared<detail::Memory>(std::move(file))}).value();
}

class FaultyExecutorTest : public testing::Test {
 protected:
  void make(const FaultInjector::Options& options) {
    faults_ = std::make_shared<FaultInjector>(options);
    executor_ = std::make_unique<FaultyExecutor>(ThreadExecutor::create(2).value(), faults_);
  }
  std::shared_ptr<const CopyPlan> plan(Edge edge) const {
    switch (edge) {
      case Edge::DeviceToHost: return CopyPlan::create(device_, host_).value();
      case Edge::HostToDisk: return CopyPlan::create(host_, disk_).value();
      case Edge::DiskToHost: return CopyPlan::create(disk_, host_).value();
      default: return CopyPlan::create(host_, device_).value();
    }
  }
  static TransferPriority priority(Edge edge) {
    const bool up = edge == Edge::DiskToHost || edge == Edge::HostToDevice;
    return up ? TransferPriority::Onboard : TransferPriority::Offload;
  }
  std::future<TransferResult> submit(TransferRequest request) {
    auto promise = std::make_shared<std::promise<TransferResult>>();
    auto answer = promise->get_future();
    executor_->submit(std::move(request), [promise](TransferResult result) {
      promise->set_value(std::move(result));  // throws when it is called twice
    });
    return answer;
  }
  // All blocks over one edge, each to its own number, in one transfer per block.
  std::vector<Result<TransferToken>> move_all(Edge edge) {
    std::vector<std::future<TransferResult>> answers;
    for (BlockId id = 0; id < kBlocks; ++id) {
      std::optional<std::uint64_t> sum;
      if (priority(edge) == TransferPriority::Onboard) sum = sums_[id];
      answers.push_back(submit({.plan = plan(edge),
                                .blocks = {{id, id, sum}},
                                .priority = priority(edge),
                                .journal = &journal_}));
    }
    std::vector<Result<TransferToken>> moved;
    for (auto& answer : answers) moved.push_back(std::move(answer.get().blocks.front()));
    return moved;
  }
  // What all blocks of the device are, in the tiers below.
  void fill_tiers() {
    make({});
    const auto moved = move_all(Edge::DeviceToHost);
    for (BlockId id = 0; id < kBlocks; ++id) sums_[id] = moved[id].value().payload_sum();
    move_all(Edge::HostToDisk);
  }
  std::uint64_t count(FaultKind kind, Edge edge) const {
    return faults_->counts()[static_cast<std::size_t>(kind)][static_cast<std::size_t>(edge)];
  }

  std::mt19937_64 random_{1};
  std::shared_ptr<const Layout> device_ =
      layout_on(LayoutType::LayerSeparateBlockContiguous, random_);
  std::shared_ptr<const Layout> host_ = layout_on(LayoutType::FullyContiguous, random_);
  std::shared_ptr<const Layout> disk_ = file_layout();
  std::array<std::uint64_t, kBlocks> sums_{};
  CountingJournal journal_;
  std::shared_ptr<FaultInjector> faults_;
  std::unique_ptr<FaultyExecutor> executor_;
};

TEST_F(FaultyExecutorTest, WithoutARateNothingGoesWrong) {
  fill_tiers();
  for (const Edge edge : {Edge::DiskToHost, Edge::HostToDevice}) {
    for (const auto& moved : move_all(edge)) EXPECT_TRUE(moved);
  }
  EXPECT_EQ(faults_->total(), 0u);
}

// Each fault is found by who asks for the block next, at the latest.
TEST_F(FaultyExecutorTest, EveryFaultIsAnErrorOrFoundByTheSums) {
  fill_tiers();
  for (const Edge edge :
       {Edge::DeviceToHost, Edge::HostToDisk, Edge::DiskToHost, Edge::HostToDevice}) {
    SCOPED_TRACE(to_string(edge));
    make({.seed = 7, .rate = 0.5, .never = std::chrono::microseconds(10)});
    const auto moved = move_all(edge);
    std::uint64_t errors = 0;
    std::uint64_t mismatches = 0;
    std::uint64_t full = 0;
    for (const auto& block : moved) {
      if (block) continue;
      ++errors;
      if (block.error().code == ErrorCode::ChecksumMismatch) ++mismatches;
      if (block.error().native == ENOSPC) ++full;
    }
    const std::uint64_t wrong = count(FaultKind::WrongBytes, edge);
    EXPECT_GT(wrong, kBlocks / 20);
    for (const FaultKind kind :
         {FaultKind::Error, FaultKind::Short, FaultKind::Late, FaultKind::Never}) {
      EXPECT_GT(count(kind, edge), 0u) << to_string(kind);
    }
    EXPECT_EQ(full, count(FaultKind::DiskFull, edge));
    EXPECT_EQ(full > 0, edge == Edge::HostToDisk);
    EXPECT_EQ(errors - mismatches, count(FaultKind::Error, edge) + count(FaultKind::Short, edge) +
                                       count(FaultKind::DiskFull, edge));
    const bool is_read = priority(edge) == TransferPriority::Onboard;
    EXPECT_EQ(mismatches, is_read ? wrong : 0);

    make({});
    if (edge == Edge::DeviceToHost) {  // what went wrong on the way down shows on the way up
      for (BlockId id = 0; id < kBlocks; ++id) {
        const bool is_wrong = moved[id] && sum_block(*host_, id).value() != sums_[id];
        mismatches += is_wrong ? 1 : 0;
      }
      EXPECT_EQ(mismatches, wrong);
    } else if (edge == Edge::HostToDisk) {
      const auto read = move_all(Edge::DiskToHost);
      for (BlockId id = 0; id < kBlocks; ++id) mismatches += moved[id] && !read[id] ? 1 : 0;
      EXPECT_EQ(mismatches, wrong);
    }
    fill_tiers();
  }
}

TEST_F(FaultyExecutorTest, TheJournalHearsOfEveryEnd) {
  fill_tiers();
  make({.seed = 3, .rate = 1});
  move_all(Edge::HostToDisk);
  move_all(Edge::DiskToHost);
  EXPECT_GT(journal_.failed, kBlocks / 2);
  EXPECT_EQ(journal_.begun, journal_.written + journal_.failed);
}

TEST_F(FaultyExecutorTest, TheSeedDecides) {
  const auto drawn = [](std::uint64_t seed) {
    FaultInjector faults({.seed = seed, .rate = 0.3});
    std::vector<std::optional<FaultKind>> kinds;
    for (BlockId id = 0; id < 200; ++id) {
      const auto fault = faults.draw(Edge::HostToDisk, id % 50);
      kinds.push_back(fault ? std::optional(fault->kind) : std::nullopt);
    }
    return kinds;
  };
  EXPECT_EQ(drawn(1), drawn(1));
  EXPECT_NE(drawn(1), drawn(2));
  // The order of targets does not.
  FaultInjector forth({.seed = 5, .rate = 0.3});
  FaultInjector back({.seed = 5, .rate = 0.3});
  std::vector<bool> first, second;
  for (BlockId id = 0; id < 100; ++id)
    first.push_back(forth.draw(Edge::DiskToHost, id).has_value());
  for (BlockId id = 100; id-- > 0;) second.push_back(back.draw(Edge::DiskToHost, id).has_value());
  std::reverse(second.begin(), second.end());
  EXPECT_EQ(first, second);
}

// A target whose copy would never end, with this seed.
BlockId hanging_target(std::uint64_t seed) {
  FaultInjector faults({.seed = seed, .rate = 1});
  for (BlockId id = 0; id < kBlocks; ++id) {
    if (faults.draw(Edge::DeviceToHost, id)->kind == FaultKind::Never) return id;
  }
  return kNoBlock;
}

TEST_F(FaultyExecutorTest, NeverEndsWhenItIsCancelled) {
  make({.seed = 1, .rate = 1, .never = std::chrono::hours(1)});
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  auto answer = submit({.plan = plan(Edge::DeviceToHost),
                        .blocks = {{0, hanging_target(1), std::nullopt}},
                        .cancelled = cancelled});
  EXPECT_EQ(answer.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  cancelled->store(true);
  EXPECT_EQ(answer.get().blocks.front().error().code, ErrorCode::Cancelled);
}

TEST_F(FaultyExecutorTest, NeverEndsWithTheExecutor) {
  make({.seed = 1, .rate = 1, .never = std::chrono::hours(1)});
  auto answer =
      submit({.plan = plan(Edge::DeviceToHost), .blocks = {{0, hanging_target(1), std::nullopt}}});
  executor_.reset();
  EXPECT_TRUE(answer.get().blocks.front());
  EXPECT_EQ(count(FaultKind::Never, Edge::DeviceToHost), 1u);
}

}  // namespace
}  // namespace kvbm::simulator
