// A disk of 8 MiB: what does not fit is refused at the start, and nothing else can fail later.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

constexpr const char kOptions[] = "size=8m";
constexpr std::uint64_t kBlocksThatFit = 1500;  // of 4 KiB
constexpr std::uint64_t kBlocksTooMany = 2500;

class SmallDiskTest : public testing::Test {
 protected:
  // The mount is seen by this process and its children only, and ends with them.
  void SetUp() override {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", disk_.path().c_str(), "tmpfs", 0, kOptions) != 0) {
      GTEST_SKIP() << "cannot mount a tmpfs: " << std::generic_category().message(errno);
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) ::umount(disk_.path().c_str());
  }

  void expect_too_small(const Finished& finished) const {
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_EQ(finished.out, "");
    EXPECT_THAT(finished.err, HasSubstr(disk_.path().string()));
    EXPECT_THAT(finished.err, ContainsRegex("requested 102[0-9]+, available [78][0-9]{6}[)]"));
    EXPECT_THAT(finished.err, HasSubstr("No space left on device"));
    EXPECT_TRUE(finished.err.find('\n') == finished.err.size() - 1) << finished.err;
  }

  TemporaryFolder disk_;
  bool mounted_ = false;
};

TEST_F(SmallDiskTest, ATierThatDoesNotFitIsRefusedAndLeavesNothing) {
  const Tiers tiers{20, 60, kBlocksTooMany};
  const std::string trace = small_trace();

  expect_too_small(replay_command("-", tiers, {"--disk-dir", disk_.path()}).input(trace).run());
  EXPECT_TRUE(contents(disk_.path()).empty());

  expect_too_small(
      replay_command("-", tiers).environment("TMPDIR", disk_.path()).input(trace).run());
  EXPECT_TRUE(contents(disk_.path()).empty());
}

TEST_F(SmallDiskTest, AStoreOfAnEarlierRunSurvivesARefusal) {
  const std::string trace = small_trace();
  const std::vector<std::string> kept = {"--disk-dir", disk_.path()};
  replay_json(trace, {20, 60, 100}, kept);
  const auto before = contents(disk_.path());
  ASSERT_EQ(before.size(), 3u);

  expect_too_small(replay_command("-", {20, 60, kBlocksTooMany}, kept).input(trace).run());
  EXPECT_EQ(contents(disk_.path()), before);
  EXPECT_GT(replay_json(trace, {20, 60, 100}, kept)["disk_store"]["restored_blocks"], 0u);
}

// Writes until the disk is full and takes the space for good.
void fill(const std::string& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(file, 0);
  const std::vector<char> chunk(4096, 'x');
  while (::write(file, chunk.data(), chunk.size()) > 0) {
  }
  EXPECT_EQ(errno, ENOSPC);
  ::close(file);
}

// The tier's bytes are reserved before the first request.
TEST_F(SmallDiskTest, ADiskThatFillsUpDuringARunDoesNoHarm) {
  const TemporaryFolder folder;
  write_file(folder / "long.jsonl",
             generate({"--requests", "1000", "--max-prompt-tokens", "10000"}));
  Running replay = replay_command(folder / "long.jsonl", {20, 60, kBlocksThatFit},
                                  {"--disk-dir", disk_.path(), "--json"})
                       .start();
  ASSERT_TRUE(
      replay.reaches([&] { return replay.has_written(disk_.path(), 16 * kBlockBytes / 4096); }));
  replay.send(SIGSTOP);
  struct stat file{};
  ASSERT_EQ(::stat((disk_ / "kvbm-blocks").c_str(), &file), 0);
  EXPECT_GE(std::uint64_t(file.st_blocks) * 512, kBlocksThatFit * kBlockBytes);
  fill(disk_ / "others");
  ASSERT_FALSE(replay.has_ended());
  replay.send(SIGCONT);

  const auto report = parse_only_json(replay.wait());

  EXPECT_GT(report["edges"]["host_to_disk"]["blocks"], kBlocksThatFit);
  EXPECT_GT(report["hit_tokens"]["disk"], 0u);
  EXPECT_EQ(report["wrong_blocks"], 0);
  EXPECT_EQ(report["failed_transfers"], 0);
}

}  // namespace
}  // namespace kvbm::e2e
