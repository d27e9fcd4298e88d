// Files that fail inside the kernel, under the path that production uses: io_uring.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <vector>

#include "physical/transfer/file_executor.h"
#include "tests/fault/faulty_files.h"

namespace kvbm::fault {
namespace {

constexpr std::size_t kBlockBytes = 16384;
constexpr LayoutConfig kConfig = {.num_blocks = 16,
                                  .num_layers = 2,
                                  .outer_dim = 2,
                                  .page_size = 4,
                                  .inner_dim = 512,
                                  .dtype = DType::FP16,
                                  .alignment = 4096};
constexpr auto kType = LayoutType::FullyContiguous;

std::size_t storage_bytes() { return kConfig.storage_bytes(kType).value(); }

std::shared_ptr<const Layout> layout_on(std::shared_ptr<detail::Memory> memory) {
  return Layout::create(kType, kConfig, {std::move(memory)}).value();
}

std::shared_ptr<const Layout> filled_memory(int seed) {
  auto storage = SystemAllocator().allocate(storage_bytes()).value();
  for (std::size_t i = 0; i < storage.size(); ++i) {
    storage.as_mut_ptr()[i] = std::byte((i * 31 + i / kBlockBytes) % 251 + std::size_t(seed));
  }
  return layout_on(storage.memory());
}

std::shared_ptr<const CopyPlan> plan_of(const std::shared_ptr<const Layout>& source,
                                        const std::shared_ptr<const Layout>& target) {
  return CopyPlan::create(source, target).value();
}

bool same_block(const Layout& a, const Layout& b, BlockId id) {
  return std::memcmp(a.extent(id).data(), b.extent(id).data(), kBlockBytes) == 0;
}

bool is_zero(const Layout& layout, BlockId id) {
  const std::vector<std::byte> zeros(kBlockBytes);
  return std::memcmp(layout.extent(id).data(), zeros.data(), kBlockBytes) == 0;
}

class FileExecutorFaultTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    files_ = FaultyFiles::mount(reason);
    if (!files_) GTEST_SKIP() << reason;
    source_ = filled_memory(1);
    target_ = filled_memory(5);
  }

  // A file with room for all blocks, which then has this fault.
  std::shared_ptr<const Layout> file(const Fault& fault, const std::string& name = "file") {
    auto file = open_file(files_->folder() + "/" + name, {.create = true}).value();
    EXPECT_TRUE(file->resize(storage_bytes()).has_value());
    files_->set(name, fault);
    return layout_on(std::make_shared<detail::Memory>(std::move(file)));
  }

  std::unique_ptr<FileExecutor> executor() {
    auto made = FileExecutor::create([] { return create_uring_queue(8); });
    EXPECT_TRUE(made.has_value()) << made.error().to_string();
    return std::move(*made);
  }

  static std::future<TransferResult> submit(FileExecutor& executor,
                                            const std::shared_ptr<const CopyPlan>& plan,
                                            std::vector<BlockCopy> blocks) {
    auto answer = std::make_shared<std::promise<TransferResult>>();
    executor.submit({plan, std::move(blocks)},
                    [answer](TransferResult result) { answer->set_value(std::move(result)); });
    return answer->get_future();
  }

  // Writes all blocks to the file; gives what is to be read back.
  std::vector<BlockCopy> write_all(FileExecutor& executor,
                                   const std::shared_ptr<const Layout>& disk) {
    std::vector<BlockCopy> blocks;
    for (BlockId id = 0; id < kConfig.num_blocks; ++id) blocks.push_back({id, id, {}});
    const auto written = submit(executor, plan_of(source_, disk), blocks).get();
    for (BlockCopy& copy : blocks) {
      EXPECT_TRUE(written.blocks[copy.source].has_value())
          << written.blocks[copy.source].error().to_string();
      copy.payload_sum = sum_block(*source_, copy.source).value();
    }
    return blocks;
  }

  void expect_failed(const Result<TransferToken>& block, ErrorCode code, std::int32_t native,
                     std::uint64_t moved) {
    ASSERT_FALSE(block.has_value());
    EXPECT_EQ(block.error().code, code) << block.error().to_string();
    EXPECT_EQ(block.error().native, native) << block.error().to_string();
    EXPECT_EQ(block.error().available, moved) << block.error().to_string();
  }

  std::unique_ptr<FaultyFiles> files_;
  std::shared_ptr<const Layout> source_;
  std::shared_ptr<const Layout> target_;
};

TEST_F(FileExecutorFaultTest, ShortReadsAreContinued) {
  const auto disk = file({.longest_read = 4096});
  const auto own = executor();
  const auto blocks = write_all(*own, disk);
  const auto read = submit(*own, plan_of(disk, target_), blocks).get();
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    ASSERT_TRUE(read.blocks[id].has_value()) << read.blocks[id].error().to_string();
    ASSERT_TRUE(same_block(*source_, *target_, id));
  }
}

TEST_F(FileExecutorFaultTest, AReadThatEndsEarlyLeavesZeros) {
  const auto disk = file({.longest_read = 4096, .readable_unit = kBlockBytes});
  const auto own = executor();
  const auto blocks = write_all(*own, disk);
  const auto read = submit(*own, plan_of(disk, target_), blocks).get();
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    expect_failed(read.blocks[id], ErrorCode::OperationFailed, 0, 4096);
    EXPECT_TRUE(is_zero(*target_, id));
  }
}

TEST_F(FileExecutorFaultTest, AnIoErrorIsToldAndLeavesZeros) {
  const auto disk = file({.read_error = EIO, .write_error = EIO});
  const auto own = executor();
  const auto written = submit(*own, plan_of(source_, disk), {{0, 0, {}}}).get();
  expect_failed(written.blocks[0], ErrorCode::OperationFailed, EIO, 0);
  const auto read = submit(*own, plan_of(disk, target_), {{1, 1, {}}}).get();
  expect_failed(read.blocks[0], ErrorCode::OperationFailed, EIO, 0);
  EXPECT_TRUE(is_zero(*target_, 1));
}

// All blocks are one request, of which the kernel moves a part.
TEST_F(FileExecutorFaultTest, ABadSpotConcernsItsBlockAlone) {
  constexpr BlockId kBad = 3;
  const auto disk = file({.read_error = EIO, .write_error = EIO, .spot = 50000});
  const auto own = executor();
  std::vector<BlockCopy> blocks;
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    blocks.push_back({id, id, sum_block(*source_, id).value()});
  }
  const auto written = submit(*own, plan_of(source_, disk), blocks).get();
  const auto read = submit(*own, plan_of(disk, target_), blocks).get();
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    if (id == kBad) {
      expect_failed(written.blocks[id], ErrorCode::OperationFailed, EIO, 0);
      expect_failed(read.blocks[id], ErrorCode::OperationFailed, EIO, 0);
      EXPECT_TRUE(is_zero(*target_, id));
      continue;
    }
    ASSERT_TRUE(written.blocks[id].has_value()) << written.blocks[id].error().to_string();
    ASSERT_TRUE(read.blocks[id].has_value()) << read.blocks[id].error().to_string();
    EXPECT_TRUE(same_block(*source_, *target_, id));
  }
}

TEST_F(FileExecutorFaultTest, AFullDiskIsTold) {
  const auto disk = file({.write_error = ENOSPC});
  const auto own = executor();
  const auto written = submit(*own, plan_of(source_, disk), {{0, 0, {}}, {1, 1, {}}}).get();
  for (const auto& block : written.blocks) {
    expect_failed(block, ErrorCode::OperationFailed, ENOSPC, 0);
  }
}

TEST_F(FileExecutorFaultTest, AFlippedBitIsFoundAndLeavesZeros) {
  const auto disk = file({.flipped_unit = kBlockBytes});
  const auto own = executor();
  const auto blocks = write_all(*own, disk);
  const auto read = submit(*own, plan_of(disk, target_), blocks).get();
  for (BlockId id = 0; id < kConfig.num_blocks; ++id) {
    expect_failed(read.blocks[id], ErrorCode::ChecksumMismatch, 0, 0);
    EXPECT_TRUE(is_zero(*target_, id));
  }
}

TEST_F(FileExecutorFaultTest, ASlowFileHoldsUpNobody) {
  const auto slow = file({}, "slow");
  const auto good = file({}, "good");
  const auto own = executor();
  const auto slow_blocks = write_all(*own, slow);
  files_->set("slow", {.waits = true});
  const auto other = filled_memory(9);
  auto waits = submit(*own, plan_of(slow, target_), {slow_blocks[1], slow_blocks[2]});
  const auto read = submit(*own, plan_of(good, other), {{1, 1, {}}}).get();
  files_->set("slow", {});
  EXPECT_TRUE(read.blocks[0].has_value());
  const auto late = waits.get();
  EXPECT_TRUE(late.blocks[0].has_value() && late.blocks[1].has_value());
  EXPECT_TRUE(same_block(*source_, *target_, 1));
}

}  // namespace
}  // namespace kvbm::fault
