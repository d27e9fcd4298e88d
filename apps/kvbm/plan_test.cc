#include "apps/kvbm/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "apps/kvbm/plan_html.h"
#include "apps/kvbm/xml_problem.h"

namespace kvbm::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr std::size_t kBlock = 100'000'000;  // ten a GB

// Two prompts of 15 blocks in turns, three times each.
Trace two_prompts() {
  Trace trace;
  for (std::uint64_t i = 0; i < 6; ++i) {
    TraceRequest request{.timestamp_ms = i,
                         .input_length = 15 * kTraceBlockTokens,
                         .output_length = 1,
                         .hash_ids = {}};
    for (std::uint64_t block = 0; block < 15; ++block) {
      request.hash_ids.push_back(i % 2 * 100 + block);
    }
    trace.requests.push_back(std::move(request));
  }
  return trace;
}

constexpr std::uint64_t kPromptTokens = 6 * 15 * kTraceBlockTokens;
constexpr std::uint64_t kRepeated = 4 * 15 * kTraceBlockTokens;  // what any tier could serve

PlanOptions options(std::vector<std::uint64_t> host_gb, std::vector<std::uint64_t> disk_gb) {
  return {.block_bytes = kBlock,
          .prefill_tokens_per_second = 512,
          .host_gb = std::move(host_gb),
          .disk_gb = std::move(disk_gb),
          .host_mb_per_second = 1000,
          .disk_mb_per_second = 100};
}

TEST(PlanTest, AHostThatHoldsAllIsLoadedFromAlone) {
  const auto report = plan(two_prompts(), options({3}, {3})).value();
  ASSERT_EQ(report.rows.size(), 1u);
  const PlanRow& row = report.rows[0];
  EXPECT_EQ(report.prompt_tokens, kPromptTokens);
  EXPECT_EQ(report.device_blocks, 15u);
  EXPECT_DOUBLE_EQ(report.device_gb(), 1.5);
  EXPECT_DOUBLE_EQ(report.prefill_seconds(), 90);
  // The device has room for one prompt, so it has lost the other one when that comes again.
  EXPECT_THAT(row.hit_tokens, ElementsAre(0, kRepeated, 0));
  EXPECT_DOUBLE_EQ(row.saved_seconds, 60);
  EXPECT_DOUBLE_EQ(row.computed_seconds, 30);
  EXPECT_DOUBLE_EQ(row.host_load_seconds, 6) << "60 blocks of 0.1 GB at 1 GB/s";
  EXPECT_EQ(row.disk_load_seconds, 0);
  EXPECT_DOUBLE_EQ(row.net_seconds(), 54);
  EXPECT_EQ(row.disk_bytes_written, 30 * kBlock);
}

TEST(PlanTest, WhatTheHostHasLostComesFromDiskOnBothPaths) {
  const PlanRow row = plan(two_prompts(), options({2}, {3})).value().rows[0];
  EXPECT_EQ(row.all_hit_tokens(), kRepeated);
  EXPECT_GT(row.hit_tokens[2], 0u);
  EXPECT_DOUBLE_EQ(row.host_load_seconds, 6);
  EXPECT_DOUBLE_EQ(row.disk_load_seconds, static_cast<double>(row.hit_tokens[2]) / 512)
      << "a block a second";
  EXPECT_DOUBLE_EQ(row.load_seconds(), row.host_load_seconds + row.disk_load_seconds);
}

// The engine has its device tier anyway, so no other tier saves what that serves.
TEST(PlanTest, HitsOfTheDeviceAreNoSaving) {
  PlanOptions wanted = options({3}, {3});
  wanted.device_gb = 3;
  const auto report = plan(two_prompts(), wanted).value();
  EXPECT_EQ(report.device_blocks, 30u);
  EXPECT_THAT(report.device_alone.hit_tokens, ElementsAre(kRepeated, 0, 0));
  EXPECT_DOUBLE_EQ(report.device_alone.computed_seconds, 30);
  EXPECT_EQ(report.device_alone.disk_bytes_written, 0u);
  const PlanRow& row = report.rows[0];
  EXPECT_THAT(row.hit_tokens, ElementsAre(kRepeated, 0, 0));
  EXPECT_EQ(row.load_seconds(), 0);
  EXPECT_EQ(row.saved_seconds, 0);
  EXPECT_EQ(row.net_seconds(), 0);
}

TEST(PlanTest, LoadsThatTakeLongerThanPrefillLose) {
  PlanOptions wanted = options({3}, {3});
  wanted.host_mb_per_second = 50;  // 2 s a block, which is computed in 1 s
  const auto report = plan(two_prompts(), wanted).value();
  EXPECT_DOUBLE_EQ(report.rows[0].saved_seconds, 60);
  EXPECT_DOUBLE_EQ(report.rows[0].net_seconds(), -60);
  EXPECT_THAT(to_table(report),
              HasSubstr("60.0   120.0  -60.0        30.0              3.0  loses\n"));
  EXPECT_THAT(to_html(report, "-"), HasSubstr("<td>-60.0</td>"));
  EXPECT_THAT(to_html(report, "-"), HasSubstr("<td>loses</td>"));
}

TEST(PlanTest, EmptyPromptsNeedNoTier) {
  Trace trace;
  trace.requests.resize(2);
  const auto report = plan(trace, options({1}, {1})).value();
  EXPECT_EQ(report.device_blocks, 1u);
  EXPECT_EQ(report.longest_prompt, 0u);
  EXPECT_EQ(report.rows[0].all_hit_tokens(), 0u);
  EXPECT_THAT(to_table(report), HasSubstr("0.00%"));
  EXPECT_EQ(xml_problem(to_html(report, "-")), "");
}

TEST(PlanTest, EachPairOfSizesIsARowAndLargerIsNeverWorse) {
  std::vector<std::size_t> done;
  const auto report = plan(two_prompts(), options({1, 2, 4000}, {1, 9000}), [&](std::size_t count) {
                        done.push_back(count);
                      }).value();
  const std::vector<PlanRow>& rows = report.rows;
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(rows[1].host_gb, 1u);
  EXPECT_EQ(rows[1].disk_gb, 9000u);
  EXPECT_EQ(rows[4].host_gb, 4000u);
  EXPECT_EQ(rows[4].disk_gb, 1u);
  EXPECT_GE(rows[1].all_hit_tokens(), rows[0].all_hit_tokens());
  EXPECT_GE(rows[4].all_hit_tokens(), rows[0].all_hit_tokens());
  ASSERT_EQ(done.size(), 42u) << "and the device alone";
  for (std::size_t i = 0; i < done.size(); ++i) EXPECT_EQ(done[i], i + 1);
}

TEST(PlanTest, SizesThatHoldNoBlockOrTooManyAreRefused) {
  PlanOptions wanted = options({1}, {1});
  wanted.block_bytes = 2 * kGigabyte;
  const auto none = plan(two_prompts(), wanted);
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, ErrorCode::InvalidConfig);
  EXPECT_THAT(none.error().message,
              HasSubstr("--host-gb: with blocks of 2000000000 bytes it must be 2 .. 8589934589 GB, "
                        "not 1"));
  wanted.block_bytes = 999'999'999'999;
  EXPECT_THAT(plan(two_prompts(), wanted).error().message, HasSubstr("it must be 1000 .. "));
  wanted = options({1}, {~std::uint64_t{0}});
  EXPECT_THAT(plan(two_prompts(), wanted).error().message,
              HasSubstr("--disk-gb: with blocks of 100000000 bytes it must be 1 .. 429496729 GB, "
                        "not 18446744073709551615"));
  wanted = options({1}, {429'496'729});
  EXPECT_TRUE(plan(two_prompts(), wanted).has_value());
  wanted = options({1}, {1});
  wanted.block_bytes = 1;
  wanted.device_gb = 5;
  EXPECT_THAT(plan(two_prompts(), wanted).error().message,
              HasSubstr("--device-gb: with blocks of 1 bytes it must be 1 .. 4 GB, not 5"));
}

TEST(PlanTest, ColumnsOfLargeNumbersStayApart) {
  const auto report = plan(two_prompts(), options({1}, {10'000'000})).value();
  const std::string table = to_table(report);
  EXPECT_THAT(table, HasSubstr("\nhost GB     disk GB  device hits  host hits  disk hits  "));
  EXPECT_THAT(table, HasSubstr("\n      1  10,000,000            0  "));
}

TEST(PlanTest, TableJsonAndPageTellTheSame) {
  const PlanOptions wanted = options({1, 3}, {3});
  const auto report = plan(two_prompts(), wanted).value();
  const std::string table = to_table(report);
  EXPECT_THAT(table, StartsWith("46,080 prompt tokens, 90.0 s of prefill if nothing is kept\n"
                                "device tier: 15 blocks of 100,000,000 bytes, 1.500 GB\n\n"
                                "host GB  disk GB  device hits  host hits"));
  EXPECT_THAT(table, HasSubstr("\n      0        0            0          0          0       0.00%"
                               "      0.0     0.0    0.0        90.0              0.0"
                               "  device alone\n"));
  EXPECT_THAT(table, HasSubstr("\n      3        3            0     30,720          0      66.67%"
                               "     60.0     6.0   54.0        30.0              3.0\n"));
  const auto json = to_json(report);
  EXPECT_EQ(json["block_bytes"], kBlock);
  EXPECT_EQ(json["prefill_tokens_per_second"], 512);
  EXPECT_EQ(json["host_mb_per_second"], 1000);
  EXPECT_EQ(json["disk_mb_per_second"], 100);
  EXPECT_EQ(json["device_blocks"], 15);
  EXPECT_EQ(json["device_gb"], 1.5);
  EXPECT_EQ(json["prompt_tokens"], kPromptTokens);
  EXPECT_EQ(json["device_alone"]["computed_seconds"], 90.0);
  ASSERT_EQ(json["rows"].size(), 2u);
  EXPECT_EQ(json["rows"][1]["host_gb"], 3);
  EXPECT_EQ(json["rows"][1]["hit_tokens"]["host"], kRepeated);
  EXPECT_EQ(json["rows"][1]["saved_seconds"], 60.0);
  EXPECT_EQ(json["rows"][1]["net_seconds"], 54.0);

  const std::string page = to_html(report, "a<b.jsonl");
  EXPECT_EQ(xml_problem(page), "");
  EXPECT_THAT(page, HasSubstr("a&lt;b.jsonl"));
  EXPECT_THAT(page, HasSubstr("<dt>block, bytes</dt><dd>100,000,000</dd>"));
  EXPECT_THAT(page, HasSubstr("<dt>device, blocks</dt><dd>15</dd>"));
  EXPECT_THAT(page, HasSubstr("<dt>device, GB</dt><dd>1.500</dd>"));
  EXPECT_THAT(page, HasSubstr("aria-label=\"device alone: 90.0 s\""));
  EXPECT_THAT(page, HasSubstr("aria-label=\"3 GB host, 3 GB disk: 36.0 s\""));
  EXPECT_THAT(page, HasSubstr("<td>54.0</td>"));
  EXPECT_THAT(page, Not(HasSubstr("iB<")));
  const PlanReport only{.options = wanted,
                        .prompt_tokens = report.prompt_tokens,
                        .longest_prompt = 15,
                        .device_blocks = 15,
                        .device_alone = report.device_alone,
                        .rows = {report.rows[1]}};
  // Of 90 s in all.
  EXPECT_THAT(to_html(only, "-"),
              HasSubstr("<rect class=\"computed\" x=\"0.00\" y=\"0\" width=\"333.33\""));
  EXPECT_THAT(to_html(only, "-"),
              HasSubstr("<rect class=\"host\" x=\"333.33\" y=\"0\" width=\"66.67\""));
}

}  // namespace
}  // namespace kvbm::app
