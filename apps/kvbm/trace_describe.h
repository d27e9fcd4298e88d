// The shape of a trace: its size, its sharing and how far apart reuses lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "apps/kvbm/trace.h"

namespace kvbm::app {

// Percentiles are nearest-rank: p of n values is the ceil(p * n)-th smallest. Shares and ratios are
// from 0 to 1, and 0 where nothing was counted.
struct TraceShape {
  std::size_t requests = 0;
  std::uint64_t duration_ms = 0;  // first to last timestamp

  std::uint64_t prompt_tokens_total = 0;
  double prompt_tokens_mean = 0;
  std::uint32_t prompt_tokens_p50 = 0;
  std::uint32_t prompt_tokens_p99 = 0;
  std::uint32_t prompt_tokens_max = 0;
  double output_tokens_mean = 0;

  std::size_t block_accesses = 0;  // ids in all prompts
  std::size_t unique_blocks = 0;   // distinct ids
  std::size_t longest_prompt_blocks = 0;
  double used_once_share = 0;  // of the unique blocks

  // A cache that never evicts and keeps every id, the partial last one too. A hit is an id whose
  // whole prefix occurred in an earlier request; the token ratio weighs it with its tokens.
  double infinite_block_hit_ratio = 0;
  double infinite_token_hit_ratio = 0;
  double prompts_wholly_present_share = 0;  // of the requests; a prompt without blocks is not

  // Distinct blocks used after a block's last use, when a request looks it up again. The blocks of
  // a request count as used deepest first, so a leaf-first LRU cache of at least distance + 1
  // blocks still holds the block.
  std::size_t reuses = 0;
  std::size_t reuse_distance_p25 = 0;
  std::size_t reuse_distance_p50 = 0;
  std::size_t reuse_distance_p75 = 0;
  std::size_t reuse_distance_p90 = 0;
};

// Exact; O(n log n) in the number of accesses n. `trace` is as read_trace() returns it, or empty.
TraceShape describe(const Trace& trace);

// Lines of "name  value" for people, newline at the end.
std::string to_table(const TraceShape& shape);

// One flat object whose keys are the members' names.
nlohmann::json to_json(const TraceShape& shape);

}  // namespace kvbm::app
