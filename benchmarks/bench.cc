#include "benchmarks/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace kvbm::bench {
namespace {

using nlohmann::json;

std::uint64_t steady_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

// Nanoseconds of one run.
std::uint64_t time_run(const Work& work, std::uint64_t operations,
                       const std::function<std::uint64_t()>& now) {
  if (work.prepare) work.prepare();
  const std::uint64_t begin = now();
  work.run(operations);
  return now() - begin;
}

// Doubles the operations until a run is long enough; the runs before warm the caches.
std::uint64_t operations_of(const Work& work, std::uint64_t min_ns,
                            const std::function<std::uint64_t()>& now) {
  if (work.operations != 0) return work.operations;
  constexpr std::uint64_t kMost = std::uint64_t{1} << 40;
  std::uint64_t operations = 1;
  while (operations < kMost && time_run(work, operations, now) < min_ns) operations *= 2;
  return operations;
}

json number_or_null(std::optional<double> number) { return number ? json(*number) : json(); }

std::string number_text(double value) {
  const double size = std::abs(value);
  return fmt::format("{:.{}f}", value, size >= 1000 ? 0 : size >= 100 ? 1 : 2);
}

std::string ratio_text(const Row& row) {
  if (!row.ratio()) return "-";
  return fmt::format("{:.2f}{}", *row.ratio(), row.invalid() ? " (invalid)" : "");
}

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  if (values.size() % 2 == 1) return values[middle];
  return (values[middle - 1] + values[middle]) / 2;
}

double quantile(std::vector<double> values, double share) {
  const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size()));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

std::vector<Timing> interleave(std::span<const Work> works, const Rounds& rounds) {
  const std::function<std::uint64_t()> now = rounds.now ? rounds.now : steady_ns;
  std::vector<std::uint64_t> operations;
  for (const Work& work : works) operations.push_back(operations_of(work, rounds.min_ns, now));

  std::vector<std::vector<double>> ns(works.size());
  for (std::size_t round = 0; round < rounds.count; ++round) {
    for (std::size_t i = 0; i < works.size(); ++i) {
      const auto elapsed = static_cast<double>(time_run(works[i], operations[i], now));
      ns[i].push_back(elapsed / static_cast<double>(operations[i]));
    }
  }

  std::vector<Timing> timings;
  for (std::size_t i = 0; i < works.size(); ++i) {
    timings.push_back({median(std::move(ns[i])), operations[i] * rounds.count});
  }
  return timings;
}

std::optional<double> Row::limit() const {
  if (probes.empty()) return std::nullopt;
  const auto [low, high] = std::ranges::minmax(probes, {}, &Probe::value);
  return better == Better::Lower ? low.value : high.value;
}

std::optional<double> Row::ratio() const {
  const std::optional<double> best = limit();
  if (!best) return std::nullopt;
  return better == Better::Lower ? *best / value : value / *best;
}

bool Row::invalid() const { return ratio().value_or(0) > kMaxRatio; }

Row measure(Work measured, std::vector<Work> probes, std::string aim, const Rounds& rounds) {
  Row row{.name = measured.name, .aim = std::move(aim)};
  std::vector<Work> works = std::move(probes);
  works.push_back(std::move(measured));
  const std::vector<Timing> timings = interleave(works, rounds);
  row.value = timings.back().ns;
  row.n = timings.back().operations;
  for (std::size_t i = 0; i + 1 < works.size(); ++i) {
    row.probes.push_back({works[i].name, timings[i].ns});
  }
  return row;
}

Row as_rate(Row row, std::size_t bytes) {
  const auto rate = [bytes](double ns) { return static_cast<double>(bytes) / ns; };
  row.value = rate(row.value);
  for (Probe& probe : row.probes) probe.value = rate(probe.value);
  row.unit = "GB/s";
  row.better = Better::Higher;
  return row;
}

void give_unit(Row& row, const char* unit, double size) {
  row.unit = unit;
  row.value /= size;
  for (Probe& probe : row.probes) probe.value /= size;
}

bool Report::valid() const { return std::ranges::none_of(rows, &Row::invalid); }

json to_json(const Report& report) {
  json rows = json::array();
  for (const Row& row : report.rows) {
    json probes = json::array();
    for (const Probe& probe : row.probes) {
      probes.push_back({{"name", probe.name}, {"value", probe.value}});
    }
    json object = {{"name", row.name},
                   {"value", row.value},
                   {"unit", row.unit},
                   {"limit", number_or_null(row.limit())},
                   {"ratio", number_or_null(row.ratio())},
                   {"n", row.n},
                   {"probes", std::move(probes)}};
    if (!row.aim.empty()) object["aim"] = row.aim;
    if (row.invalid()) object["invalid"] = true;
    rows.push_back(std::move(object));
  }
  json object = {{"rows", std::move(rows)}};
  if (report.seed) object["seed"] = *report.seed;
  if (!report.skipped.empty()) object["skipped"] = report.skipped;
  return object;
}

std::string to_table(const Report& report) {
  if (!report.skipped.empty()) return "SKIPPED: " + report.skipped + "\n";
  std::size_t width = 4;
  std::size_t aim_width = 3;
  for (const Row& row : report.rows) {
    width = std::max(width, row.name.size());
    aim_width = std::max(aim_width, row.aim.size());
    for (const Probe& probe : row.probes) width = std::max(width, probe.name.size() + 2);
  }

  std::string out;
  const auto line = [&](const std::string& name, const std::string& value, const std::string& unit,
                        const std::string& limit, const std::string& ratio, const std::string& aim,
                        const std::string& n) {
    std::string text = fmt::format("{:<{}}  {:>12} {:<8}{:>12}  {:<15} {:<{}}  {:>12}", name, width,
                                   value, unit, limit, ratio, aim, aim_width, n);
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  };
  if (report.seed) out += fmt::format("seed {}\n\n", *report.seed);
  line("name", "value", "unit", "limit", "ratio", "AIM", "n");
  for (const Row& row : report.rows) {
    line(row.name, number_text(row.value), row.unit, row.limit() ? number_text(*row.limit()) : "-",
         ratio_text(row), row.aim, fmt::format("{}", row.n));
    for (const Probe& probe : row.probes) {
      line("  " + probe.name, number_text(probe.value), row.unit, "", "", "", "");
    }
  }
  return out;
}

}  // namespace kvbm::bench
