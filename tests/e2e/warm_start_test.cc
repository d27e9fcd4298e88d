// A replay that finds what an earlier process left on disk.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>
#include <sstream>

#include "tests/e2e/program.h"
#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using nlohmann::json;

// Small upper tiers: most of what the second half shares with the first is on disk only.
constexpr Tiers kDiskIsAll{20, 60, 3000};

class WarmStartTest : public testing::Test {
 protected:
  WarmStartTest() {
    std::istringstream lines(generate({"--requests", "400", "--seed", "5"}));
    std::string line;
    for (int i = 0; std::getline(lines, line); ++i) (i < 200 ? first_ : second_) += line + "\n";
  }
  json replay(const std::string& trace, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"--disk-dir", disk_.path()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return replay_json(trace, kDiskIsAll, arguments);
  }

  TemporaryFolder disk_;
  std::string first_;
  std::string second_;
};

TEST_F(WarmStartTest, TheSecondHalfFindsTheFirstOnDisk) {
  const json cold = replay_json(second_, kDiskIsAll);
  const json before = replay(first_);
  const json warm = replay(second_);
  EXPECT_EQ(warm["disk_store"]["restored_blocks"], before["edges"]["host_to_disk"]["blocks"]);
  EXPECT_GT(warm["hit_tokens"]["disk"], cold["hit_tokens"]["disk"]);
  EXPECT_EQ(warm["wrong_blocks"], 0);
  EXPECT_EQ(warm["checksum_mismatches"], 0);
}

TEST_F(WarmStartTest, TheFirstRequestAlreadyHits) {
  replay(first_);
  // The last request of the first half again, alone: nothing of it is in memory.
  const std::string last = first_.substr(first_.rfind('\n', first_.size() - 2) + 1);
  const json warm = replay(last);
  EXPECT_EQ(warm["requests"], 1);
  EXPECT_EQ(warm["hit_tokens"]["disk"], warm["prompt_tokens"]);
  EXPECT_EQ(warm["wrong_blocks"], 0);
}

TEST_F(WarmStartTest, BytesThatWereOverwrittenMeanwhileAreMisses) {
  const json before = replay(first_);
  const int file = ::open((disk_ / "kvbm-blocks").c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  for (off_t block = 0; block < 3000; block += 3) {
    const std::uint64_t garbage = 0x1234567890abcdef;
    ASSERT_EQ(::pwrite(file, &garbage, sizeof garbage, block * off_t{kBlockBytes} + 1000), 8);
  }
  ::close(file);

  const Finished finished =
      replay_command("-", kDiskIsAll, {"--disk-dir", disk_.path(), "--json"}).input(second_).run();
  EXPECT_EQ(finished.exit_code, 1) << "it says that bytes were wrong";
  const json warm = json::parse(finished.out);
  EXPECT_EQ(warm["wrong_blocks"], 0);
  EXPECT_GT(warm["checksum_mismatches"], 0);
  EXPECT_GT(warm["hit_tokens"]["disk"], 0) << "the others are served";
  EXPECT_THAT(finished.err, testing::HasSubstr("are not what was written"));
}

}  // namespace
}  // namespace kvbm::e2e
