// The harness of the benchmarks: measures a thing beside plain probes of the same work, so that a
// number says how far it is from what the machine can do.
//
// Threads: none of this is thread-safe; a Work may use threads inside.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kvbm/result.h"

namespace kvbm::bench {

// Makes the compiler compute `value` and forget what it knows about memory. Costs nothing itself.
template <class T>
inline void keep(const T& value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

// Something to be timed.
struct Work {
  std::string name;
  // Does so many operations; this is what is timed.
  std::function<void(std::uint64_t operations)> run;
  // Called before each run and not timed. May be empty.
  std::function<void()> prepare = {};
  // Operations of one run; 0: the power of two that fills Rounds::min_ns.
  std::uint64_t operations = 0;
};

struct Rounds {
  std::size_t count = 51;
  std::uint64_t min_ns = 1'000'000;  // of one run; short, so that a run is rarely interrupted
  // Nanoseconds since any fixed moment. Empty: the steady clock.
  std::function<std::uint64_t()> now = {};
};

// What was measured of one Work.
struct Timing {
  double ns = 0;                 // per operation, median of the rounds
  std::uint64_t operations = 0;  // timed in all rounds
};

// Times the works in turns, round by round, so that what disturbs the machine disturbs all of them.
// Gives one Timing per work, in order. Requires: Rounds::count > 0.
// Cost: about (works + 1) * rounds * min_ns.
std::vector<Timing> interleave(std::span<const Work> works, const Rounds& rounds = {});

// The middle value, or the mean of the middle two. Requires: values.
double median(std::vector<double> values);
// The value that this share of the values, less than 1, is below. Requires: values.
double quantile(std::vector<double> values, double share);

enum class Better : std::uint8_t { Lower, Higher };

// Plain code for the same work: the machine's limit, as far as this code reaches it.
struct Probe {
  std::string name;
  double value = 0;  // in the unit of its row
};

// One line of a result.
struct Row {
  static constexpr double kMaxRatio = 1.05;

  std::string name;
  double value = 0;
  std::string unit = "ns";
  Better better = Better::Lower;
  std::uint64_t n = 0;   // operations that `value` comes from
  std::string aim = {};  // such as "<= 5" or "ratio >= 0.77"; empty: none
  std::vector<Probe> probes = {};

  // The best probe; empty where there is none.
  std::optional<double> limit() const;
  // Speed relative to the limit: 1 = as fast, 0.5 = half as fast. Empty where there is no limit.
  std::optional<double> ratio() const;
  // Whether the thing beat its limit by so much that the probes were too weak to be one.
  bool invalid() const;
};

// A row in ns per operation, timed beside its probes in turns.
Row measure(Work measured, std::vector<Work> probes, std::string aim = {},
            const Rounds& rounds = {});

// The row in GB/s instead of nanoseconds per operation that moves so many bytes.
Row as_rate(Row row, std::size_t bytes);
// The row in a unit of so many of what it was in.
void give_unit(Row& row, const char* unit, double size);

struct Options {
  std::uint64_t seed = 1;
  std::string dir = ".";  // for the files of benches that have some
};

struct Report {
  std::vector<Row> rows;
  std::optional<std::uint64_t> seed;  // of benches whose input is random
  std::string skipped = {};           // why there are no rows, such as a missing device

  bool valid() const;  // no row is invalid
};

// {"rows": [{name, value, unit, limit, ratio, n, probes, aim?, invalid?}], "seed"?, "skipped"?};
// limit and ratio are null where a row has no probes.
nlohmann::json to_json(const Report& report);
// An aligned table, each row followed by its probes; of a skipped bench one line, "SKIPPED: why".
std::string to_table(const Report& report);

// A bench of the program: `kvbm bench NAME`.
struct Bench {
  const char* name;
  const char* summary;
  // Errors: those of what is measured.
  Result<Report> (*run)(const Options& options);
};

// All benches, in the order of the help.
std::span<const Bench> benches();

}  // namespace kvbm::bench
