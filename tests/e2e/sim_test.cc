// The rows of `kvbm sim` against a reference that was written from the model alone, in Python.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;
using Arguments = std::vector<std::string>;

constexpr const char* kPolicies = "lru,fifo,min,min-forced";
// From one that no prompt fits to one that every block fits.
constexpr const char* kCapacities = "1,2,3,7,20,50,200,1000";

const std::vector<Arguments> kShapes = {
    {"--users", "10", "--max-prompt-tokens", "10000", "--one-off-tokens", "4000"},
    // Long conversations of few: most of a prompt was there before.
    {"--users", "3", "--max-prompt-tokens", "6000", "--one-off-percent", "0"},
    // Short ones behind one shared prompt: many children of one block.
    {"--users", "40", "--system-prompts", "1", "--max-prompt-tokens", "8000", "--mean-turns", "2"},
    // Nothing shared, prompts that are asked again, and longer than most caches here.
    {"--users", "5", "--system-prompt-tokens", "0", "--max-prompt-tokens", "20000",
     "--regenerate-percent", "50"},
};

class SimTest : public testing::Test {
 protected:
  std::string trace(int seed, const Arguments& shape) const {
    Arguments arguments = {"--requests", "100", "--seed", std::to_string(seed)};
    arguments.insert(arguments.end(), shape.begin(), shape.end());
    const std::string file = folder_ / "trace.jsonl";
    write_file(file, generate(arguments));
    return file;
  }

  TemporaryFolder folder_;
};

TEST_F(SimTest, RowsAreThoseOfTheReference) {
  const std::string reference = KVBM_SOURCE_DIR "/tests/reference/sim_reference.py";
  for (std::size_t shape = 0; shape < kShapes.size(); ++shape) {
    for (const int seed : {1, 2, 3}) {
      SCOPED_TRACE("shape " + std::to_string(shape) + ", seed " + std::to_string(seed));
      const std::string file = trace(seed, kShapes[shape]);
      const auto rows = parse_only_json(
          Command({"sim", file, "--policy", kPolicies, "--capacity", kCapacities, "--json"}).run());
      const auto expected = parse_only_json(Command::shell("python3 '" + reference + "' '" + file +
                                                           "' " + kPolicies + " " + kCapacities)
                                                .run());
      ASSERT_EQ(expected["rows"].size(), 32u);
      EXPECT_EQ(rows, expected);
    }
  }
}

TEST_F(SimTest, TheTableAndTheFileTellTheSame) {
  const std::string file = trace(1, kShapes[0]);
  const Finished finished = Command({"sim", file, "--policy", "min,lru", "--capacity", "50,20",
                                     "--limit", "60", "--json", folder_ / "rows.json"})
                                .run();
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  const auto rows = nlohmann::json::parse(read_file(folder_ / "rows.json"))["rows"];
  ASSERT_EQ(rows.size(), 4u);
  const std::vector<std::pair<std::string, int>> order = {
      {"min", 50}, {"min", 20}, {"lru", 50}, {"lru", 20}};
  for (std::size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(rows[i]["policy"], order[i].first);
    EXPECT_EQ(rows[i]["capacity"], order[i].second);
    EXPECT_LT(rows[i]["accesses"], 1000);  // of the first 60 requests alone
    EXPECT_THAT(finished.out, HasSubstr(" " + rows[i]["block_hits"].dump() + " "));
  }
}

TEST_F(SimTest, TheReportIsAPage) {
  const std::string file = trace(1, kShapes[0]);
  const auto run = [&](const std::string& report, const std::string& capacity) {
    return Command({"sim", file, "--policy", "lru", "--capacity", capacity, "--report", report})
        .run();
  };
  const Finished finished = run(folder_ / "r.html", "20,50");
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  const std::string page = read_file(folder_ / "r.html");
  EXPECT_THAT(page, StartsWith("<!DOCTYPE html>\n"));
  EXPECT_THAT(page, EndsWith("</html>\n"));
  EXPECT_THAT(page, HasSubstr("<polyline class=\"curve lru\""));

  for (const std::string& report : {folder_ / "none/r.html", std::string("-"), std::string()}) {
    const Finished refused = run(report, "20");
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_EQ(refused.out, "");
  }
}

}  // namespace
}  // namespace kvbm::e2e
