// `kvbm replay --deterministic` against itself, and against `kvbm sim --tiers`, which foretells it:
// no bytes here, real files there, and the same hits and the same blocks left in every tier.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Arguments = std::vector<std::string>;

struct Sizes {
  Tiers tiers;
  std::uint64_t block_bytes;  // of two layers; decides how many blocks one transfer takes
};

Arguments arguments_of(const Sizes& sizes) {
  return {"--device-blocks", std::to_string(sizes.tiers.device),
          "--host-blocks",   std::to_string(sizes.tiers.host),
          "--disk-blocks",   std::to_string(sizes.tiers.disk),
          "--block-bytes",   std::to_string(sizes.block_bytes)};
}

Command sim_tiers(const Sizes& sizes, const Arguments& more = {}) {
  Arguments arguments = arguments_of(sizes);
  arguments.insert(arguments.begin(), {"sim", "-", "--tiers"});
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Command(std::move(arguments));
}

json predicted(const std::string& trace, const Sizes& sizes) {
  return parse_only_json(sim_tiers(sizes, {"--json"}).input(trace).run());
}

json deterministic_replay(const std::string& trace, const Sizes& sizes,
                          const Arguments& more = {}) {
  Arguments arguments = arguments_of(sizes);
  arguments.insert(arguments.begin(), {"replay", "-"});
  arguments.insert(arguments.end(), {"--layers", "2", "--deterministic", "--json"});
  arguments.insert(arguments.end(), more.begin(), more.end());
  return parse_only_json(Command(std::move(arguments)).input(trace).run());
}

// What a simulation tells, as a replay with these sizes has counted it.
json replayed(const std::string& trace, const Sizes& sizes) {
  const json report = deterministic_replay(trace, sizes);
  json same;
  for (const char* key :
       {"requests", "prompt_tokens", "hit_tokens", "evictions", "dropped_offloads", "run_digest"}) {
    same[key] = report.at(key);
  }
  for (const auto& [name, edge] : report.at("edges").items()) {
    same["edges"][name]["blocks"] = edge.at("blocks");
  }
  return same;
}

// Requests of many transfers each, on any number of threads.
TEST(DeterministicTest, RunsHaveEqualDigests) {
  const Sizes sizes{kSmallTiers, 256 * 1024};
  const auto digest = [&](const std::string& trace, const std::string& threads) {
    const json report =
        deterministic_replay(trace, sizes, {"--transfer-threads", threads, "--limit", "150"});
    return report.at("run_digest").get<std::string>();
  };
  const std::string trace = small_trace();
  const std::string first = digest(trace, "1");
  EXPECT_EQ(first.size(), 16u);
  for (const char* threads : {"4", "16"}) EXPECT_EQ(digest(trace, threads), first);
  EXPECT_NE(digest(small_trace(2), "1"), first);
  EXPECT_TRUE(replay_json(trace, kSmallTiers).at("run_digest").is_null());
}

// Copies that are late or hang end in another order than they began, and still the engine takes
// them in that order.
TEST(DeterministicTest, RunsHaveEqualDigestsAlsoUnderFaults) {
  const Sizes sizes{kSmallTiers, 256 * 1024};
  const std::string trace = small_trace();
  const auto faulty = [&](const std::string& seed, const std::string& threads) {
    return deterministic_replay(
        trace, sizes,
        {"--transfer-threads", threads, "--fault-rate", "0.1", "--seed", seed, "--limit", "150"});
  };
  const json first = faulty("1", "1");
  for (const char* threads : {"1", "8"}) {
    const json again = faulty("1", threads);
    for (const char* key : {"run_digest", "hit_tokens", "faults", "failed_transfers"}) {
      EXPECT_EQ(again.at(key), first.at(key)) << key;
    }
  }
  const json other = faulty("2", "1");
  EXPECT_NE(other["run_digest"], first["run_digest"]);
  for (const json& report : {first, other}) {
    EXPECT_EQ(report.at("wrong_blocks"), 0);
    EXPECT_GT(report.at("checksum_mismatches"), 0);
    for (const auto& [edge, count] : report.at("faults").at("error").items()) {
      EXPECT_GT(count, 0) << edge;
      EXPECT_GT(report.at("faults").at("wrong_bytes").at(edge), 0) << edge;
    }
    EXPECT_GT(sum(report.at("faults").at("late")), 0u);
  }
}

TEST(SimTiersTest, AReplayHitsWhatWasForetold) {
  const Sizes shapes[] = {
      {kSmallTiers, 2048},   {kSmallTiers, 256 * 1024},   // four blocks a transfer
      {{2, 60, 500}, 4096},                               // prompts that the device has no room for
      {{60, 20, 300}, 4096},                              // a host that is smaller than the device
      {{20, 3, 40}, 4096},                                // hardly any room on the way down
      {{1, 1, 1}, 4096},     {{5000, 5000, 5000}, 4096},  // nothing is ever evicted
  };
  for (const Sizes& sizes : shapes) {
    SCOPED_TRACE("device " + std::to_string(sizes.tiers.device) + ", host " +
                 std::to_string(sizes.tiers.host) + ", block bytes " +
                 std::to_string(sizes.block_bytes));
    const std::string trace = small_trace(sizes.block_bytes + sizes.tiers.host);
    EXPECT_EQ(replayed(trace, sizes), predicted(trace, sizes));
  }
}

TEST(SimTiersTest, AlsoOfATraceThatEvictsEverywhere) {
  const std::string trace = generate({"--seed", "5", "--requests", "3000", "--users", "150",
                                      "--max-prompt-tokens", "30000", "--one-off-tokens", "6000"});
  const Sizes sizes{{80, 600, 3000}, 4096};
  const json foretold = predicted(trace, sizes);
  for (const char* tier : {"device", "host", "disk"}) {
    EXPECT_GT(foretold["evictions"][tier], 1000u) << tier;
    EXPECT_GT(foretold["hit_tokens"][tier], 100'000u) << tier;
  }
  EXPECT_EQ(replayed(trace, sizes), foretold);
}

TEST(SimTiersTest, TheTableTellsTheSame) {
  const std::string trace = small_trace();
  const TemporaryFolder folder;
  const Sizes sizes{kSmallTiers, 4096};
  const Finished finished = sim_tiers(sizes, {"--json", folder / "sim.json"}).input(trace).run();
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  const json report = json::parse(read_file(folder / "sim.json"));
  EXPECT_EQ(report, predicted(trace, sizes));
  EXPECT_THAT(finished.out,
              HasSubstr("\nrun digest: " + report["run_digest"].get<std::string>() + "\n"));
  EXPECT_THAT(finished.out, HasSubstr("host -> disk"));
}

TEST(SimTiersTest, TiersNeedTheirSizesAndNothingElse) {
  const auto refused = [](Arguments arguments, const std::string& why) {
    arguments.insert(arguments.begin(), {"sim", "-"});
    const Finished finished = Command(std::move(arguments)).run();
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_THAT(finished.err, HasSubstr(why));
  };
  refused({"--tiers"}, "--tiers requires --device-blocks");
  refused({"--device-blocks", "5"}, "--tiers");
  Arguments both = arguments_of({kSmallTiers, 4096});
  both.insert(both.end(), {"--tiers", "--policy", "lru"});
  refused(both, "--policy excludes --tiers");
  refused({"--tiers", "--device-blocks", "0"}, "'0' is not a whole number from 1 to 4294967294");
}

}  // namespace
}  // namespace kvbm::e2e
