// How a replay is told: as JSON and as a table.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/kvbm/replay.h"

namespace kvbm::app {
namespace {

using nlohmann::json;

double seconds_of(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

template <class Values, class Get>
json by_tier(const Values& values, Get get) {
  json object = json::object();
  for (std::size_t i = 0; i < kTierCount; ++i) object[to_string(Tier(i))] = get(values[i]);
  return object;
}

double percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

std::string size_text(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, kUnits[unit]);
}

}  // namespace

json to_json(const ReplayReport& report) {
  const auto same = [](std::uint64_t value) { return value; };
  json edges = json::object();
  for (std::size_t i = 0; i < kEdgeCount; ++i) {
    const EdgeStats& edge = report.transfers.edges[i];
    edges[to_string(Edge(i))] = {{"blocks", edge.blocks},
                                 {"bytes", edge.bytes},
                                 {"seconds", seconds_of(edge.busy)},
                                 {"failed", edge.failed}};
  }
  return {
      {"requests", report.requests},
      {"prompt_tokens", report.prompt_tokens},
      {"hit_tokens", by_tier(report.hit_tokens, same)},
      {"blocks_verified", by_tier(report.blocks_verified, same)},
      {"wrong_blocks", report.wrong_blocks},
      {"checksum_mismatches", report.transfers.checksum_mismatches},
      {"failed_transfers", report.failed_transfers},
      {"dropped_offloads", report.transfers.offloads_dropped},
      {"evictions", by_tier(report.pools, [](const PoolStats& pool) { return pool.evictions; })},
      {"edges", std::move(edges)},
      {"seconds", report.seconds},
  };
}

std::string to_table(const ReplayReport& report) {
  const std::uint64_t hits =
      std::accumulate(report.hit_tokens.begin(), report.hit_tokens.end(), std::uint64_t{0});
  std::string out;
  out += fmt::format("{} requests with {} prompt tokens in {:.1f} s\n\n", report.requests,
                     report.prompt_tokens, report.seconds);

  out += fmt::format("{:<10}{:>10}{:>16}{:>8}{:>17}{:>12}\n", "tier", "blocks", "tokens served", "",
                     "blocks verified", "evictions");
  for (std::size_t i = 0; i < kTierCount; ++i) {
    out += fmt::format("{:<10}{:>10}{:>16}{:>7.1f}%{:>17}{:>12}\n", to_string(Tier(i)),
                       report.pools[i].total_blocks, report.hit_tokens[i],
                       percent(report.hit_tokens[i], report.prompt_tokens),
                       report.blocks_verified[i], report.pools[i].evictions);
  }
  const std::uint64_t computed = report.prompt_tokens - hits;
  out += fmt::format("{:<10}{:>10}{:>16}{:>7.1f}%\n\n", "computed", "", computed,
                     percent(computed, report.prompt_tokens));

  out += fmt::format("{:<18}{:>10}{:>12}{:>14}{:>12}{:>9}\n", "moved", "blocks", "bytes",
                     "thread time", "rate", "failed");
  for (std::size_t i = 0; i < kEdgeCount; ++i) {
    const EdgeStats& edge = report.transfers.edges[i];
    const double seconds = seconds_of(edge.busy);
    const double rate = seconds > 0 ? static_cast<double>(edge.bytes) / 1e9 / seconds : 0;
    std::string name = to_string(Edge(i));
    for (std::size_t at; (at = name.find("_to_")) != std::string::npos;)
      name.replace(at, 4, " -> ");
    out += fmt::format("{:<18}{:>10}{:>12}{:>12.2f} s{:>7.2f} GB/s{:>9}\n", name, edge.blocks,
                       size_text(edge.bytes), seconds, rate, edge.failed);
  }

  const std::uint64_t verified = std::accumulate(report.blocks_verified.begin(),
                                                 report.blocks_verified.end(), std::uint64_t{0});
  out += fmt::format(
      "\n{} wrong blocks of {} verified, {} checksum mismatches, {} failed transfers\n",
      report.wrong_blocks, verified, report.transfers.checksum_mismatches, report.failed_transfers);
  return out;
}

}  // namespace kvbm::app
