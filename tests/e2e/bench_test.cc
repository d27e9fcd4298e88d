// `kvbm bench` as a user runs it. The numbers are the machine's own business, so nothing here
// depends on them, and neither does a test on the exit code that tells of weak probes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/e2e/program.h"

namespace kvbm::e2e {
namespace {

using nlohmann::json;
using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

TEST(BenchCommandTest, TellsRowsAsATableAndAsJson) {
  const TemporaryFolder folder;
  const std::string file = folder / "rows.json";
  const Finished finished = Command({"bench", "hash", "--seed", "5", "--json", file}).run();
  EXPECT_THAT(finished.exit_code, AnyOf(0, 1));
  EXPECT_EQ(finished.err, "");
  EXPECT_THAT(finished.out, StartsWith("seed 5\n\nname "));

  const json report = json::parse(read_file(file));
  EXPECT_EQ(report["seed"], 5);
  ASSERT_FALSE(report["rows"].empty());
  for (const json& row : report["rows"]) {
    EXPECT_THAT(finished.out, HasSubstr(row["name"].get<std::string>() + " "));
    EXPECT_GT(row["value"], 0.0);
    EXPECT_GT(row["n"], 0);
    EXPECT_EQ(row["ratio"].is_null(), row["limit"].is_null());
  }
}

TEST(BenchCommandTest, ABenchWithoutItsDeviceIsSkippedWithTheReason) {
  const Finished finished = Command({"bench", "cuda"}).run();
  if (finished.out.starts_with("name ")) GTEST_SKIP() << "this machine has a CUDA device";
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.out, StartsWith("SKIPPED: Cuda: no CUDA driver: libcuda.so.1"));
  EXPECT_EQ(std::count(finished.out.begin(), finished.out.end(), '\n'), 1);
}

TEST(BenchCommandTest, RefusesAnUnknownNameWithTheNamesThatExist) {
  const Finished finished = Command({"bench", "nothing"}).run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err,
              StartsWith("kvbm: NAME: 'nothing' is not one of copy, cuda, disk, disk-raw, hash"));
}

TEST(BenchCommandTest, AFolderIsForTheBenchThatHasFilesAndMustExist) {
  const Finished other = Command({"bench", "hash", "--dir", "/tmp"}).run();
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_EQ(other.err, "kvbm: --dir is for the benches disk, disk-raw and tiers only\n");

  for (const char* bench : {"disk", "disk-raw", "tiers"}) {
    const Finished missing = Command({"bench", bench, "--dir", "/nowhere"}).run();
    EXPECT_EQ(missing.exit_code, 2);
    EXPECT_EQ(missing.out, "");
    EXPECT_THAT(missing.err, HasSubstr("/nowhere"));
  }
}

TEST(BenchCommandTest, ATraceIsForTheBenchThatRunsItAndIsReadFirst) {
  const Finished other = Command({"bench", "hash", "--trace", "chat.jsonl"}).run();
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_EQ(other.out, "");
  EXPECT_EQ(other.err, "kvbm: --trace is for the bench pool only\n");

  const Finished missing = Command({"bench", "pool", "--trace", "/nowhere/chat.jsonl"}).run();
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_EQ(missing.out, "");
  EXPECT_THAT(missing.err, HasSubstr("/nowhere/chat.jsonl"));
}

}  // namespace
}  // namespace kvbm::e2e
