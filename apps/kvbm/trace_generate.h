// Synthetic traces: a seeded multi-turn chat service.
#pragma once

#include <cstddef>
#include <cstdint>

#include "apps/kvbm/trace.h"
#include "kvbm/result.h"

namespace kvbm::app {

// The workload. Each of `users` people holds one conversation at a time. A conversation starts with
// a system prompt, chosen Zipf-like (the i-th most popular has weight 1/i), and an opening message;
// each further turn's prompt is the earlier prompt, its output and a new message. The next turn
// comes after some thought, or after a break; some turns ask for the same prompt again. Beside the
// chat come one-off prompts that share nothing.
//
// A "typical" size or time is the median of a skewed distribution: a quarter of the sizes is below
// half of it, a quarter above twice it; for thinking it is a third and three times. A value outside
// the range given here is refused.
//
// The defaults give an infinite cache a token hit ratio of about one half, and reuses that caches
// of 2 %, 15 % and 60 % of the unique blocks catch to visibly different parts.
struct GenerateOptions {
  // Any. The same options give the same trace on every machine.
  std::uint64_t seed = 1;
  // 1 .. 1,000,000. Exactly so many are generated.
  std::size_t requests = 1000;

  // 1 .. 1,024.
  std::size_t system_prompts = 4;
  // 0 .. 100,000. Each system prompt is from 1/2 to 3/2 of it long.
  std::uint32_t system_prompt_tokens = 1500;

  // 1 .. 100,000.
  std::size_t users = 120;
  // 1 .. 1,000. Turns of a conversation, geometrically distributed.
  std::uint32_t mean_turns = 5;
  // 1 .. 100,000 each. Typical first message, further message and output.
  std::uint32_t opening_tokens = 2000;
  std::uint32_t message_tokens = 300;
  std::uint32_t output_tokens = 300;

  // 0 .. 86,400,000 each. Typical thought, from the end of an output to the next turn; mean break
  // instead of it; mean pause before a user's next conversation. The means are exponential.
  std::uint32_t think_ms = 30'000;
  std::uint32_t break_ms = 900'000;
  std::uint32_t pause_ms = 60'000;
  // 0 .. 100. Share of the turns after the first that follow a break.
  std::uint32_t break_percent = 40;
  // 0 .. 50. Share of the turns after the first that repeat the prompt before.
  std::uint32_t regenerate_percent = 2;

  // 0 .. 90. Expected share of the requests.
  std::uint32_t one_off_percent = 12;
  // 1 .. 1,000,000. Typical.
  std::uint32_t one_off_tokens = 8000;

  // 2 .. 1,048,576, and more than 3/2 of system_prompt_tokens. A prompt that would be longer is
  // cut; a conversation that would grow longer ends and a new one starts in its place.
  std::uint32_t max_prompt_tokens = 131'072;
};

// The trace of `options`: well-formed as read_trace() has it, the first timestamp 0, ids numbered
// from 0 by first appearance. Prompts share the ids of the full blocks they have in common, within
// a conversation and in its system prompt; a partial last block has an id of its own, which occurs
// again only when the same prompt does. InvalidConfig names the option that is out of range.
Result<Trace> generate_trace(const GenerateOptions& options);

}  // namespace kvbm::app
