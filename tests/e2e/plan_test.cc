// `kvbm plan` from its command line: sizes in, a table, JSON and a page out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

Command plan_command(std::vector<std::string> more) {
  std::vector<std::string> arguments = {"plan", "-", "--block-bytes", "10000000"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Command(std::move(arguments));
}

TEST(PlanTest, MoreRoomSavesMorePrefill) {
  const TemporaryFolder folder;
  const auto finished =
      plan_command({"--prefill-rate", "5000", "--host-gb", "1,3", "--disk-gb", "4,20", "--json",
                    folder / "p.json", "--report", folder / "p.html"})
          .input(small_trace())
          .run();
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_EQ(finished.err, "");
  EXPECT_THAT(finished.out, HasSubstr("\nhost GB  disk GB  device hits"));
  const auto json = nlohmann::json::parse(read_file(folder / "p.json"));
  const auto& rows = json["rows"];
  ASSERT_EQ(rows.size(), 4u);
  const auto alone = json["device_alone"]["computed_seconds"].get<double>();
  for (const auto& row : rows) {
    const auto computed = row["computed_seconds"].get<double>();
    EXPECT_NEAR(computed + static_cast<double>(sum(row["hit_tokens"])) / 5000,
                json["prompt_tokens"].get<double>() / 5000, 1e-6);
    EXPECT_DOUBLE_EQ(row["saved_seconds"], alone - computed);
  }
  EXPECT_GT(rows[1]["saved_seconds"], rows[0]["saved_seconds"]);
  EXPECT_GT(rows[1]["disk_load_seconds"], rows[3]["disk_load_seconds"]);
  const std::string page = read_file(folder / "p.html");
  EXPECT_THAT(page, StartsWith("<!DOCTYPE html>\n"));
  EXPECT_THAT(page, HasSubstr("1 GB host, 20 GB disk"));
  EXPECT_THAT(page, EndsWith("</html>\n"));
}

// The same sizes in blocks, and the same engine.
TEST(PlanTest, ARowIsWhatASimulationOfTheTiersCounts) {
  const std::string trace = small_trace();
  const auto plan = parse_only_json(plan_command({"--prefill-rate", "1", "--host-gb", "2",
                                                  "--disk-gb", "5", "--device-gb", "1", "--json"})
                                        .input(trace)
                                        .run());
  const auto sim = parse_only_json(
      Command({"sim", "-", "--tiers", "--device-blocks", "100", "--host-blocks", "200",
               "--disk-blocks", "500", "--block-bytes", "10000000", "--json"})
          .input(trace)
          .run());
  EXPECT_EQ(plan["rows"][0]["hit_tokens"], sim["hit_tokens"]);
  EXPECT_EQ(plan["rows"][0]["disk_bytes_written"],
            sim["edges"]["host_to_disk"]["blocks"].get<std::uint64_t>() * 10'000'000);
}

TEST(PlanTest, SizesThatAreNoneAreRefused) {
  const auto refused = [](std::vector<std::string> arguments) {
    const auto finished = plan_command(std::move(arguments)).input(small_trace()).run();
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_EQ(finished.out, "");
    return finished.err;
  };
  EXPECT_THAT(refused({"--prefill-rate", "1", "--host-gb", "1,x", "--disk-gb", "1"}),
              HasSubstr("--host-gb: 'x' is not a whole number"));
  EXPECT_THAT(refused({"--prefill-rate", "0", "--host-gb", "1", "--disk-gb", "1"}),
              HasSubstr("--prefill-rate"));
  EXPECT_THAT(refused({"--prefill-rate", "1", "--host-gb", "1"}), HasSubstr("--disk-gb"));
  EXPECT_THAT(refused({"--prefill-rate", "1", "--host-gb", "99999999999", "--disk-gb", "1"}),
              HasSubstr("it must be 1 .. 42949672 GB, not 99999999999"));
  EXPECT_THAT(refused({"--prefill-rate", "1", "--host-gb", "0", "--disk-gb", "1"}),
              HasSubstr("--host-gb: '0' is not a whole number from 1"));
  EXPECT_THAT(Command({"plan", "-", "--block-bytes", "1000000000001"}).run().err,
              HasSubstr("'1000000000001' is not a whole number from 1 to 1000000000000"));
}

TEST(PlanTest, AnEmptyPromptIsAPrompt) {
  const auto finished =
      plan_command({"--prefill-rate", "1", "--host-gb", "1", "--disk-gb", "1"})
          .input(R"({"timestamp": 0, "input_length": 0, "output_length": 1, "hash_ids": []})")
          .run();
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_EQ(finished.err, "");
  EXPECT_THAT(finished.out, StartsWith("0 prompt tokens"));
}

TEST(PlanTest, ADeviceThatIsTooSmallForAPromptIsTold) {
  const auto finished = Command({"plan", "-", "--block-bytes", "200000000", "--prefill-rate", "1",
                                 "--host-gb", "9", "--disk-gb", "9", "--device-gb", "1"})
                            .input(small_trace())
                            .run();
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.err, StartsWith("kvbm: warning: --device-gb is 5 blocks and the longest"));
}

}  // namespace
}  // namespace kvbm::e2e
