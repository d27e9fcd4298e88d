// How a simulation is told: as JSON and as a table.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/kvbm/sim.h"
#include "apps/kvbm/text.h"

namespace kvbm::app {

std::string_view to_string(SimPolicy policy) noexcept {
  switch (policy) {
    case SimPolicy::Lru: return "lru";
    case SimPolicy::AgeIndex: return "age-index";
    case SimPolicy::Fifo: return "fifo";
    case SimPolicy::Min: return "min";
    case SimPolicy::MinForced: return "min-forced";
  }
  return "";
}

std::optional<SimPolicy> sim_policy(std::string_view name) noexcept {
  for (const SimPolicy policy : kSimPolicies) {
    if (to_string(policy) == name) return policy;
  }
  return std::nullopt;
}

nlohmann::json to_json(std::span<const SimRow> rows) {
  nlohmann::json list = nlohmann::json::array();
  for (const SimRow& row : rows) {
    list.push_back({{"policy", to_string(row.policy)},
                    {"capacity", row.capacity},
                    {"block_hits", row.block_hits},
                    {"token_hits", row.token_hits},
                    {"accesses", row.accesses},
                    {"tokens", row.tokens}});
  }
  return {{"rows", std::move(list)}};
}

std::string to_table(std::span<const SimRow> rows) {
  std::string out = fmt::format("{:<12}{:>14}{:>16}{:>9}{:>20}\n", "policy", "capacity",
                                "block hits", "", "token hits");
  for (const SimRow& row : rows) {
    out += fmt::format("{:<12}{:>14}{:>16}{:>8.2f}%{:>20}{:>8.2f}%\n", to_string(row.policy),
                       grouped(row.capacity), grouped(row.block_hits),
                       percent(row.block_hits, row.accesses), grouped(row.token_hits),
                       percent(row.token_hits, row.tokens));
  }
  if (!rows.empty()) {
    out += fmt::format("{:<12}{:>14}{:>16}{:>9}{:>20}\n", "asked for", "",
                       grouped(rows.front().accesses), "", grouped(rows.front().tokens));
  }
  return out;
}

}  // namespace kvbm::app
