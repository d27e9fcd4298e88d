#include "apps/kvbm/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
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
  constexpr std::uint64_t kMaxBytes = std::numeric_limits<std::uint64_t>::max();
  // The size of kNoBlock blocks is one too many.
  const std::uint64_t bytes =
      block_bytes > kMaxBytes / kNoBlock ? kMaxBytes : kNoBlock * block_bytes - 1;
  const std::uint64_t least = (block_bytes - 1) / kGigabyte + 1;
  const std::uint64_t most = bytes / kGigabyte;
  if (least <= gb && gb <= most) return static_cast<std::size_t>(gb * kGigabyte / block_bytes);
  return Error{ErrorCode::InvalidConfig, 0, 0, 0,
               fmt::format("{}: with blocks of {} bytes it must be {} .. {} GB, not {}", option,
                           block_bytes, least, most, gb)};
}

Result<std::vector<std::size_t>> blocks_of(std::span<const std::uint64_t> gb,
                                           std::size_t block_bytes, const char* option) {
  std::vector<std::size_t> blocks;
  for (const std::uint64_t size : gb) {
    KVBM_TRY(blocks.emplace_back(), blocks_of(size, block_bytes, option));
  }
  return blocks;
}

// A tier that has room for every block of the trace never evicts, and a larger one is no different.
// A trace of empty prompts needs no block, but a tier has at least one.
std::size_t useful(std::size_t blocks, const Demand& demand) {
  return std::min(blocks, std::max<std::size_t>(1, demand.unique_blocks + demand.longest_prompt));
}

double seconds_to_move(std::uint64_t blocks, const PlanOptions& options,
                       std::uint64_t mb_per_second) {
  const double bytes = static_cast<double>(blocks) * static_cast<double>(options.block_bytes);
  return bytes / (static_cast<double>(mb_per_second) * 1e6);
}

PlanRow row_of(const SimTiersReport& report, const PlanOptions& options) {
  const auto edge = [&](Edge edge) { return report.edge_blocks[static_cast<std::size_t>(edge)]; };
  PlanRow row{.hit_tokens = report.hit_tokens};
  row.computed_seconds = static_cast<double>(report.prompt_tokens - row.all_hit_tokens()) /
                         static_cast<double>(options.prefill_tokens_per_second);
  row.host_load_seconds =
      seconds_to_move(edge(Edge::HostToDevice), options, options.host_mb_per_second);
  row.disk_load_seconds =
      seconds_to_move(edge(Edge::DiskToHost), options, options.disk_mb_per_second);
  row.disk_bytes_written = edge(Edge::HostToDisk) * options.block_bytes;
  return row;
}

nlohmann::json to_json(const PlanRow& row) {
  nlohmann::json hits = nlohmann::json::object();
  for (std::size_t i = 0; i < kTierCount; ++i) hits[to_string(Tier(i))] = row.hit_tokens[i];
  return {{"host_gb", row.host_gb},
          {"disk_gb", row.disk_gb},
          {"hit_tokens", std::move(hits)},
          {"computed_seconds", row.computed_seconds},
          {"saved_seconds", row.saved_seconds},
          {"host_load_seconds", row.host_load_seconds},
          {"disk_load_seconds", row.disk_load_seconds},
          {"net_seconds", row.net_seconds()},
          {"disk_bytes_written", row.disk_bytes_written}};
}

std::uint64_t total_tokens(const Trace& trace) {
  std::uint64_t tokens = 0;
  for (const TraceRequest& request : trace.requests) tokens += request.input_length;
  return tokens;
}

}  // namespace

double PlanReport::device_gb() const noexcept {
  return static_cast<double>(device_blocks) * static_cast<double>(options.block_bytes) / 1e9;
}

double PlanReport::prefill_seconds() const noexcept {
  return static_cast<double>(prompt_tokens) /
         static_cast<double>(options.prefill_tokens_per_second);
}

Result<PlanReport> plan(const Trace& trace, const PlanOptions& options,
                        const std::function<void(std::size_t)>& after_request) {
  const Demand demand = demand_of(trace);
  PlanReport report{.options = options,
                    .prompt_tokens = total_tokens(trace),
                    .longest_prompt = demand.longest_prompt,
                    .device_blocks = std::max<std::size_t>(1, demand.longest_prompt),
                    .device_alone = {},
                    .rows = {}};
  if (options.device_gb > 0) {
    KVBM_TRY(report.device_blocks,
             blocks_of(options.device_gb, options.block_bytes, "--device-gb"));
  }
  KVBM_TRY(const auto hosts, blocks_of(options.host_gb, options.block_bytes, "--host-gb"));
  KVBM_TRY(const auto disks, blocks_of(options.disk_gb, options.block_bytes, "--disk-gb"));
  std::size_t before = 0;
  const auto run = [&](std::size_t host, std::size_t disk) -> Result<PlanRow> {
    const SimTiersOptions sizes{.device_blocks = useful(report.device_blocks, demand),
                                .host_blocks = useful(host, demand),
                                .disk_blocks = useful(disk, demand),
                                .block_bytes = options.block_bytes};
    KVBM_TRY(const SimTiersReport counted, simulate_tiers(trace, sizes, [&](std::size_t done) {
               if (after_request) after_request(before + done);
             }));
    before += trace.requests.size();
    return row_of(counted, options);
  };
  KVBM_TRY(report.device_alone, run(0, 0));
  for (std::size_t host = 0; host < hosts.size(); ++host) {
    for (std::size_t disk = 0; disk < disks.size(); ++disk) {
      KVBM_TRY(PlanRow row, run(hosts[host], disks[disk]));
      row.host_gb = options.host_gb[host];
      row.disk_gb = options.disk_gb[disk];
      row.saved_seconds = report.device_alone.computed_seconds - row.computed_seconds;
      report.rows.push_back(row);
    }
  }
  return report;
}

nlohmann::json to_json(const PlanReport& report) {
  nlohmann::json list = nlohmann::json::array();
  for (const PlanRow& row : report.rows) list.push_back(to_json(row));
  return {{"block_bytes", report.options.block_bytes},
          {"prefill_tokens_per_second", report.options.prefill_tokens_per_second},
          {"host_mb_per_second", report.options.host_mb_per_second},
          {"disk_mb_per_second", report.options.disk_mb_per_second},
          {"prompt_tokens", report.prompt_tokens},
          {"prefill_seconds", report.prefill_seconds()},
          {"longest_prompt", report.longest_prompt},
          {"device_blocks", report.device_blocks},
          {"device_gb", report.device_gb()},
          {"device_alone", to_json(report.device_alone)},
          {"rows", std::move(list)}};
}

std::array<std::string, kPlanColumns> plan_cells(const PlanReport& report, const PlanRow& row) {
  const char* note = "";
  if (row.host_gb == 0) note = "device alone";
  if (row.net_seconds() < 0) note = "loses";
  return {grouped(row.host_gb),
          grouped(row.disk_gb),
          grouped(row.hit_tokens[0]),
          grouped(row.hit_tokens[1]),
          grouped(row.hit_tokens[2]),
          fmt::format("{:.2f}%", percent(row.all_hit_tokens(), report.prompt_tokens)),
          fmt::format("{:.1f}", row.saved_seconds),
          fmt::format("{:.1f}", row.load_seconds()),
          fmt::format("{:.1f}", row.net_seconds()),
          fmt::format("{:.1f}", row.computed_seconds),
          fmt::format("{:.1f}", static_cast<double>(row.disk_bytes_written) / 1e9),
          note};
}

std::string to_table(const PlanReport& report) {
  std::vector<std::array<std::string, kPlanColumns>> lines(1);
  std::ranges::copy(kPlanHeader, lines[0].begin());
  lines.push_back(plan_cells(report, report.device_alone));
  for (const PlanRow& row : report.rows) lines.push_back(plan_cells(report, row));
  std::array<std::size_t, kPlanColumns> widths{};
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < kPlanColumns; ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string out = fmt::format(
      "{} prompt tokens, {:.1f} s of prefill if nothing is kept\n"
      "device tier: {} blocks of {} bytes, {:.3f} GB\n\n",
      grouped(report.prompt_tokens), report.prefill_seconds(), grouped(report.device_blocks),
      grouped(report.options.block_bytes), report.device_gb());
  for (const auto& line : lines) {
    out += fmt::format("{:>{}}", line[0], widths[0]);
    for (std::size_t i = 1; i + 1 < kPlanColumns; ++i) {
      out += fmt::format("  {:>{}}", line[i], widths[i]);
    }
    out += line.back().empty() ? "\n" : "  " + line.back() + "\n";
  }
  return out;
}

}  // namespace kvbm::app
