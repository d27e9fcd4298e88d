#include "apps/kvbm/trace_generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "apps/kvbm/trace_describe.h"

namespace kvbm::app {
namespace {

Trace generate(const GenerateOptions& options) {
  auto trace = generate_trace(options);
  EXPECT_TRUE(trace) << trace.error().message;
  return trace ? std::move(trace).value() : Trace{};
}

// FNV-1a of the trace as it would be written.
std::uint64_t digest(const Trace& trace) {
  std::string text;
  for (const TraceRequest& request : trace.requests) append_line(text, request);
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

// What read_trace() promises, and ids numbered by first appearance.
void expect_well_formed(const Trace& trace) {
  ASSERT_FALSE(trace.requests.empty());
  EXPECT_EQ(trace.requests.front().timestamp_ms, 0U);
  std::unordered_map<std::uint64_t, std::int64_t> parents;
  std::uint64_t last = 0;
  for (const TraceRequest& request : trace.requests) {
    ASSERT_GE(request.timestamp_ms, last);
    last = request.timestamp_ms;
    ASSERT_EQ(request.hash_ids.size(), trace_blocks(request.input_length));
    ASSERT_EQ(std::set<std::uint64_t>(request.hash_ids.begin(), request.hash_ids.end()).size(),
              request.hash_ids.size());
    std::int64_t parent = -1;
    for (const std::uint64_t id : request.hash_ids) {
      ASSERT_LE(id, parents.size());
      ASSERT_EQ(parents.try_emplace(id, parent).first->second, parent);
      parent = static_cast<std::int64_t>(id);
    }
  }
}

std::size_t common_blocks(const TraceRequest& a, const TraceRequest& b) {
  return static_cast<std::size_t>(
      std::mismatch(a.hash_ids.begin(), a.hash_ids.end(), b.hash_ids.begin(), b.hash_ids.end())
          .first -
      a.hash_ids.begin());
}

// One user in one endless conversation.
GenerateOptions one_chat() {
  GenerateOptions options;
  options.requests = 200;
  options.users = 1;
  options.system_prompts = 1;
  options.mean_turns = 1000;
  options.regenerate_percent = 0;
  options.one_off_percent = 0;
  options.max_prompt_tokens = 1'048'576;
  return options;
}

TEST(TraceGenerateTest, TheSameSeedGivesTheSameBytesEverywhere) {
  GenerateOptions options;
  EXPECT_EQ(digest(generate(options)), 0xc69a58a472cc0804ULL);
  EXPECT_EQ(digest(generate(options)), digest(generate(options)));
  options.seed = 2;
  EXPECT_NE(digest(generate(options)), 0xc69a58a472cc0804ULL);
}

TEST(TraceGenerateTest, FewerRequestsAreAPrefix) {
  GenerateOptions options;
  const Trace all = generate(options);
  options.requests = 100;
  const Trace some = generate(options);
  ASSERT_EQ(some.requests.size(), 100U);
  EXPECT_TRUE(std::equal(some.requests.begin(), some.requests.end(), all.requests.begin()));
}

TEST(TraceGenerateTest, TracesAreWellFormed) {
  for (const std::uint64_t seed : {0ULL, 1ULL, 2ULL, ~0ULL}) {
    GenerateOptions options;
    options.seed = seed;
    const Trace trace = generate(options);
    EXPECT_EQ(trace.requests.size(), options.requests);
    expect_well_formed(trace);
  }
}

TEST(TraceGenerateTest, TracesAreWellFormedAtTheEdgesOfTheOptions) {
  const std::vector<std::function<void(GenerateOptions&)>> edges = {
      [](GenerateOptions& o) { o.requests = 1; },
      [](GenerateOptions& o) { o.system_prompts = 1024; },
      [](GenerateOptions& o) { o.system_prompt_tokens = 0; },
      [](GenerateOptions& o) { o.system_prompt_tokens = 512 * 40; },
      [](GenerateOptions& o) { o.users = 1; },
      [](GenerateOptions& o) { o.users = 100'000; },
      [](GenerateOptions& o) { o.mean_turns = 1; },
      [](GenerateOptions& o) { o.mean_turns = 1000; },
      [](GenerateOptions& o) { o.opening_tokens = o.message_tokens = o.output_tokens = 1; },
      [](GenerateOptions& o) { o.opening_tokens = o.message_tokens = o.output_tokens = 100'000; },
      [](GenerateOptions& o) { o.think_ms = o.break_ms = o.pause_ms = 0; },
      [](GenerateOptions& o) { o.think_ms = o.break_ms = o.pause_ms = 86'400'000; },
      [](GenerateOptions& o) { o.break_percent = 100; },
      [](GenerateOptions& o) { o.regenerate_percent = 50; },
      [](GenerateOptions& o) { o.one_off_percent = 90; },
      [](GenerateOptions& o) { o.one_off_tokens = 1'000'000; },
      [](GenerateOptions& o) { o.system_prompt_tokens = 0, o.max_prompt_tokens = 2; },
      [](GenerateOptions& o) { o.system_prompt_tokens = 1001, o.max_prompt_tokens = 1502; },
      [](GenerateOptions& o) { o.max_prompt_tokens = 1'048'576; },
  };
  for (std::size_t i = 0; i < edges.size(); ++i) {
    SCOPED_TRACE(i);
    GenerateOptions options;
    options.requests = 300;
    edges[i](options);
    const Trace trace = generate(options);
    EXPECT_EQ(trace.requests.size(), options.requests);
    expect_well_formed(trace);
    for (const TraceRequest& request : trace.requests) {
      ASSERT_GE(request.input_length, 1U);
      ASSERT_LE(request.input_length, options.max_prompt_tokens);
      ASSERT_GE(request.output_length, 1U);
    }
  }
}

TEST(TraceGenerateTest, ATurnSharesTheFullBlocksOfTheTurnBefore) {
  const Trace trace = generate(one_chat());
  std::size_t continued = 0;
  for (std::size_t i = 1; i < trace.requests.size(); ++i) {
    const TraceRequest& before = trace.requests[i - 1];
    const TraceRequest& now = trace.requests[i];
    if (now.input_length <= before.input_length) continue;  // a new conversation
    ++continued;
    // Grown by the output and a message of at least one token, so the partial block has changed.
    ASSERT_GT(now.input_length, before.input_length + before.output_length);
    ASSERT_EQ(common_blocks(before, now), before.input_length / kTraceBlockTokens);
    // The user thinks only when the output is there.
    ASSERT_GT(now.timestamp_ms, before.timestamp_ms + before.output_length);
  }
  EXPECT_GT(continued, 150U);
}

TEST(TraceGenerateTest, ARepeatedPromptHasTheSameIds) {
  GenerateOptions options = one_chat();
  options.regenerate_percent = 50;
  const Trace trace = generate(options);
  expect_well_formed(trace);
  std::size_t repeated = 0;
  std::size_t grown = 0;
  for (std::size_t i = 1; i < trace.requests.size(); ++i) {
    const TraceRequest& before = trace.requests[i - 1];
    const TraceRequest& now = trace.requests[i];
    if (now.input_length == before.input_length) {
      ASSERT_EQ(now.hash_ids, before.hash_ids);
      ++repeated;
    } else if (now.input_length > before.input_length) {
      // Continues from the last output alone: those it replaced are gone.
      ASSERT_EQ(common_blocks(before, now), before.input_length / kTraceBlockTokens);
      ++grown;
    }
  }
  EXPECT_GT(repeated, 60U);
  EXPECT_GT(grown, 60U);
}

TEST(TraceGenerateTest, ConversationsShareTheirSystemPromptOnly) {
  GenerateOptions options;
  options.requests = 2000;
  options.system_prompts = 3;
  options.system_prompt_tokens = 4096;
  options.mean_turns = 1;
  options.one_off_percent = 0;
  const Trace trace = generate(options);
  std::unordered_map<std::uint64_t, std::vector<const TraceRequest*>> by_first;
  for (const TraceRequest& request : trace.requests) {
    by_first[request.hash_ids.front()].push_back(&request);
  }
  // Three system prompts of at least four full blocks each, so three first blocks.
  ASSERT_EQ(by_first.size(), 3U);
  std::vector<std::size_t> counts;
  for (const auto& [first, requests] : by_first) {
    counts.push_back(requests.size());
    const std::size_t shared = common_blocks(*requests[0], *requests[1]);
    EXPECT_GE(shared, 4U);
    EXPECT_LE(shared, 12U);
    for (std::size_t i = 1; i < requests.size(); ++i) {
      ASSERT_EQ(common_blocks(*requests[0], *requests[i]), shared);
    }
  }
  // Weights 1, 1/2 and 1/3: 6/11, 3/11 and 2/11 of the conversations.
  std::sort(counts.begin(), counts.end());
  EXPECT_NEAR(static_cast<double>(counts[2]), 2000 * 6 / 11.0, 90);
  EXPECT_NEAR(static_cast<double>(counts[1]), 2000 * 3 / 11.0, 90);
  EXPECT_NEAR(static_cast<double>(counts[0]), 2000 * 2 / 11.0, 90);
}

TEST(TraceGenerateTest, OneOffPromptsHaveTheirShareAndShareNothing) {
  GenerateOptions options;
  options.requests = 5000;
  options.one_off_percent = 30;
  const Trace trace = generate(options);
  std::unordered_map<std::uint64_t, std::size_t> uses;
  for (const TraceRequest& request : trace.requests) ++uses[request.hash_ids.front()];
  const auto alone = std::count_if(
      trace.requests.begin(), trace.requests.end(),
      [&](const TraceRequest& request) { return uses[request.hash_ids.front()] == 1; });
  EXPECT_NEAR(static_cast<double>(alone), 1500, 100);
}

TEST(TraceGenerateTest, PausesAreExponential) {
  // Single turns with outputs of at most 11 tokens, so the gaps are pauses but for 0.2 s.
  GenerateOptions options = one_chat();
  options.requests = 4001;
  options.mean_turns = 1;
  options.output_tokens = 1;
  options.pause_ms = 1'000'000;
  const Trace trace = generate(options);
  double sum = 0;
  std::size_t above_mean = 0;
  for (std::size_t i = 1; i < trace.requests.size(); ++i) {
    const auto gap =
        static_cast<double>(trace.requests[i].timestamp_ms - trace.requests[i - 1].timestamp_ms);
    sum += gap;
    if (gap > 1e6) ++above_mean;
  }
  EXPECT_NEAR(sum / 4000, 1e6, 5e4);
  EXPECT_NEAR(static_cast<double>(above_mean) / 4000, 0.368, 0.03);  // 1/e
}

TEST(TraceGenerateTest, SizesHaveTheirMedianAndQuarters) {
  GenerateOptions options = one_chat();
  options.requests = 4000;
  options.mean_turns = 1;
  options.system_prompt_tokens = 0;
  options.opening_tokens = 10'000;
  const Trace trace = generate(options);
  std::vector<double> lengths;
  for (const TraceRequest& request : trace.requests) lengths.push_back(request.input_length);
  std::sort(lengths.begin(), lengths.end());
  EXPECT_NEAR(lengths[1000], 5'100, 400);
  EXPECT_NEAR(lengths[2000], 10'000, 600);
  EXPECT_NEAR(lengths[3000], 19'600, 1'500);
}

TEST(TraceGenerateTest, DefaultsSpreadReuse) {
  for (const std::uint64_t seed : {1ULL, 2ULL, 3ULL}) {
    GenerateOptions options;
    options.seed = seed;
    const TraceShape shape = describe(generate(options));
    EXPECT_GT(shape.infinite_token_hit_ratio, 0.40);
    EXPECT_LT(shape.infinite_token_hit_ratio, 0.60);
    const auto unique = static_cast<double>(shape.unique_blocks);
    EXPECT_LT(static_cast<double>(shape.reuse_distance_p25), 0.02 * unique);
    EXPECT_GT(static_cast<double>(shape.reuse_distance_p90), 0.15 * unique);
    EXPECT_LT(static_cast<double>(shape.reuse_distance_p90), 0.60 * unique);
  }
}

TEST(TraceGenerateTest, RefusesOptionsOutOfRange) {
  const auto refusal = [](const std::function<void(GenerateOptions&)>& change) -> std::string {
    GenerateOptions options;
    change(options);
    const auto result = generate_trace(options);
    if (result) return "(accepted)";
    EXPECT_EQ(result.error().code, ErrorCode::InvalidConfig);
    return result.error().message;
  };
  using O = GenerateOptions;
  EXPECT_EQ(refusal([](O& o) { o.requests = 0; }), "requests is 0; it must be from 1 to 1000000");
  EXPECT_EQ(refusal([](O& o) { o.requests = 1'000'001; }),
            "requests is 1000001; it must be from 1 to 1000000");
  EXPECT_EQ(refusal([](O& o) { o.system_prompts = 0; }),
            "system_prompts is 0; it must be from 1 to 1024");
  EXPECT_EQ(refusal([](O& o) { o.system_prompts = 1025; }),
            "system_prompts is 1025; it must be from 1 to 1024");
  EXPECT_EQ(refusal([](O& o) { o.system_prompt_tokens = 100'001; }),
            "system_prompt_tokens is 100001; it must be from 0 to 100000");
  EXPECT_EQ(refusal([](O& o) { o.users = 0; }), "users is 0; it must be from 1 to 100000");
  EXPECT_EQ(refusal([](O& o) { o.users = 100'001; }),
            "users is 100001; it must be from 1 to 100000");
  EXPECT_EQ(refusal([](O& o) { o.mean_turns = 0; }), "mean_turns is 0; it must be from 1 to 1000");
  EXPECT_EQ(refusal([](O& o) { o.mean_turns = 1001; }),
            "mean_turns is 1001; it must be from 1 to 1000");
  EXPECT_EQ(refusal([](O& o) { o.opening_tokens = 0; }),
            "opening_tokens is 0; it must be from 1 to 100000");
  EXPECT_EQ(refusal([](O& o) { o.message_tokens = 100'001; }),
            "message_tokens is 100001; it must be from 1 to 100000");
  EXPECT_EQ(refusal([](O& o) { o.output_tokens = 0; }),
            "output_tokens is 0; it must be from 1 to 100000");
  EXPECT_EQ(refusal([](O& o) { o.think_ms = 86'400'001; }),
            "think_ms is 86400001; it must be from 0 to 86400000");
  EXPECT_EQ(refusal([](O& o) { o.break_ms = 86'400'001; }),
            "break_ms is 86400001; it must be from 0 to 86400000");
  EXPECT_EQ(refusal([](O& o) { o.pause_ms = 86'400'001; }),
            "pause_ms is 86400001; it must be from 0 to 86400000");
  EXPECT_EQ(refusal([](O& o) { o.break_percent = 101; }),
            "break_percent is 101; it must be from 0 to 100");
  EXPECT_EQ(refusal([](O& o) { o.regenerate_percent = 51; }),
            "regenerate_percent is 51; it must be from 0 to 50");
  EXPECT_EQ(refusal([](O& o) { o.one_off_percent = 91; }),
            "one_off_percent is 91; it must be from 0 to 90");
  EXPECT_EQ(refusal([](O& o) { o.one_off_tokens = 0; }),
            "one_off_tokens is 0; it must be from 1 to 1000000");
  // The least depends on the system prompts.
  EXPECT_EQ(refusal([](O& o) { o.system_prompt_tokens = 0, o.max_prompt_tokens = 1; }),
            "max_prompt_tokens is 1; it must be from 2 to 1048576");
  EXPECT_EQ(refusal([](O& o) { o.system_prompt_tokens = 1001, o.max_prompt_tokens = 1501; }),
            "max_prompt_tokens is 1501; it must be from 1502 to 1048576: more than 3/2 of "
            "system_prompt_tokens, which is 1001");
  EXPECT_EQ(refusal([](O& o) { o.max_prompt_tokens = 1'048'577; }),
            "max_prompt_tokens is 1048577; it must be from 2251 to 1048576");
}

}  // namespace
}  // namespace kvbm::app
