// A replay with small tiers, and what it answers in JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/e2e/program.h"

namespace kvbm::e2e {

struct Tiers {
  std::uint64_t device = 0;
  std::uint64_t host = 0;
  std::uint64_t disk = 0;
};

// The device evicts thousands of blocks of the small trace, the host as well, the disk hundreds.
inline constexpr Tiers kSmallTiers{20, 60, 500};
inline constexpr std::uint64_t kBlockBytes = 4096;

// 300 prompts of at most 20 blocks, so that each fits the device of kSmallTiers.
std::string small_trace(std::uint64_t seed = 1);

// `replay TRACE` with these tiers, blocks of kBlockBytes and two layers, and more arguments.
Command replay_command(const std::string& trace_file, const Tiers& tiers,
                       const std::vector<std::string>& more = {});

// Replays the trace from standard input and expects that nothing was wrong.
nlohmann::json replay_json(const std::string& trace, const Tiers& tiers,
                           const std::vector<std::string>& more = {});

// The JSON of a command that printed nothing else but warnings. Anything else is a failed test.
nlohmann::json parse_only_json(const Finished& finished);

std::uint64_t sum(const nlohmann::json& by_tier);

}  // namespace kvbm::e2e
