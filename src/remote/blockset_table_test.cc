#include "remote/blockset_table.h"

#include <gtest/gtest.h>

#include "remote/test_blocksets.h"

namespace kvbm::remote {
namespace {

class BlocksetTableTest : public testing::Test {
 protected:
  ~BlocksetTableTest() override { table_.check_invariants(); }

  static OwnBlocks own() {
    return {.worker_id = 1,
            .model = "llama",
            .hash_profile = "kvbm",
            .key_fingerprint = 9,
            .content_digest = 77,
            .block_size = 16};
  }
  static Blockset restarted(Blockset set) {
    ++set.incarnation;
    ++set.started_at_ns;
    set.tiers[1].memories[0].address += 1 << 24;
    return set;
  }
  void expect_refused(const Blockset& set, const std::string& theirs, const std::string& ours) {
    const auto answer = table_.import_blockset(set);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::InvalidConfig);
    EXPECT_NE(answer.error().message.find(theirs), std::string::npos) << answer.error().message;
    EXPECT_NE(answer.error().message.find(ours), std::string::npos) << answer.error().message;
  }

  BlocksetTable table_{own()};
};

TEST_F(BlocksetTableTest, TheSameBlocksetAgainChangesNothing) {
  const auto first = table_.import_blockset(test_blockset()).value();
  const auto again = table_.import_blockset(test_blockset()).value();
  EXPECT_EQ(first, again);
  EXPECT_EQ(table_.find(5).value(), first);
  EXPECT_EQ(table_.find(5, first->generation).value()->blockset, test_blockset());
  EXPECT_EQ(table_.workers(), std::vector<WorkerID>{5});
}

TEST_F(BlocksetTableTest, ALaterProcessReplacesTheOneBeforeAndItsHandles) {
  const Blockset before = test_blockset();
  const auto old = table_.import_blockset(before).value();
  const auto now = table_.import_blockset(restarted(before)).value();
  EXPECT_GT(now->generation, old->generation);
  EXPECT_EQ(table_.find(5).value()->blockset, restarted(before));
  const auto stale = table_.find(5, old->generation);
  ASSERT_FALSE(stale);
  EXPECT_EQ(stale.error().code, ErrorCode::SourceGone);
  EXPECT_EQ(stale.error().requested, old->generation);
  EXPECT_EQ(stale.error().available, now->generation);

  // A message of the dead process that comes late.
  const auto late = table_.import_blockset(before);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().requested, before.started_at_ns);
  EXPECT_EQ(late.error().available, before.started_at_ns + 1);
  EXPECT_EQ(table_.find(5, now->generation).value(), now);
}

TEST_F(BlocksetTableTest, RefusesTwoBlocksetsOfOneProcessAndTwoProcessesOfOneTime) {
  table_.import_blockset(test_blockset()).value();
  Blockset other = test_blockset();
  other.address = "127.0.0.1:7001";
  expect_refused(other, "worker 5", "two blocksets of one process");
  ++other.incarnation;
  expect_refused(other, "1000000 ns", "the known one began at 1000000");
  EXPECT_EQ(table_.find(5).value()->blockset, test_blockset());
}

TEST_F(BlocksetTableTest, AWorkerThatWasForgottenIsNeverTakenForItsSuccessor) {
  const auto first = table_.import_blockset(test_blockset()).value();
  EXPECT_TRUE(table_.forget(5));
  EXPECT_FALSE(table_.forget(5));
  EXPECT_EQ(table_.find(5).error().code, ErrorCode::SourceGone);
  const auto second = table_.import_blockset(test_blockset()).value();
  EXPECT_NE(first->generation, second->generation);
  EXPECT_FALSE(table_.find(5, first->generation));
}

TEST_F(BlocksetTableTest, RefusesWhatBelongsToOthersAndNamesBoth) {
  Blockset set = test_blockset();
  set.model = "qwen";
  expect_refused(set, "qwen", "llama");
  set = test_blockset();
  set.hash_profile = "vllm";
  expect_refused(set, "vllm", "kvbm");
  set = test_blockset();
  set.content_digest = 78;
  expect_refused(set, "content digest 78", "has 77");
  set = test_blockset();
  set.block_size = 32;
  expect_refused(set, "32", "16");
  set = test_blockset();
  set.key_fingerprint = 0;
  expect_refused(set, "key fingerprint 0", "has 9");
  expect_refused(test_blockset(1), "worker 1", "this worker itself");
  set = test_blockset();
  set.tiers[0].num_blocks = 0;
  expect_refused(set, "blocks of a tier", "1 ..");
  EXPECT_TRUE(table_.workers().empty());
}

TEST_F(BlocksetTableTest, HasABound) {
  for (WorkerID worker = 2; worker < 2 + BlocksetTable::kMaxWorkers; ++worker) {
    ASSERT_TRUE(table_.import_blockset(test_blockset(worker)));
  }
  expect_refused(test_blockset(1'000'000), "too many workers", "too many");
  // Those that are known may still restart.
  EXPECT_TRUE(table_.import_blockset(restarted(test_blockset(2))));
}

}  // namespace
}  // namespace kvbm::remote
