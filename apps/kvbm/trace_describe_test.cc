#include "apps/kvbm/trace_describe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/kvbm/trace_generate.h"

namespace kvbm::app {
namespace {

// Four prompts of two conversations under one shared block 0, and one repeated prompt.
Trace sample() {
  return Trace{{{1000, 1200, 10, {0, 1, 2}},
                {2000, 600, 20, {0, 3}},
                {3500, 1600, 30, {0, 1, 4, 5}},
                {7250, 600, 60, {0, 3}}}};
}

TEST(TraceDescribeTest, CountsBySample) {
  const TraceShape shape = describe(sample());
  EXPECT_EQ(shape.requests, 4U);
  EXPECT_EQ(shape.duration_ms, 6250U);
  EXPECT_EQ(shape.prompt_tokens_total, 4000U);
  EXPECT_DOUBLE_EQ(shape.prompt_tokens_mean, 1000);
  EXPECT_EQ(shape.prompt_tokens_p50, 600U);
  EXPECT_EQ(shape.prompt_tokens_p99, 1600U);
  EXPECT_EQ(shape.prompt_tokens_max, 1600U);
  EXPECT_DOUBLE_EQ(shape.output_tokens_mean, 30);
  EXPECT_EQ(shape.block_accesses, 11U);
  EXPECT_EQ(shape.unique_blocks, 6U);
  EXPECT_EQ(shape.longest_prompt_blocks, 4U);
  EXPECT_DOUBLE_EQ(shape.used_once_share, 3.0 / 6);  // 2, 4 and 5
  EXPECT_DOUBLE_EQ(shape.infinite_block_hit_ratio, 5.0 / 11);
  // 512 (request 2), 1024 (request 3) and 512 + 88 (request 4).
  EXPECT_DOUBLE_EQ(shape.infinite_token_hit_ratio, 2136.0 / 4000);
  EXPECT_DOUBLE_EQ(shape.prompts_wholly_present_share, 1.0 / 4);
}

TEST(TraceDescribeTest, ReuseDistancesBySample) {
  // Latest first, after each request: 0 1 2; 0 3 1 2; 0 1 4 5 3 2. Blocks before each reuse:
  // 0: 0; 0: 0 and 1: 2; 0: 0 and 3: 4.
  const TraceShape shape = describe(sample());
  EXPECT_EQ(shape.reuses, 5U);
  EXPECT_EQ(shape.reuse_distance_p25, 0U);
  EXPECT_EQ(shape.reuse_distance_p50, 0U);
  EXPECT_EQ(shape.reuse_distance_p75, 2U);
  EXPECT_EQ(shape.reuse_distance_p90, 4U);
}

TEST(TraceDescribeTest, ReuseDistancesAreThoseOfAnLruList) {
  GenerateOptions options;
  options.requests = 400;
  const Trace trace = *generate_trace(options);
  std::vector<std::uint64_t> latest;  // latest last
  std::vector<std::size_t> distances;
  for (const TraceRequest& request : trace.requests) {
    for (const std::uint64_t id : request.hash_ids) {
      const auto found = std::find(latest.begin(), latest.end(), id);
      if (found != latest.end()) {
        distances.push_back(static_cast<std::size_t>(latest.end() - found) - 1);
      }
    }
    for (std::size_t i = request.hash_ids.size(); i-- > 0;) {
      const std::uint64_t id = request.hash_ids[i];
      latest.erase(std::remove(latest.begin(), latest.end(), id), latest.end());
      latest.push_back(id);
    }
  }
  std::sort(distances.begin(), distances.end());
  const auto rank = [&](std::size_t percent) {
    return distances[(distances.size() * percent + 99) / 100 - 1];
  };
  const TraceShape shape = describe(trace);
  ASSERT_EQ(shape.reuses, distances.size());
  EXPECT_EQ(shape.reuse_distance_p25, rank(25));
  EXPECT_EQ(shape.reuse_distance_p50, rank(50));
  EXPECT_EQ(shape.reuse_distance_p75, rank(75));
  EXPECT_EQ(shape.reuse_distance_p90, rank(90));
}

TEST(TraceDescribeTest, PercentilesAreNearestRank) {
  Trace trace;
  for (std::uint32_t i = 200; i >= 1; --i) {
    trace.requests.push_back(TraceRequest{0, i, 1, {i}});
  }
  const TraceShape shape = describe(trace);
  EXPECT_EQ(shape.prompt_tokens_p50, 100U);
  EXPECT_EQ(shape.prompt_tokens_p99, 198U);
  EXPECT_EQ(shape.prompt_tokens_max, 200U);
  EXPECT_DOUBLE_EQ(shape.prompt_tokens_mean, 100.5);
}

TEST(TraceDescribeTest, NothingToCountGivesZeros) {
  const TraceShape empty = describe(Trace{});
  EXPECT_EQ(empty.requests, 0U);
  EXPECT_EQ(empty.infinite_token_hit_ratio, 0);

  const TraceShape no_tokens = describe(Trace{{{5, 0, 0, {}}}});
  EXPECT_EQ(no_tokens.requests, 1U);
  EXPECT_EQ(no_tokens.duration_ms, 0U);
  EXPECT_EQ(no_tokens.used_once_share, 0);
  EXPECT_EQ(no_tokens.infinite_block_hit_ratio, 0);
  EXPECT_EQ(no_tokens.prompts_wholly_present_share, 0);

  const TraceShape no_reuse = describe(Trace{{{0, 600, 1, {1, 2}}}});
  EXPECT_EQ(no_reuse.reuses, 0U);
  EXPECT_EQ(no_reuse.used_once_share, 1);
  EXPECT_EQ(no_reuse.reuse_distance_p90, 0U);
}

TEST(TraceDescribeTest, TableForPeople) {
  EXPECT_EQ(to_table(describe(sample())),
            "requests                                4\n"
            "duration                                6.250 s\n"
            "prompt tokens                           4,000\n"
            "prompt tokens mean / p50 / p99 / max    1,000 / 600 / 1,600 / 1,600\n"
            "output tokens mean                      30\n"
            "longest prompt                          4 blocks\n"
            "block accesses                          11\n"
            "unique blocks                           6\n"
            "used once                               50.0 %\n"
            "infinite cache: block / token hits      45.5 % / 53.4 %\n"
            "prompts wholly present                  25.0 %\n"
            "reuses                                  5\n"
            "reuse distance p25 / p50 / p75 / p90    0 / 0 / 2 / 4 blocks\n");

  TraceShape large;
  large.requests = 999;
  large.block_accesses = 1000;
  large.unique_blocks = 1'234'567'890;
  const std::string table = to_table(large);
  EXPECT_NE(table.find(" 999\n"), std::string::npos);
  EXPECT_NE(table.find(" 1,000\n"), std::string::npos);
  EXPECT_NE(table.find(" 1,234,567,890\n"), std::string::npos);
}

TEST(TraceDescribeTest, JsonForPrograms) {
  const nlohmann::json expected = nlohmann::json::parse(R"({
      "requests": 4, "duration_ms": 6250, "prompt_tokens_total": 4000,
      "prompt_tokens_mean": 1000.0, "prompt_tokens_p50": 600, "prompt_tokens_p99": 1600,
      "prompt_tokens_max": 1600, "output_tokens_mean": 30.0, "block_accesses": 11,
      "unique_blocks": 6, "longest_prompt_blocks": 4, "used_once_share": 0.5,
      "infinite_token_hit_ratio": 0.534, "prompts_wholly_present_share": 0.25, "reuses": 5,
      "reuse_distance_p25": 0, "reuse_distance_p50": 0, "reuse_distance_p75": 2,
      "reuse_distance_p90": 4})");
  nlohmann::json actual = to_json(describe(sample()));
  EXPECT_NEAR(actual["infinite_block_hit_ratio"].get<double>(), 5.0 / 11, 1e-12);
  actual.erase("infinite_block_hit_ratio");
  EXPECT_EQ(actual, expected);
}

}  // namespace
}  // namespace kvbm::app
