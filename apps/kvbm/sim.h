// Runs a trace through one pool's bookkeeping, without bytes, to see how often a policy would hit.
//
// The model. Requests come in file order, one at a time. A request hits the longest prefix of its
// blocks that is present. All its blocks are then held together, each absent one in a free place or
// that of an evicted block; when nothing is left to evict, the rest of the prompt is not cached.
// Then all are let go, the deepest as the oldest. A partial last block is cached as the trace names
// it and counts with its tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "apps/kvbm/trace.h"
#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm::app {

enum class SimPolicy : std::uint8_t {
  Lru,
  AgeIndex,
  Fifo,
  // Bounds, computed with the future in view. After each request the blocks are kept whose next
  // request is nearest.
  Min,        // any of them: the most hits that a cache can have which need not take a block in
  MinForced,  // those of the request just served in any case: of a cache that must take them
};

inline constexpr SimPolicy kSimPolicies[] = {SimPolicy::Lru, SimPolicy::AgeIndex, SimPolicy::Fifo,
                                             SimPolicy::Min, SimPolicy::MinForced};

std::string_view to_string(SimPolicy policy) noexcept;  // as on the command line
std::optional<SimPolicy> sim_policy(std::string_view name) noexcept;

// A trace made ready to be run many times.
struct SimTrace {
  struct Request {
    std::uint64_t timestamp_ms = 0;
    std::size_t first_access = 0;    // of its blocks, in `hashes` and `numbers`
    std::uint32_t blocks = 0;        // how many they are
    std::uint32_t input_length = 0;  // tokens
  };

  std::vector<Request> requests;
  std::vector<SequenceHash> hashes;    // of all accesses; equal for equal ids, and for no others
  std::vector<std::uint32_t> numbers;  // the same, by first appearance from 0
  std::size_t unique_blocks = 0;
  std::uint64_t tokens = 0;  // of all prompts
};

// `trace` is as read_trace() returns it. O(accesses).
SimTrace make_sim_trace(const Trace& trace);

struct SimRow {
  SimPolicy policy = SimPolicy::Lru;
  std::size_t capacity = 0;  // blocks
  std::uint64_t block_hits = 0;
  std::uint64_t token_hits = 0;
  std::uint64_t accesses = 0;  // blocks asked for
  std::uint64_t tokens = 0;    // tokens asked for

  friend bool operator==(const SimRow&, const SimRow&) = default;
};

// Deterministic. O(accesses) for Lru, O(accesses + requests * log requests) for the bounds; memory
// for no more blocks than the trace has.
// Errors: InvalidConfig unless 1 <= capacity < 2^32 - 1.
Result<SimRow> simulate(const SimTrace& trace, SimPolicy policy, std::size_t capacity);

// {"rows": [...]}, an object for each row whose keys are the members' names.
nlohmann::json to_json(std::span<const SimRow> rows);
// A table for people, newline at the end.
std::string to_table(std::span<const SimRow> rows);

}  // namespace kvbm::app
