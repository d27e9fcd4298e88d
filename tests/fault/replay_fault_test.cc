// `kvbm replay --disk-dir` on a disk that fails: what its user is told, and how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "store/store_files.h"
#include "tests/e2e/replay_run.h"
#include "tests/fault/faulty_files.h"

namespace kvbm::fault {
namespace {

using e2e::Finished;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class ReplayFaultTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    files_ = FaultyFiles::mount(reason);
    if (!files_) GTEST_SKIP() << reason;
    trace_ = e2e::small_trace();
  }

  Finished replay() const {
    return e2e::replay_command("-", e2e::kSmallTiers, {"--disk-dir", files_->folder(), "--json"})
        .input(trace_)
        .run();
  }
  // It never begins.
  static void expect_refused(const Finished& finished, const std::string& culprit,
                             const std::string& reason) {
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_EQ(finished.out, "");
    EXPECT_THAT(finished.err, AllOf(StartsWith("kvbm: "), HasSubstr(culprit), HasSubstr(reason)));
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
  }
  // It goes on, says in a line what was wrong, and serves no wrong byte.
  static json expect_complaint(const Finished& finished, const std::string& line) {
    EXPECT_EQ(finished.exit_code, 1);
    EXPECT_THAT(finished.err, AllOf(StartsWith("kvbm: disk tier: "), HasSubstr(line)));
    const json report = json::parse(finished.out);
    EXPECT_EQ(report["requests"], 300);
    EXPECT_EQ(report["wrong_blocks"], 0);
    return report;
  }

  std::unique_ptr<FaultyFiles> files_;
  std::string trace_;
};

TEST_F(ReplayFaultTest, AStoreThatCannotBeMadeIsRefused) {
  files_->set(store::kBlocksName, {.write_error = EROFS});
  expect_refused(replay(), files_->folder() + "/" + store::kBlocksName, "Read-only file system");
  files_->set(store::kBlocksName, {});
  files_->set(store::kIndexName, {.write_error = ENOSPC});
  expect_refused(replay(), files_->folder(), "No space left on device");
  EXPECT_TRUE(e2e::contents(files_->folder()).empty());
}

TEST_F(ReplayFaultTest, AStoreThatCannotBeReadIsRefusedAndKept) {
  const Finished before = replay();
  ASSERT_EQ(before.exit_code, 0) << before.err;
  files_->set(store::kIndexName, {.read_error = EIO});
  expect_refused(replay(), files_->folder() + "/" + store::kIndexName, "Input/output error");
  files_->set(store::kIndexName, {});
  const Finished after = replay();
  EXPECT_EQ(after.exit_code, 0) << after.err;
  EXPECT_GT(json::parse(after.out)["disk_store"]["restored_blocks"], 0u);
}

TEST_F(ReplayFaultTest, BlocksThatCannotBeWrittenAreToldAndGoMissing) {
  ASSERT_EQ(replay().exit_code, 0);
  files_->set(store::kBlocksName, {.write_error = EIO});
  trace_ = e2e::small_trace(2);
  const json report = expect_complaint(replay(), "read-only: OperationFailed");
  EXPECT_GT(report["failed_transfers"], 0);
}

TEST_F(ReplayFaultTest, BlocksThatCannotBeReadAreToldAndComputedAgain) {
  ASSERT_EQ(replay().exit_code, 0);
  files_->set(store::kBlocksName, {.read_error = EIO});
  const json report = expect_complaint(replay(), "off: OperationFailed");
  EXPECT_GT(report["failed_transfers"], 0);
  EXPECT_EQ(report["hit_tokens"]["disk"], 0);
}

TEST_F(ReplayFaultTest, ADiskThatIsGoneIsRefused) {
  files_->die();
  expect_refused(replay(), files_->folder(), "Transport endpoint is not connected");
}

}  // namespace
}  // namespace kvbm::fault
