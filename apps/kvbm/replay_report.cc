// How a replay is told: as JSON and as a table.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/kvbm/replay.h"
#include "apps/kvbm/request_loop.h"
#include "apps/kvbm/text.h"

namespace kvbm::app {
namespace {

using nlohmann::json;

std::uint64_t sum(const std::array<std::uint64_t, kTierCount>& by_tier) {
  return std::accumulate(by_tier.begin(), by_tier.end(), std::uint64_t{0});
}

template <class Values, class Get>
json by_tier(const Values& values, Get get) {
  json object = json::object();
  for (std::size_t i = 0; i < kTierCount; ++i) object[to_string(Tier(i))] = get(values[i]);
  return object;
}

std::uint64_t sum(const simulator::FaultCounts& faults) {
  std::uint64_t all = 0;
  for (const auto& by_edge : faults) all = std::accumulate(by_edge.begin(), by_edge.end(), all);
  return all;
}

json to_json(const simulator::FaultCounts& faults) {
  json kinds = json::object();
  for (std::size_t i = 0; i < simulator::kCopyFaultKinds; ++i) {
    const auto kind = static_cast<simulator::FaultKind>(i);
    for (std::size_t edge = 0; edge < kEdgesOfARun; ++edge) {
      if (exists(kind, edge)) kinds[to_string(kind)][to_string(Edge(edge))] = faults[i][edge];
    }
  }
  return kinds;
}

}  // namespace

json to_json(const ReplayReport& report) {
  const auto same = [](std::uint64_t value) { return value; };
  json edges = json::object();
  for (std::size_t i = 0; i < kEdgesOfARun; ++i) {
    const EdgeStats& edge = report.transfers.edges[i];
    edges[to_string(Edge(i))] = {{"blocks", edge.blocks},
                                 {"bytes", edge.bytes},
                                 {"seconds", seconds(edge)},
                                 {"failed", edge.failed}};
  }
  json store;
  if (report.disk) {
    store = {{"health", to_string(report.disk->health)},
             {"restored_blocks", report.disk->restored_blocks},
             {"damaged_records", report.disk->damaged_records},
             {"write_amplification", report.disk->write_amplification}};
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
      {"faults", report.faults ? to_json(*report.faults) : json()},
      {"run_digest", report.run_digest ? json(digest_text(*report.run_digest)) : json()},
      {"transfer_paths", report.transfer_paths},
      {"disk_store", std::move(store)},
      {"seconds", report.seconds},
  };
}

double seconds(const EdgeStats& edge) { return std::chrono::duration<double>(edge.busy).count(); }

double gigabytes_per_second(const EdgeStats& edge) {
  const double busy = seconds(edge);
  return busy > 0 ? static_cast<double>(edge.bytes) / 1e9 / busy : 0;
}

std::string edge_name(Edge edge, std::string_view arrow) {
  std::string name = to_string(edge);
  constexpr std::string_view kBetween = "_to_";
  name.replace(name.find(kBetween), kBetween.size(), fmt::format(" {} ", arrow));
  return name;
}

std::uint64_t computed_tokens(const ReplayReport& report) {
  return report.prompt_tokens - sum(report.hit_tokens);
}

std::string verdict(const ReplayReport& report) {
  return fmt::format("{} wrong blocks of {} verified, {} checksum mismatches, {} failed transfers",
                     grouped(report.wrong_blocks), grouped(sum(report.blocks_verified)),
                     grouped(report.transfers.checksum_mismatches),
                     grouped(report.failed_transfers));
}

std::string to_table(const ReplayReport& report) {
  std::string out;
  out += fmt::format("{} requests with {} prompt tokens in {:.1f} s\n\n", grouped(report.requests),
                     grouped(report.prompt_tokens), report.seconds);

  out += fmt::format("{:<10}{:>13}{:>16}{:>8}{:>17}{:>12}\n", "tier", "blocks", "tokens served", "",
                     "blocks verified", "evictions");
  for (std::size_t i = 0; i < kTierCount; ++i) {
    out += fmt::format("{:<10}{:>13}{:>16}{:>7.1f}%{:>17}{:>12}\n", to_string(Tier(i)),
                       grouped(report.pools[i].total_blocks), grouped(report.hit_tokens[i]),
                       percent(report.hit_tokens[i], report.prompt_tokens),
                       grouped(report.blocks_verified[i]), grouped(report.pools[i].evictions));
  }
  const std::uint64_t computed = computed_tokens(report);
  out += fmt::format("{:<10}{:>13}{:>16}{:>7.1f}%\n\n", "computed", "", grouped(computed),
                     percent(computed, report.prompt_tokens));

  out += fmt::format("{:<18}{:>11}{:>12}{:>14}{:>12}{:>9}\n", "moved", "blocks", "bytes",
                     "thread time", "rate", "failed");
  for (std::size_t i = 0; i < kEdgesOfARun; ++i) {
    const EdgeStats& edge = report.transfers.edges[i];
    out += fmt::format("{:<18}{:>11}{:>12}{:>12.2f} s{:>7.2f} GB/s{:>9}\n",
                       edge_name(Edge(i), "->"), grouped(edge.blocks), size_text(edge.bytes),
                       seconds(edge), gigabytes_per_second(edge), grouped(edge.failed));
  }
  out += "\n";
  for (const std::string& path : report.transfer_paths) out += path + "\n";
  if (report.disk) {
    out += fmt::format("disk store: {}, {} blocks restored, {} damaged records\n",
                       to_string(report.disk->health), grouped(report.disk->restored_blocks),
                       grouped(report.disk->damaged_records));
  }
  if (report.faults) {
    out += fmt::format("{} faults injected\n", grouped(sum(*report.faults)));
  }
  if (report.run_digest) out += "run digest: " + digest_text(*report.run_digest) + "\n";
  return out + "\n" + verdict(report) + "\n";
}

}  // namespace kvbm::app
