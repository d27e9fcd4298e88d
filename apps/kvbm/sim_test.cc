#include "apps/kvbm/sim.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

namespace kvbm::app {
namespace {

using testing::HasSubstr;
using Ids = std::vector<std::uint64_t>;

// Prompts of full blocks.
Trace trace_of(const std::vector<Ids>& prompts) {
  Trace trace;
  for (const Ids& ids : prompts) {
    const auto tokens = static_cast<std::uint32_t>(ids.size() * kTraceBlockTokens);
    trace.requests.push_back({trace.requests.size(), tokens, 1, ids});
  }
  return trace;
}

std::uint64_t block_hits(const Trace& trace, SimPolicy policy, std::size_t capacity) {
  return simulate(make_sim_trace(trace), policy, capacity).value().block_hits;
}

TEST(SimTest, HitsAreTheLongestPrefixThatIsPresent) {
  const Trace trace = trace_of({{7, 8, 9}, {7, 8, 5}, {6}, {7, 8, 9}});
  EXPECT_EQ(block_hits(trace, SimPolicy::Lru, 100), 0 + 2 + 0 + 3u);
}

TEST(SimTest, AnEmptyPromptAsksForNothing) {
  const Trace trace = trace_of({{}, {1}, {}, {1}});
  for (const SimPolicy policy : {SimPolicy::Lru, SimPolicy::Min, SimPolicy::MinForced}) {
    EXPECT_EQ(block_hits(trace, policy, 1), 1u) << to_string(policy);
  }
}

TEST(SimTest, LruEvictsTheDeepestOfTheOldestPrompt) {
  // 30 takes the place of 3, the deepest of the first prompt, and 40 that of 2.
  EXPECT_EQ(block_hits(trace_of({{1, 2, 3}, {30}, {40}, {1, 2, 3}}), SimPolicy::Lru, 3), 1u);
  // Here the prompt was used again between, so 30 is older.
  EXPECT_EQ(block_hits(trace_of({{1, 2}, {30}, {1, 2}, {40}, {1, 2}}), SimPolicy::Lru, 3), 4u);
}

TEST(SimTest, WhatThereIsNoRoomForIsNotCached) {
  const Trace trace = trace_of({{1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}, {1, 2, 3, 4}});
  EXPECT_EQ(block_hits(trace, SimPolicy::Lru, 3), 6u);
  EXPECT_EQ(block_hits(trace, SimPolicy::Min, 3), 6u);
  EXPECT_EQ(block_hits(trace, SimPolicy::MinForced, 3), 6u);
}

TEST(SimTest, APartialBlockCountsWithItsTokens) {
  Trace trace = trace_of({{1, 2}, {1, 2}});
  for (TraceRequest& request : trace.requests) request.input_length = 513;
  for (const SimPolicy policy : {SimPolicy::Lru, SimPolicy::Min, SimPolicy::MinForced}) {
    const SimRow row = simulate(make_sim_trace(trace), policy, 2).value();
    EXPECT_EQ(row, (SimRow{policy, 2, 2, 513, 4, 1026})) << to_string(policy);
  }
}

TEST(SimTest, MinNeedNotTakeABlockInButMinForcedMust) {
  const Trace trace = trace_of({{1}, {2}, {1}});
  EXPECT_EQ(block_hits(trace, SimPolicy::Min, 1), 1u);
  EXPECT_EQ(block_hits(trace, SimPolicy::MinForced, 1), 0u);
}

TEST(SimTest, CapacitiesThatNoPoolHasAreRefused) {
  const SimTrace trace = make_sim_trace(trace_of({{1}}));
  for (const SimPolicy policy : kSimPolicies) {
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{0xFFFFFFFF}}) {
      const auto row = simulate(trace, policy, capacity);
      ASSERT_FALSE(row);
      EXPECT_EQ(row.error().code, ErrorCode::InvalidConfig);
      EXPECT_THAT(row.error().message, HasSubstr("1 .. 4294967294"));
    }
  }
}

TEST(SimTest, NamesArePairedWithPolicies) {
  for (const SimPolicy policy : kSimPolicies) EXPECT_EQ(sim_policy(to_string(policy)), policy);
  EXPECT_EQ(sim_policy("LRU"), std::nullopt);
  EXPECT_EQ(sim_policy(""), std::nullopt);
}

TEST(SimTest, RowsAreToldAsJsonAndAsATable) {
  const std::vector<SimRow> rows = {{SimPolicy::MinForced, 1000, 25, 3000, 200, 100'000}};
  EXPECT_EQ(to_json(rows), nlohmann::json::parse(R"({"rows": [{"policy": "min-forced",
      "capacity": 1000, "block_hits": 25, "token_hits": 3000, "accesses": 200,
      "tokens": 100000}]})"));
  const std::string table = to_table(rows);
  for (const char* told : {"min-forced", "1,000", "12.50%", "3,000", "3.00%", "100,000"}) {
    EXPECT_THAT(table, HasSubstr(told));
  }
}

// --- the bounds against all that a cache could do ----------------------------------------------

using Set = unsigned;  // of blocks, by their numbers

// The most hits of any sequence of decisions what to keep.
std::uint64_t most_hits(const Trace& trace, std::size_t capacity, bool forced) {
  std::map<Set, std::uint64_t> reached = {{0, 0}};  // what is kept, the hits so far
  for (const TraceRequest& request : trace.requests) {
    Set whole = 0;
    Set must = 0;
    for (std::size_t i = 0; i < request.hash_ids.size(); ++i) {
      whole |= 1U << request.hash_ids[i];
      if (forced && i < capacity) must |= 1U << request.hash_ids[i];
    }
    std::map<Set, std::uint64_t> next;
    for (const auto& [kept, hits_before] : reached) {
      std::uint64_t hits = hits_before;
      for (const std::uint64_t id : request.hash_ids) {
        if ((kept >> id & 1U) == 0) break;
        ++hits;
      }
      const Set all = kept | whole;
      for (Set keep = all;; keep = (keep - 1) & all) {
        if (std::popcount(keep) <= static_cast<int>(capacity) && (keep & must) == must) {
          next[keep] = std::max(next[keep], hits);
        }
        if (keep == 0) break;
      }
    }
    reached = std::move(next);
  }
  std::uint64_t most = 0;
  for (const auto& [kept, hits] : reached) most = std::max(most, hits);
  return most;
}

// Prompts that are paths from the root of a small random tree.
Trace random_trace(std::mt19937_64& random, std::uint64_t blocks, std::size_t requests) {
  std::vector<Ids> paths;
  for (std::uint64_t id = 0; id < blocks; ++id) {
    const std::uint64_t parent = random() % (id + 1);
    paths.push_back(parent == id ? Ids{} : paths[parent]);
    paths.back().push_back(id);
  }
  std::vector<Ids> prompts;
  for (std::size_t i = 0; i < requests; ++i) prompts.push_back(paths[random() % blocks]);
  return trace_of(prompts);
}

std::uint64_t seed_of_this_run() {
  if (const char* given = std::getenv("KVBM_SEED")) return std::strtoull(given, nullptr, 10);
  return std::random_device()();
}

TEST(SimBoundsTest, NoDecisionsHitMore) {
  const std::uint64_t seed = seed_of_this_run();
  std::printf("KVBM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 60; ++round) {
    const Trace trace = random_trace(random, 6, 9);
    for (std::size_t capacity = 1; capacity <= 4; ++capacity) {
      SCOPED_TRACE("round " + std::to_string(round) + ", capacity " + std::to_string(capacity));
      const std::uint64_t min = block_hits(trace, SimPolicy::Min, capacity);
      const std::uint64_t forced = block_hits(trace, SimPolicy::MinForced, capacity);
      ASSERT_EQ(min, most_hits(trace, capacity, false));
      ASSERT_EQ(forced, most_hits(trace, capacity, true));
      ASSERT_LE(block_hits(trace, SimPolicy::Lru, capacity), forced);
    }
  }
}

// --- a public trace --------------------------------------------------------------------------

struct Known {
  std::size_t capacity;
  std::uint64_t block_hits;
  std::uint64_t token_hits;
};

void expect_rows(const SimTrace& trace, SimPolicy policy, const std::vector<Known>& known) {
  for (const Known& one : known) {
    const auto row = simulate(trace, policy, one.capacity);
    ASSERT_TRUE(row);
    EXPECT_EQ(*row,
              (SimRow{policy, one.capacity, one.block_hits, one.token_hits, 288'500, 144'793'823}));
  }
}

// Counts that independent simulators agree on, for Mooncake's conversation trace (FAST'25).
TEST(SimTest, CountsOfTheConversationTrace) {
  const char* path = std::getenv("KVBM_TRACE");
  if (!path) {
    GTEST_SKIP() << "SKIPPED: set KVBM_TRACE to the path of Mooncake's conversation_trace.jsonl";
  }
  const auto read = read_trace(path);
  ASSERT_TRUE(read) << read.error().message;
  const SimTrace trace = make_sim_trace(*read);
  ASSERT_EQ(trace.unique_blocks, 182'790u) << path << " is not the conversation trace";

  expect_rows(trace, SimPolicy::Lru,
              {{914, 12'693, 6'496'619},
               {1'828, 15'138, 7'746'806},
               {3'656, 22'869, 11'700'695},
               {9'140, 56'483, 28'902'725},
               {18'279, 80'466, 41'178'281},
               {36'558, 99'632, 50'988'054},
               {91'395, 104'759, 53'611'499},
               {182'790, 105'710, 54'098'411}});
  expect_rows(trace, SimPolicy::MinForced,
              {{914, 49'115, 25'130'935},
               {1'828, 69'197, 35'410'292},
               {3'656, 89'988, 46'052'210},
               {9'140, 105'710, 54'098'411},
               {18'279, 105'710, 54'098'411},
               {36'558, 105'710, 54'098'411},
               {91'395, 105'710, 54'098'411},
               {182'790, 105'710, 54'098'411}});
}

}  // namespace
}  // namespace kvbm::app
