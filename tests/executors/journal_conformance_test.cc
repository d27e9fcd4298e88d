// What every executor that moves blocks to or from files tells a journal, and what a journal's
// answers do. The blocks of a request are neighbours in the file, so that executors which join
// neighbours do.
//
// KVBM_SEED repeats a run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>

#include "executors/executor_fixture.h"

namespace kvbm {
namespace {

using testing::ElementsAre;

// Remembers the calls by the file's block, such as {"before_write", "after_write 17"}.
class RecordingJournal final : public BlockJournal {
 public:
  explicit RecordingJournal(bool writes) : writes_(writes) {}

  Result<void> before_write(const BlockCopy& copy) override {
    note(copy, "before_write");
    return refuses_before == copy.target ? refusal() : Result<void>();
  }
  Result<void> after_write(const BlockCopy& copy, std::uint64_t payload_sum) override {
    note(copy, "after_write", " " + std::to_string(payload_sum));
    return refuses_after == copy.target ? refusal() : Result<void>();
  }
  void write_failed(const BlockCopy& copy, const Error& error) noexcept override {
    note(copy, "write_failed", std::string(" ") + to_string(error.code));
  }
  void before_read(const BlockCopy& copy) noexcept override { note(copy, "before_read"); }
  void after_read(const BlockCopy& copy,
                  const Result<std::uint64_t>& payload_sum) noexcept override {
    note(copy, payload_sum ? "after_read" : "read_failed",
         " " + (payload_sum ? std::to_string(*payload_sum) : to_string(payload_sum.error().code)));
  }

  const std::vector<std::string>& calls(BlockId in_file) { return calls_[in_file]; }
  std::size_t blocks() const { return calls_.size(); }

  std::optional<BlockId> refuses_before;
  std::optional<BlockId> refuses_after;
  std::function<void(const std::string& call, const BlockCopy& copy)> look = [](auto&&...) {};

 private:
  static Result<void> refusal() {
    return Error{ErrorCode::OperationFailed, ENOSPC, 0, 0, "the journal"};
  }
  void note(const BlockCopy& copy, const std::string& call, const std::string& detail = {}) {
    calls_[writes_ ? copy.target : copy.source].push_back(call + detail);
    look(call, copy);
  }

  bool writes_;
  std::map<BlockId, std::vector<std::string>> calls_;  // of one request, hence of one thread
};

// Neither reads nor writes.
class BrokenFile final : public File {
 public:
  explicit BrokenFile(std::size_t bytes) : bytes_(bytes) {}
  Result<void> read(std::span<std::byte>, std::uint64_t) override { return broken(); }
  Result<void> write(std::span<const std::byte>, std::uint64_t) override { return broken(); }
  Result<void> sync() override { return broken(); }
  Result<void> resize(std::uint64_t) override { return broken(); }
  std::uint64_t size() const noexcept override { return bytes_; }
  bool is_removed() const noexcept override { return false; }
  std::size_t io_alignment() const noexcept override { return 4096; }
  int descriptor() const noexcept override { return -1; }
  const std::string& description() const noexcept override { return description_; }

 private:
  static Result<void> broken() { return Error{ErrorCode::OperationFailed, EBADF, 0, 0, {}}; }

  std::size_t bytes_;
  std::string description_ = "a broken file";
};

Backing broken_backing() {
  return {.make =
              [](std::size_t bytes) {
                return std::make_shared<detail::Memory>(
                    std::make_shared<BrokenFile>((bytes + 4095) / 4096 * 4096));
              },
          .read = [](const detail::Memory& memory) { return Bytes(memory.bytes()); },
          .write = [](const detail::Memory&, const Bytes&) {}};
}

bool same_block(const Place& a, const Bytes& in_a, BlockId block_a, const Place& b,
                const Bytes& in_b, BlockId block_b) {
  const Region from = a.layout()->extent(block_a);
  const Region to = b.layout()->extent(block_b);
  return std::ranges::equal(std::span(in_a).subspan(from.offset, from.bytes),
                            std::span(in_b).subspan(to.offset, to.bytes));
}

class JournalTest : public ExecutorFixture {
 protected:
  enum class Files : std::uint8_t { Working, Broken };

  // Calls test(writes, source, target, plan) for each way to or from a file.
  template <class Test>
  void for_each_way(Test test, Files files = Files::Working) {
    const Content content{"MLA in 8 bits, 656 bytes a token", 2, 1, 1, 16, 656};
    for (const auto& [from, to] : GetParam().pairs) {
      if (from != Kind::File && to != Kind::File) continue;
      SCOPED_TRACE("KVBM_SEED=" + std::to_string(seed_of_run()) + ", from " + name_of(from) +
                   " to " + name_of(to));
      const auto make = [&](Kind kind) {
        return files == Files::Broken && kind == Kind::File
                   ? Place(content, Shape::Contiguous, broken_backing(), random_)
                   : place(content, kind, Shape::Contiguous);
      };
      Place source = make(from);
      Place target = make(to);
      test(to == Kind::File, source, target,
           CopyPlan::create(source.layout(), target.layout()).value());
      if (testing::Test::HasFatalFailure()) return;
    }
  }

  static std::uint64_t sum_of(const Place& source, BlockId block) {
    return source.sum(block, 0, source.layout()->content()->regions().size() - 1);
  }

  std::vector<BlockCopy> blocks_ = {{1, 2, {}}, {2, 3, {}}, {3, 4, {}}};
};

void expect_answer(const Result<TransferToken>& block, std::int32_t native) {
  ASSERT_FALSE(block.has_value());
  EXPECT_EQ(block.error().code, ErrorCode::OperationFailed) << block.error().to_string();
  EXPECT_EQ(block.error().native, native) << block.error().to_string();
}

TEST_P(JournalTest, IsToldBeforeTheFirstByteAndAfterTheLast) {
  for_each_way([&](bool writes, Place& source, Place& target, const auto& plan) {
    RecordingJournal journal(writes);
    const Bytes before = target.bytes();
    const bool seen = !target.layout()->memory(0).data() == writes;  // no device's
    journal.look = [&](const std::string& call, const BlockCopy& copy) {
      if (!seen) return;
      const Bytes now = target.bytes();
      if (call.starts_with("before")) {
        EXPECT_TRUE(same_block(target, now, copy.target, target, before, copy.target)) << call;
      } else {
        EXPECT_TRUE(same_block(target, now, copy.target, source, source.expected(), copy.source))
            << call;
      }
    };
    const TransferResult result = run({.plan = plan, .blocks = blocks_, .journal = &journal});
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      ASSERT_TRUE(result.blocks[i].has_value()) << result.blocks[i].error().to_string();
      const std::string sum = std::to_string(sum_of(source, blocks_[i].source));
      if (writes) {
        EXPECT_THAT(journal.calls(blocks_[i].target),
                    ElementsAre("before_write", "after_write " + sum));
      } else {
        EXPECT_THAT(journal.calls(blocks_[i].source),
                    ElementsAre("before_read", "after_read " + sum));
      }
    }
    EXPECT_EQ(journal.blocks(), 3u);
  });
}

TEST_P(JournalTest, ARefusalBeforeAWriteKeepsTheBlockAsItWas) {
  for_each_way([&](bool writes, Place& source, Place& target, const auto& plan) {
    if (!writes) return;
    RecordingJournal journal(writes);
    journal.refuses_before = 3;
    const Bytes before = target.bytes();
    const TransferResult result = run({.plan = plan, .blocks = blocks_, .journal = &journal});
    EXPECT_TRUE(result.blocks[0].has_value());
    expect_answer(result.blocks[1], ENOSPC);
    EXPECT_TRUE(result.blocks[2].has_value());
    EXPECT_THAT(journal.calls(3), ElementsAre("before_write"));
    const Bytes now = target.bytes();
    EXPECT_TRUE(same_block(target, now, 3, target, before, 3));
    EXPECT_TRUE(same_block(target, now, 2, source, source.expected(), 1));
    EXPECT_TRUE(same_block(target, now, 4, source, source.expected(), 3));
  });
}

TEST_P(JournalTest, ARefusalAfterAWriteIsTheBlocksAnswer) {
  for_each_way([&](bool writes, Place&, Place&, const auto& plan) {
    if (!writes) return;
    RecordingJournal journal(writes);
    journal.refuses_after = 3;
    const TransferResult result = run({.plan = plan, .blocks = blocks_, .journal = &journal});
    EXPECT_TRUE(result.blocks[0].has_value());
    expect_answer(result.blocks[1], ENOSPC);
    EXPECT_TRUE(result.blocks[2].has_value());
    EXPECT_EQ(journal.calls(3).size(), 2u);
  });
}

TEST_P(JournalTest, IsToldOfFilesThatFail) {
  const auto test = [&](bool writes, Place&, Place&, const auto& plan) {
    RecordingJournal journal(writes);
    const TransferResult result = run({.plan = plan, .blocks = blocks_, .journal = &journal});
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      expect_answer(result.blocks[i], EBADF);
      if (writes) {
        EXPECT_THAT(journal.calls(blocks_[i].target),
                    ElementsAre("before_write", "write_failed OperationFailed"));
      } else {
        EXPECT_THAT(journal.calls(blocks_[i].source),
                    ElementsAre("before_read", "read_failed OperationFailed"));
      }
    }
  };
  for_each_way(test, Files::Broken);
}

TEST_P(JournalTest, IsToldOfBytesThatAreWrong) {
  for_each_way([&](bool writes, Place& source, Place&, const auto& plan) {
    if (writes) return;
    std::vector<BlockCopy> blocks = blocks_;
    for (BlockCopy& copy : blocks) copy.payload_sum = sum_of(source, copy.source);
    source.damage(2);
    RecordingJournal journal(writes);
    const TransferResult result = run({.plan = plan, .blocks = blocks, .journal = &journal});
    EXPECT_TRUE(result.blocks[0].has_value());
    ASSERT_FALSE(result.blocks[1].has_value());
    EXPECT_EQ(result.blocks[1].error().code, ErrorCode::ChecksumMismatch);
    EXPECT_TRUE(result.blocks[2].has_value());
    EXPECT_THAT(journal.calls(2), ElementsAre("before_read", "read_failed ChecksumMismatch"));
    EXPECT_THAT(journal.calls(1),
                ElementsAre("before_read", "after_read " + std::to_string(*blocks[0].payload_sum)));
  });
}

TEST_P(JournalTest, HearsNothingOfBlocksThatDoNotBegin) {
  for_each_way([&](bool writes, Place&, Place&, const auto& plan) {
    RecordingJournal journal(writes);
    const auto none = static_cast<BlockId>(Place::kBlocks);
    run({.plan = plan, .blocks = {{none, 0, {}}, {0, none, {}}}, .journal = &journal});
    EXPECT_EQ(journal.blocks(), 0u) << "refused";
    run({.plan = plan,
         .blocks = blocks_,
         .cancelled = std::make_shared<const std::atomic<bool>>(true),
         .journal = &journal});
    EXPECT_EQ(journal.blocks(), 0u) << "cancelled";
  });
}

INSTANTIATE_TEST_SUITE_P(, JournalTest, testing::ValuesIn(executor_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace kvbm
