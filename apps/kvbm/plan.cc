#include "apps/kvbm/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "apps/kvbm/sim_tiers.h"
#include "apps/kvbm/text.h"

namespace kvbm::app {
namespace {

// What the trace asks of tiers.
struct Demand {
  std::size_t longest_prompt = 0;  // blocks
  std::size_t unique_blocks = 0;
};

Demand demand_of(const Trace& trace) {
  Demand demand;
  std::unordered_set<std::uint64_t> ids;
  for (const TraceRequest& request : trace.requests) {
    demand.longest_prompt = std::max(demand.longest_prompt, request.hash_ids.size());
    ids.insert(request.hash_ids.begin(), request.hash_ids.end());
  }
  demand.unique_blocks = ids.size();
  return demand;
}

Result<std::size_t> blocks_of(std::uint64_t gb, std::size_t block_bytes, const char* option) {
  constexpr std::uint64_t kMostGb = std::uint64_t{1} << 32;  // more bytes than can be counted
  const std::uint64_t blocks = gb < kMostGb ? gb * kGigabyte / block_bytes : kNoBlock;
  if (blocks > 0 && blocks < kNoBlock) return static_cast<std::size_t>(blocks);
  return Error{ErrorCode::InvalidConfig, 0, 0, 0,
               fmt::format("{}: {} GB are {} blocks of {} bytes; it must be 1 .. {}", option, gb,
                           blocks, block_bytes, kNoBlock - 1)};
}

// A tier that has room for every block of the trace never evicts, and a larger one is no different.
std::size_t useful(std::size_t blocks, const Demand& demand) {
  return std::min(blocks, demand.unique_blocks + demand.longest_prompt);
}

double seconds_to_move(std::uint64_t blocks, const PlanOptions& options,
                       std::uint64_t mb_per_second) {
  const double bytes = static_cast<double>(blocks) * static_cast<double>(options.block_bytes);
  return bytes / (static_cast<double>(mb_per_second) * 1e6);
}

PlanRow row_of(const SimTiersReport& report, const PlanOptions& options) {
  const auto edge = [&](Edge edge) { return report.edge_blocks[static_cast<std::size_t>(edge)]; };
  const auto rate = static_cast<double>(options.prefill_tokens_per_second);
  PlanRow row{.prompt_tokens = report.prompt_tokens, .hit_tokens = report.hit_tokens};
  row.saved_seconds = static_cast<double>(row.all_hit_tokens()) / rate;
  row.computed_seconds = static_cast<double>(row.prompt_tokens - row.all_hit_tokens()) / rate;
  row.host_load_seconds =
      seconds_to_move(edge(Edge::HostToDevice), options, options.host_mb_per_second);
  row.disk_load_seconds =
      seconds_to_move(edge(Edge::DiskToHost), options, options.disk_mb_per_second);
  row.disk_bytes_written = edge(Edge::HostToDisk) * options.block_bytes;
  return row;
}

}  // namespace

Result<std::vector<PlanRow>> plan(const Trace& trace, const PlanOptions& options,
                                  const std::function<void(std::size_t)>& after_request) {
  const Demand demand = demand_of(trace);
  std::size_t device = demand.longest_prompt;
  if (options.device_gb > 0) {
    KVBM_TRY(device, blocks_of(options.device_gb, options.block_bytes, "--device-gb"));
  }
  std::vector<PlanRow> rows;
  for (const std::uint64_t host_gb : options.host_gb) {
    KVBM_TRY(const std::size_t host, blocks_of(host_gb, options.block_bytes, "--host-gb"));
    for (const std::uint64_t disk_gb : options.disk_gb) {
      KVBM_TRY(const std::size_t disk, blocks_of(disk_gb, options.block_bytes, "--disk-gb"));
      const std::size_t before = rows.size() * trace.requests.size();
      KVBM_TRY(const SimTiersReport report, simulate_tiers(trace,
                                                           {.device_blocks = useful(device, demand),
                                                            .host_blocks = useful(host, demand),
                                                            .disk_blocks = useful(disk, demand),
                                                            .block_bytes = options.block_bytes},
                                                           [&](std::size_t done) {
                                                             if (after_request)
                                                               after_request(before + done);
                                                           }));
      PlanRow row = row_of(report, options);
      row.host_gb = host_gb;
      row.disk_gb = disk_gb;
      rows.push_back(row);
    }
  }
  return rows;
}

nlohmann::json to_json(std::span<const PlanRow> rows) {
  nlohmann::json list = nlohmann::json::array();
  for (const PlanRow& row : rows) {
    nlohmann::json hits = nlohmann::json::object();
    for (std::size_t i = 0; i < kTierCount; ++i) hits[to_string(Tier(i))] = row.hit_tokens[i];
    list.push_back({{"host_gb", row.host_gb},
                    {"disk_gb", row.disk_gb},
                    {"prompt_tokens", row.prompt_tokens},
                    {"hit_tokens", std::move(hits)},
                    {"saved_seconds", row.saved_seconds},
                    {"computed_seconds", row.computed_seconds},
                    {"host_load_seconds", row.host_load_seconds},
                    {"disk_load_seconds", row.disk_load_seconds},
                    {"disk_bytes_written", row.disk_bytes_written}});
  }
  return {{"rows", std::move(list)}};
}

std::string to_table(std::span<const PlanRow> rows) {
  std::string out =
      fmt::format("{:>8}{:>9}{:>17}{:>9}{:>15}{:>13}{:>15}{:>16}\n", "host GB", "disk GB",
                  "hit tokens", "", "saved s", "load s", "computed s", "disk written");
  for (const PlanRow& row : rows) {
    out += fmt::format("{:>8}{:>9}{:>17}{:>8.2f}%{:>15.1f}{:>13.1f}{:>15.1f}{:>16}\n",
                       grouped(row.host_gb), grouped(row.disk_gb), grouped(row.all_hit_tokens()),
                       percent(row.all_hit_tokens(), row.prompt_tokens), row.saved_seconds,
                       row.load_seconds(), row.computed_seconds, size_text(row.disk_bytes_written));
  }
  if (rows.empty()) return out;
  const PlanRow& any = rows.front();
  return out + fmt::format("{:>17}{:>17}{:>24.1f}{}\n", "nothing kept", grouped(any.prompt_tokens),
                           any.saved_seconds + any.computed_seconds, " s of prefill in all");
}

}  // namespace kvbm::app
