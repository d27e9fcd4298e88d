// From a generated trace to a report: what goes in and out, and whether the numbers add up.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <set>
#include <sstream>

#include "apps/kvbm/text.h"
#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using app::grouped;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr std::array kTierNames = {"device", "disk", "host"};  // as JSON sorts them
constexpr std::array kEdgeNames = {"device_to_host", "disk_to_host", "host_to_device",
                                   "host_to_disk"};

std::vector<json> lines_of(const std::string& trace) {
  std::istringstream in(trace);
  std::vector<json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

std::string first_lines(const std::string& text, std::size_t count) {
  std::size_t end = 0;
  while (count-- > 0) end = text.find('\n', end) + 1;
  return text.substr(0, end);
}

std::vector<std::string> keys(const json& object) {
  std::vector<std::string> result;
  for (const auto& [key, value] : object.items()) result.push_back(key);
  return result;
}

// The report without the times, which differ from run to run, and without what files are called.
json counts(json report) {
  report.erase("seconds");
  report.erase("disk_store");
  report.erase("transfer_paths");
  for (auto& edge : report["edges"]) edge.erase("seconds");
  return report;
}

TEST(GenerateTest, TheSeedDecidesEveryByte) {
  EXPECT_EQ(small_trace(7), small_trace(7));
  EXPECT_NE(small_trace(7), small_trace(8));
  EXPECT_EQ(lines_of(small_trace(7)).size(), 300u);
}

TEST(GenerateTest, WritesToAFileWhatItPrints) {
  const TemporaryFolder folder;
  const auto finished =
      Command({"trace", "generate", "--requests", "50", "-o", folder / "a.jsonl"}).run();

  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_EQ(finished.out, "");
  EXPECT_EQ(finished.err, "");
  EXPECT_EQ(read_file(folder / "a.jsonl"), generate({"--requests", "50"}));
  EXPECT_EQ(read_file(folder / "a.jsonl"), generate({"--requests", "50", "--output", "-"}));
  EXPECT_EQ(contents(folder.path()).size(), 1u);
}

TEST(PipelineTest, CommandsWorkInAShellPipe) {
  const auto described =
      Command::shell("\"$KVBM\" trace generate --requests 40 | \"$KVBM\" trace describe - --json")
          .run();
  EXPECT_EQ(parse_only_json(described)["requests"], 40);

  const auto replayed =
      Command::shell(
          "\"$KVBM\" trace generate --requests 40 | \"$KVBM\" replay - --device-blocks 300"
          " --host-blocks 300 --disk-blocks 300 --block-bytes 4096 --json | cat")
          .run();
  EXPECT_EQ(parse_only_json(replayed)["requests"], 40);
}

TEST(DescribeTest, CountsWhatIsInTheTrace) {
  const std::string trace = small_trace();
  std::uint64_t tokens = 0;
  std::size_t accesses = 0;
  std::set<std::uint64_t> ids;
  for (const json& line : lines_of(trace)) {
    tokens += line["input_length"].get<std::uint64_t>();
    accesses += line["hash_ids"].size();
    for (const json& id : line["hash_ids"]) ids.insert(id.get<std::uint64_t>());
  }

  const json shape =
      parse_only_json(Command({"trace", "describe", "-", "--json"}).input(trace).run());

  EXPECT_EQ(shape["requests"], 300);
  EXPECT_EQ(shape["prompt_tokens_total"], tokens);
  EXPECT_EQ(shape["block_accesses"], accesses);
  EXPECT_EQ(shape["unique_blocks"], ids.size());
}

TEST(DescribeTest, WritesTheTableBesideTheJsonFile) {
  const TemporaryFolder folder;
  const std::string trace = small_trace();
  write_file(folder / "t.jsonl", trace);
  const auto table = Command({"trace", "describe", folder / "t.jsonl"}).run();
  const auto alone = Command({"trace", "describe", folder / "t.jsonl", "--json"}).run();

  const auto both =
      Command({"trace", "describe", folder / "t.jsonl", "--json", folder / "t.json"}).run();

  EXPECT_EQ(both.exit_code, 0);
  EXPECT_EQ(both.err, "");
  EXPECT_EQ(both.out, table.out);
  EXPECT_THAT(both.out, HasSubstr("unique blocks"));
  EXPECT_EQ(read_file(folder / "t.json"), alone.out);
  EXPECT_EQ(parse_only_json(alone)["requests"], 300);
}

TEST(DescribeTest, LimitTakesTheFirstRequests) {
  const std::string trace = small_trace();
  const auto limited = Command({"trace", "describe", "-", "--limit", "30"}).input(trace).run();
  const auto cut = Command({"trace", "describe", "-"}).input(first_lines(trace, 30)).run();

  EXPECT_EQ(limited.exit_code, 0);
  EXPECT_EQ(limited.out, cut.out);
}

TEST(ReplayTest, LimitTakesTheFirstRequestsAndLooksAtNoMore) {
  const std::string start = first_lines(small_trace(), 60);
  const json cut = replay_json(start, kSmallTiers);
  const json limited = replay_json(start + "not a request\n", kSmallTiers, {"--limit", "60"});

  EXPECT_EQ(limited["requests"], 60);
  EXPECT_EQ(counts(limited), counts(cut));
}

TEST(ReplayTest, JsonHasTheDocumentedKeys) {
  const json report = replay_json(small_trace(), kSmallTiers);

  for (const char* key : {"requests", "prompt_tokens", "wrong_blocks", "checksum_mismatches",
                          "failed_transfers", "dropped_offloads"}) {
    EXPECT_TRUE(report[key].is_number_unsigned()) << key;
  }
  EXPECT_TRUE(report["seconds"].is_number_float());
  for (const char* key : {"hit_tokens", "blocks_verified", "evictions"}) {
    EXPECT_THAT(keys(report[key]), testing::ElementsAreArray(kTierNames)) << key;
  }
  EXPECT_THAT(keys(report["edges"]), testing::ElementsAreArray(kEdgeNames));
  for (const json& edge : report["edges"]) {
    EXPECT_THAT(keys(edge), ElementsAre("blocks", "bytes", "failed", "seconds"));
  }
}

TEST(ReplayTest, NumbersAddUp) {
  const std::string trace = small_trace();
  std::uint64_t tokens = 0;
  for (const json& line : lines_of(trace)) tokens += line["input_length"].get<std::uint64_t>();

  const json report = replay_json(trace, kSmallTiers);

  EXPECT_EQ(report["requests"], 300);
  EXPECT_EQ(report["prompt_tokens"], tokens);
  EXPECT_LE(sum(report["hit_tokens"]), tokens);
  for (const char* tier : kTierNames) {
    const std::uint64_t verified = report["blocks_verified"][tier];
    EXPECT_GT(report["hit_tokens"][tier], 0u) << tier;
    EXPECT_GT(report["evictions"][tier], 0u) << tier;
    EXPECT_GT(verified, 0u) << tier;
    EXPECT_LE(report["hit_tokens"][tier], verified * 512) << tier;
    EXPECT_GT(report["hit_tokens"][tier], verified * 256) << tier;
  }
  for (const char* wrong : {"wrong_blocks", "checksum_mismatches", "failed_transfers"}) {
    EXPECT_EQ(report[wrong], 0) << wrong;
  }

  const json& edges = report["edges"];
  for (const char* name : kEdgeNames) {
    EXPECT_GT(edges[name]["blocks"], 0u) << name;
    EXPECT_EQ(edges[name]["bytes"], edges[name]["blocks"].get<std::uint64_t>() * kBlockBytes);
    EXPECT_GT(edges[name]["seconds"], 0.0) << name;
    EXPECT_EQ(edges[name]["failed"], 0) << name;
  }
  const json& verified = report["blocks_verified"];
  EXPECT_EQ(edges["disk_to_host"]["blocks"], verified["disk"]);
  EXPECT_EQ(edges["host_to_device"]["blocks"],
            verified["disk"].get<std::uint64_t>() + verified["host"].get<std::uint64_t>());
}

TEST(ReplayTest, TheTableTellsTheSameNumbers) {
  const TemporaryFolder folder;
  const auto finished =
      replay_command("-", kSmallTiers, {"--json", folder / "r.json"}).input(small_trace()).run();
  const json report = json::parse(read_file(folder / "r.json"));

  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_EQ(finished.err, "");
  EXPECT_THAT(finished.out, StartsWith(fmt::format("300 requests with {} prompt tokens in ",
                                                   grouped(report["prompt_tokens"]))));
  EXPECT_THAT(finished.out, Not(HasSubstr("{")));
  for (const char* tier : kTierNames) {
    EXPECT_THAT(finished.out, HasSubstr(fmt::format(" {} ", grouped(report["hit_tokens"][tier]))));
    EXPECT_THAT(finished.out,
                HasSubstr(fmt::format(" {} ", grouped(report["blocks_verified"][tier]))));
    EXPECT_THAT(finished.out, HasSubstr(fmt::format(" {}\n", grouped(report["evictions"][tier]))));
  }
  const std::uint64_t computed =
      report["prompt_tokens"].get<std::uint64_t>() - sum(report["hit_tokens"]);
  EXPECT_THAT(finished.out, HasSubstr(fmt::format(" {} ", grouped(computed))));
  EXPECT_THAT(finished.out,
              HasSubstr(fmt::format(
                  "\n0 wrong blocks of {} verified, 0 checksum mismatches, 0 failed transfers\n",
                  grouped(sum(report["blocks_verified"])))));
  EXPECT_EQ(contents(folder.path()).size(), 1u);
}

TEST(ReplayTest, TwoRunsGiveTheSameCounts) {
  const std::string trace = small_trace();
  EXPECT_EQ(counts(replay_json(trace, kSmallTiers)), counts(replay_json(trace, kSmallTiers)));
}

TEST(ReplayTest, DeviceLayoutsGiveTheSameCounts) {
  const std::string trace = small_trace();
  const json usual = counts(replay_json(trace, kSmallTiers));
  for (const char* layout : {"contiguous", "layer-outer", "layer-block"}) {
    EXPECT_EQ(counts(replay_json(trace, kSmallTiers, {"--device-layout", layout})), usual)
        << layout;
  }
}

TEST(ReplayTest, VerifyModesDifferOnlyInWhatTheyCompare) {
  const std::string trace = small_trace();
  const json usual = counts(replay_json(trace, kSmallTiers));
  EXPECT_EQ(counts(replay_json(trace, kSmallTiers, {"--verify", "full"})), usual);
  EXPECT_EQ(counts(replay_json(trace, kSmallTiers, {"--verify", "sample"})), usual);

  json off = counts(replay_json(trace, kSmallTiers, {"--verify", "off"}));

  EXPECT_EQ(sum(off["blocks_verified"]), 0u);
  off["blocks_verified"] = usual["blocks_verified"];
  EXPECT_EQ(off, usual);
}

TEST(ReplayTest, DiskDirDoesNotChangeTheCountsOfAFirstRun) {
  const TemporaryFolder folder;
  const std::string trace = small_trace();
  EXPECT_EQ(counts(replay_json(trace, kSmallTiers, {"--disk-dir", folder.path()})),
            counts(replay_json(trace, kSmallTiers)));
}

TEST(ReplayTest, PromptsLongerThanTheDeviceAreCachedInPart) {
  const json report = replay_json(small_trace(), {2, 60, 500});

  EXPECT_EQ(report["requests"], 300);
  EXPECT_GT(report["hit_tokens"]["device"], 0u);
  EXPECT_EQ(report["wrong_blocks"], 0);
}

TEST(ReplayTest, TiersThatCannotHelpAreToldOnStandardError) {
  const auto finished = replay_command("-", {30, 20, 100}).input(small_trace()).run();
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.err, StartsWith("kvbm: warning: the host tier (20 blocks"));
  EXPECT_EQ(std::ranges::count(finished.err, '\n'), 1);
}

}  // namespace
}  // namespace kvbm::e2e
