#include "apps/kvbm/trace_describe.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "apps/kvbm/text.h"

namespace kvbm::app {
namespace {

// Counts marks at positions 0 .. size-1; each operation takes O(log size).
class FenwickTree {
 public:
  explicit FenwickTree(std::size_t size) : sums_(size + 1, 0) {}

  void mark(std::size_t position) {
    for (std::size_t i = position + 1; i < sums_.size(); i += i & -i) ++sums_[i];
  }
  void unmark(std::size_t position) {
    for (std::size_t i = position + 1; i < sums_.size(); i += i & -i) --sums_[i];
  }
  // Marks at positions 0 .. position.
  std::size_t count_to(std::size_t position) const {
    std::size_t count = 0;
    for (std::size_t i = position + 1; i > 0; i -= i & -i) count += sums_[i];
    return count;
  }

 private:
  std::vector<std::size_t> sums_;
};

struct Block {
  std::size_t last_access;
  std::size_t uses;
};

double ratio(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

// Integers throughout, so that no rounding moves the rank. `sorted` may be empty.
template <class T>
T percentile(const std::vector<T>& sorted, std::size_t percent) {
  if (sorted.empty()) return 0;
  const std::size_t rank = (sorted.size() * percent + 99) / 100;
  return sorted[std::max<std::size_t>(rank, 1) - 1];
}

void describe_lengths(const Trace& trace, TraceShape& shape) {
  std::vector<std::uint32_t> lengths;
  lengths.reserve(trace.requests.size());
  std::uint64_t output_total = 0;
  for (const TraceRequest& request : trace.requests) {
    lengths.push_back(request.input_length);
    shape.prompt_tokens_total += request.input_length;
    output_total += request.output_length;
    shape.block_accesses += request.hash_ids.size();
    shape.longest_prompt_blocks = std::max(shape.longest_prompt_blocks, request.hash_ids.size());
  }
  std::sort(lengths.begin(), lengths.end());
  shape.prompt_tokens_mean = ratio(shape.prompt_tokens_total, lengths.size());
  shape.prompt_tokens_p50 = percentile(lengths, 50);
  shape.prompt_tokens_p99 = percentile(lengths, 99);
  shape.prompt_tokens_max = percentile(lengths, 100);
  shape.output_tokens_mean = ratio(output_total, lengths.size());
}

// Tokens of block `index` of a prompt; the last one may be partial.
std::uint64_t block_tokens(const TraceRequest& request, std::size_t index) {
  const std::uint64_t begin = index * kTraceBlockTokens;
  if (begin >= request.input_length) return 0;
  return std::min<std::uint64_t>(kTraceBlockTokens, request.input_length - begin);
}

void describe_reuse(const Trace& trace, TraceShape& shape) {
  std::unordered_map<std::uint64_t, Block> blocks;
  // The last access of each block is marked, so the marks behind an access count distinct blocks.
  FenwickTree latest(shape.block_accesses);
  std::vector<std::size_t> distances;
  std::uint64_t hit_tokens = 0;
  std::size_t present_prompts = 0;
  std::size_t now = 0;
  for (const TraceRequest& request : trace.requests) {
    // The whole prompt is looked up before any of it counts as used, and its blocks are then
    // released deepest first, as in the leaf-first LRU that the distances describe.
    const std::size_t length = request.hash_ids.size();
    std::size_t hits = 0;
    for (std::size_t i = 0; i < length; ++i) {
      const auto found = blocks.find(request.hash_ids[i]);
      if (found == blocks.end()) continue;
      // An id has one parent, so its whole prefix occurred with it.
      ++hits;
      hit_tokens += block_tokens(request, i);
      distances.push_back(blocks.size() - latest.count_to(found->second.last_access));
    }
    for (std::size_t i = length; i-- > 0; ++now) {
      const auto [it, fresh] = blocks.try_emplace(request.hash_ids[i], Block{now, 0});
      Block& block = it->second;
      if (!fresh) latest.unmark(block.last_access);
      block.last_access = now;
      ++block.uses;
      latest.mark(now);
    }
    if (hits > 0 && hits == length) ++present_prompts;
  }
  std::sort(distances.begin(), distances.end());

  const auto used_once = static_cast<std::size_t>(std::count_if(
      blocks.begin(), blocks.end(), [](const auto& entry) { return entry.second.uses == 1; }));
  shape.unique_blocks = blocks.size();
  shape.used_once_share = ratio(used_once, blocks.size());
  shape.infinite_block_hit_ratio = ratio(distances.size(), shape.block_accesses);
  shape.infinite_token_hit_ratio = ratio(hit_tokens, shape.prompt_tokens_total);
  shape.prompts_wholly_present_share = ratio(present_prompts, shape.requests);
  shape.reuses = distances.size();
  shape.reuse_distance_p25 = percentile(distances, 25);
  shape.reuse_distance_p50 = percentile(distances, 50);
  shape.reuse_distance_p75 = percentile(distances, 75);
  shape.reuse_distance_p90 = percentile(distances, 90);
}

std::string grouped_rounded(double number) {
  return grouped(static_cast<std::uint64_t>(number + 0.5));
}

std::string share_text(double share) { return fmt::format("{:.1f} %", share * 100); }

}  // namespace

TraceShape describe(const Trace& trace) {
  TraceShape shape;
  shape.requests = trace.requests.size();
  if (trace.requests.empty()) return shape;
  shape.duration_ms = trace.requests.back().timestamp_ms - trace.requests.front().timestamp_ms;
  describe_lengths(trace, shape);
  describe_reuse(trace, shape);
  return shape;
}

std::string to_table(const TraceShape& shape) {
  std::string out;
  const auto row = [&out](std::string_view name, const std::string& value) {
    out += fmt::format("{:<40}{}\n", name, value);
  };
  row("requests", grouped(shape.requests));
  row("duration",
      fmt::format("{}.{:03} s", grouped(shape.duration_ms / 1000), shape.duration_ms % 1000));
  row("prompt tokens", grouped(shape.prompt_tokens_total));
  row("prompt tokens mean / p50 / p99 / max",
      fmt::format("{} / {} / {} / {}", grouped_rounded(shape.prompt_tokens_mean),
                  grouped(shape.prompt_tokens_p50), grouped(shape.prompt_tokens_p99),
                  grouped(shape.prompt_tokens_max)));
  row("output tokens mean", grouped_rounded(shape.output_tokens_mean));
  row("longest prompt", fmt::format("{} blocks", grouped(shape.longest_prompt_blocks)));
  row("block accesses", grouped(shape.block_accesses));
  row("unique blocks", grouped(shape.unique_blocks));
  row("used once", share_text(shape.used_once_share));
  row("infinite cache: block / token hits",
      fmt::format("{} / {}", share_text(shape.infinite_block_hit_ratio),
                  share_text(shape.infinite_token_hit_ratio)));
  row("prompts wholly present", share_text(shape.prompts_wholly_present_share));
  row("reuses", grouped(shape.reuses));
  row("reuse distance p25 / p50 / p75 / p90",
      fmt::format("{} / {} / {} / {} blocks", grouped(shape.reuse_distance_p25),
                  grouped(shape.reuse_distance_p50), grouped(shape.reuse_distance_p75),
                  grouped(shape.reuse_distance_p90)));
  return out;
}

nlohmann::json to_json(const TraceShape& shape) {
  return nlohmann::json{
      {"requests", shape.requests},
      {"duration_ms", shape.duration_ms},
      {"prompt_tokens_total", shape.prompt_tokens_total},
      {"prompt_tokens_mean", shape.prompt_tokens_mean},
      {"prompt_tokens_p50", shape.prompt_tokens_p50},
      {"prompt_tokens_p99", shape.prompt_tokens_p99},
      {"prompt_tokens_max", shape.prompt_tokens_max},
      {"output_tokens_mean", shape.output_tokens_mean},
      {"block_accesses", shape.block_accesses},
      {"unique_blocks", shape.unique_blocks},
      {"longest_prompt_blocks", shape.longest_prompt_blocks},
      {"used_once_share", shape.used_once_share},
      {"infinite_block_hit_ratio", shape.infinite_block_hit_ratio},
      {"infinite_token_hit_ratio", shape.infinite_token_hit_ratio},
      {"prompts_wholly_present_share", shape.prompts_wholly_present_share},
      {"reuses", shape.reuses},
      {"reuse_distance_p25", shape.reuse_distance_p25},
      {"reuse_distance_p50", shape.reuse_distance_p50},
      {"reuse_distance_p75", shape.reuse_distance_p75},
      {"reuse_distance_p90", shape.reuse_distance_p90},
  };
}

}  // namespace kvbm::app
