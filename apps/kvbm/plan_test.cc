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
  const auto rows = plan(two_prompts(), options({3}, {3})).value();
  ASSERT_EQ(rows.size(), 1u);
  const PlanRow& row = rows[0];
  EXPECT_EQ(row.prompt_tokens, kPromptTokens);
  // The device has room for one prompt, so it has lost the other one when that comes again.
  EXPECT_THAT(row.hit_tokens, ElementsAre(0, kRepeated, 0));
  EXPECT_DOUBLE_EQ(row.saved_seconds, 60);
  EXPECT_DOUBLE_EQ(row.computed_seconds, 30);
  EXPECT_DOUBLE_EQ(row.host_load_seconds, 6) << "60 blocks of 0.1 GB at 1 GB/s";
  EXPECT_EQ(row.disk_load_seconds, 0);
  EXPECT_EQ(row.disk_bytes_written, 30 * kBlock);
}

TEST(PlanTest, WhatTheHostHasLostComesFromDiskOnBothPaths) {
  const PlanRow row = plan(two_prompts(), options({2}, {3})).value()[0];
  EXPECT_EQ(row.all_hit_tokens(), kRepeated);
  EXPECT_GT(row.hit_tokens[2], 0u);
  EXPECT_DOUBLE_EQ(row.host_load_seconds, 6);
  EXPECT_DOUBLE_EQ(row.disk_load_seconds, static_cast<double>(row.hit_tokens[2]) / 512)
      << "a block a second";
  EXPECT_DOUBLE_EQ(row.load_seconds(), row.host_load_seconds + row.disk_load_seconds);
}

TEST(PlanTest, ADeviceThatHoldsAllNeedsNoLoads) {
  PlanOptions wanted = options({3}, {3});
  wanted.device_gb = 3;
  const PlanRow row = plan(two_prompts(), wanted).value()[0];
  EXPECT_THAT(row.hit_tokens, ElementsAre(kRepeated, 0, 0));
  EXPECT_EQ(row.load_seconds(), 0);
  EXPECT_DOUBLE_EQ(row.saved_seconds, 60);
}

TEST(PlanTest, EachPairOfSizesIsARowAndLargerIsNeverWorse) {
  std::vector<std::size_t> done;
  const auto rows = plan(two_prompts(), options({1, 2, 4000}, {1, 9000}), [&](std::size_t count) {
                      done.push_back(count);
                    }).value();
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(rows[1].host_gb, 1u);
  EXPECT_EQ(rows[1].disk_gb, 9000u);
  EXPECT_EQ(rows[4].host_gb, 4000u);
  EXPECT_EQ(rows[4].disk_gb, 1u);
  EXPECT_GE(rows[1].all_hit_tokens(), rows[0].all_hit_tokens());
  EXPECT_GE(rows[4].all_hit_tokens(), rows[0].all_hit_tokens());
  ASSERT_EQ(done.size(), 36u);
  for (std::size_t i = 0; i < done.size(); ++i) EXPECT_EQ(done[i], i + 1);
}

TEST(PlanTest, SizesThatHoldNoBlockOrTooManyAreRefused) {
  PlanOptions wanted = options({1}, {1});
  wanted.block_bytes = 2 * kGigabyte;
  const auto none = plan(two_prompts(), wanted);
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, ErrorCode::InvalidConfig);
  EXPECT_THAT(none.error().message, HasSubstr("--host-gb: 1 GB are 0 blocks of 2000000000 bytes"));
  wanted = options({1}, {~std::uint64_t{0}});
  EXPECT_THAT(plan(two_prompts(), wanted).error().message, HasSubstr("--disk-gb: "));
  wanted = options({1}, {1});
  wanted.block_bytes = 1;
  wanted.device_gb = 5;
  EXPECT_THAT(plan(two_prompts(), wanted).error().message,
              HasSubstr("--device-gb: 5 GB are 5000000000 blocks"));
}

TEST(PlanTest, TableJsonAndPageTellTheSame) {
  const PlanOptions wanted = options({1, 3}, {3});
  const auto rows = plan(two_prompts(), wanted).value();
  const std::string table = to_table(rows);
  EXPECT_THAT(table, HasSubstr("30,720   66.67%           60.0          6.0           30.0"));
  EXPECT_THAT(table, HasSubstr("nothing kept"));
  EXPECT_THAT(table, HasSubstr("90.0 s of prefill in all\n"));
  const auto json = to_json(rows);
  ASSERT_EQ(json["rows"].size(), 2u);
  EXPECT_EQ(json["rows"][1]["host_gb"], 3);
  EXPECT_EQ(json["rows"][1]["hit_tokens"]["host"], kRepeated);
  EXPECT_EQ(json["rows"][1]["saved_seconds"], 60.0);
  EXPECT_EQ(to_json({})["rows"].size(), 0u);

  const std::string page = to_html(std::span(rows).last(1), wanted, "a<b.jsonl");
  EXPECT_EQ(xml_problem(page), "");
  EXPECT_THAT(page, HasSubstr("a&lt;b.jsonl"));
  EXPECT_THAT(page, HasSubstr("aria-label=\"3 GB host, 3 GB disk: 36.0 s\""));
  // Of 90 s in all.
  EXPECT_THAT(page, HasSubstr("<rect class=\"computed\" x=\"0.00\" y=\"0\" width=\"333.33\""));
  EXPECT_THAT(page, HasSubstr("<rect class=\"host\" x=\"333.33\" y=\"0\" width=\"66.67\""));
  EXPECT_EQ(xml_problem(to_html({}, wanted, "-")), "");
}

}  // namespace
}  // namespace kvbm::app
