// What stays on the disk when a command is over, however it ended.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class LeftoversTest : public testing::Test {
 protected:
  // A replay that takes seconds, with its disk tier in `temporary_`.
  Running start_long_replay(const std::vector<std::string>& more = {}) {
    write_file(folder_ / "long.jsonl", generate({"--requests", "3000"}));
    return replay_command(folder_ / "long.jsonl", {200, 400, 4000}, more)
        .environment("TMPDIR", temporary_.path())
        .start();
  }

  // Blocks are on their way to the disk.
  static bool is_in_the_middle(const Running& replay, const std::string& disk) {
    return replay.reaches([&] { return replay.has_written(disk, 16 * kBlockBytes / 4096); });
  }

  void expect_nothing_after(int signal) {
    Running replay = start_long_replay();
    ASSERT_TRUE(is_in_the_middle(replay, temporary_.path()));
    replay.send(signal);
    const Finished finished = replay.wait();

    EXPECT_EQ(finished.signal, signal);
    EXPECT_EQ(finished.out, "");
    EXPECT_EQ(finished.err, "");
    EXPECT_THAT(contents(temporary_.path()), IsEmpty());
  }

  TemporaryFolder folder_;
  TemporaryFolder temporary_;
};

TEST_F(LeftoversTest, ATemporaryDiskTierIsGoneAfterSuccess) {
  const Finished finished = replay_command("-", kSmallTiers)
                                .environment("TMPDIR", temporary_.path())
                                .input(small_trace())
                                .run();
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(contents(temporary_.path()), IsEmpty());
}

TEST_F(LeftoversTest, ATemporaryDiskTierHasNoNameWhileItIsUsed) {
  const Running replay = start_long_replay();
  ASSERT_TRUE(is_in_the_middle(replay, temporary_.path()));
  EXPECT_THAT(contents(temporary_.path()), IsEmpty());
}

TEST_F(LeftoversTest, ATemporaryDiskTierIsGoneAfterBadInput) {
  const Finished finished = replay_command("-", kSmallTiers, {"--json", folder_ / "none/r.json"})
                                .environment("TMPDIR", temporary_.path())
                                .input(small_trace())
                                .run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(contents(temporary_.path()), IsEmpty());
}

TEST_F(LeftoversTest, ATemporaryDiskTierIsGoneAfterAnInterrupt) { expect_nothing_after(SIGINT); }
TEST_F(LeftoversTest, ATemporaryDiskTierIsGoneAfterTerm) { expect_nothing_after(SIGTERM); }
TEST_F(LeftoversTest, ATemporaryDiskTierIsGoneAfterAKill) { expect_nothing_after(SIGKILL); }

TEST_F(LeftoversTest, DiskDirKeepsAStoreOfTheTiersSize) {
  for (const std::uint64_t blocks : {500, 700, 300}) {
    const auto report =
        replay_json(small_trace(), {20, 60, blocks}, {"--disk-dir", temporary_.path()});
    EXPECT_GT(report["hit_tokens"]["disk"], 0u);
    EXPECT_THAT(contents(temporary_.path()),
                ElementsAre("kvbm-blocks " + std::to_string(blocks * kBlockBytes),
                            "kvbm-index " + std::to_string(blocks * 64), "kvbm-manifest 16384"));
  }
}

TEST_F(LeftoversTest, DiskDirCanBeUsedAgainAfterAKill) {
  const std::vector<std::string> kept = {"--disk-dir", temporary_.path()};
  {
    Running replay = start_long_replay(kept);
    ASSERT_TRUE(is_in_the_middle(replay, temporary_.path()));
    replay.send(SIGKILL);
    EXPECT_EQ(replay.wait().signal, SIGKILL);
  }
  const auto report = replay_json(small_trace(), kSmallTiers, kept);
  EXPECT_EQ(report["wrong_blocks"], 0);
  EXPECT_EQ(report["checksum_mismatches"], 0);
  EXPECT_GT(report["disk_store"]["restored_blocks"], 0u);
}

TEST_F(LeftoversTest, AFileSizeLimitIsAnErrorThatLeavesNothing) {
  constexpr rlim_t kLimitBytes = 100'000;
  write_file(folder_ / "t.jsonl", "old\n");
  const std::string file = folder_ / "t.jsonl";
  const Finished generated = Command({"trace", "generate", "--requests", "20000", "-o", file})
                                 .limit(RLIMIT_FSIZE, kLimitBytes)
                                 .run();
  const Finished replayed = replay_command("-", kSmallTiers, {"--disk-dir", folder_.path()})
                                .limit(RLIMIT_FSIZE, kLimitBytes)
                                .input(small_trace())
                                .run();
  for (const Finished& finished : {generated, replayed}) {
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_THAT(finished.err, HasSubstr("File too large"));
  }
  EXPECT_EQ(read_file(file), "old\n");
  EXPECT_THAT(contents(folder_.path()), ElementsAre("t.jsonl 4"));
}

}  // namespace
}  // namespace kvbm::e2e
