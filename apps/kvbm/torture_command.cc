#include "apps/kvbm/torture_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>

#include "apps/kvbm/command.h"
#include "simulator/torture.h"

namespace kvbm::app {
namespace {

using simulator::FaultKind;
using simulator::TortureReport;

constexpr std::uint64_t kDefaultSchedules = 1000;

// Without its seed the schedule that ends the process would be lost.
void tell_seed(int signal) {
  std::array<char, 160> text;
  const auto seed = static_cast<unsigned long long>(simulator::running_seed());
  const int length = std::snprintf(text.data(), text.size(),
                                   "kvbm: seed %llu %s; kvbm torture --seed %llu --trace\n", seed,
                                   signal == SIGABRT ? "broke an invariant" : "crashed", seed);
  if (write(STDERR_FILENO, text.data(), static_cast<std::size_t>(length)) < 0) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

std::atomic<bool> interrupted{false};
void interrupt(int) { interrupted.store(true); }

std::string edge_column(std::size_t edge) {
  return edge == simulator::kNoEdge ? "none" : to_string(static_cast<Edge>(edge));
}

std::string to_table(const TortureReport& report) {
  std::string text = fmt::format("{:<14}", "fault");
  for (std::size_t edge = 0; edge <= kEdgeCount; ++edge) {
    text += fmt::format(" {:>15}", edge_column(edge));
  }
  text += '\n';
  for (std::size_t i = 0; i < simulator::kFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    text += fmt::format("{:<14}", to_string(kind));
    for (std::size_t edge = 0; edge <= kEdgeCount; ++edge) {
      text += exists(kind, edge) ? fmt::format(" {:>15}", report.faults[i][edge])
                                 : fmt::format(" {:>15}", "-");
    }
    text += '\n';
  }
  text += fmt::format("\n{:<24} {:>12}\n", "transition", "times");
  for (std::size_t i = 0; i < report.reached.size(); ++i) {
    text += fmt::format("{:<24} {:>12}\n", to_string(static_cast<detail::Transition>(i)),
                        report.reached[i]);
  }
  return text;
}

std::string last_line(const TortureReport& report) {
  return fmt::format("{} schedules, {} requests, {} blocks compared, {} faults, {} findings\n",
                     report.schedules, report.requests, report.blocks_checked, report.all_faults(),
                     report.findings.size());
}

nlohmann::json to_json(const TortureReport& report, std::uint64_t first_seed,
                       const std::vector<std::string>& missed) {
  nlohmann::json json = {{"first_seed", first_seed},
                         {"schedules", report.schedules},
                         {"requests", report.requests},
                         {"blocks_compared", report.blocks_checked},
                         {"faults", nlohmann::json::object()},
                         {"transitions", nlohmann::json::object()},
                         {"findings", nlohmann::json::array()},
                         {"not_reached", missed}};
  for (std::size_t i = 0; i < simulator::kFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    for (std::size_t edge = 0; edge <= kEdgeCount; ++edge) {
      if (exists(kind, edge)) {
        json["faults"][to_string(kind)][edge_column(edge)] = report.faults[i][edge];
      }
    }
  }
  for (std::size_t i = 0; i < report.reached.size(); ++i) {
    json["transitions"][to_string(static_cast<detail::Transition>(i))] = report.reached[i];
  }
  for (const simulator::Finding& finding : report.findings) {
    json["findings"].push_back({{"seed", finding.seed}, {"what", finding.what}});
  }
  return json;
}

}  // namespace

void TortureCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command =
      *parent.add_subcommand("torture", "Run the tier engine under faults in simulated time");
  command.footer(
      "Each schedule draws tiers, options, a workload and faults from its seed: copies that fail,\n"
      "stop half way, come late or never, bits that turn over, a full disk, crashes, resets,\n"
      "cancelled requests, clients that die. Whatever happens, no wrong byte may be seen, every\n"
      "request ends once and in time, and in the end every block is in its place.\n\n"
      "What is printed: how often each fault occurred, by edge, and how often the engine came "
      "through\n"
      "each of its transitions; their request_... count what users, the simulator and prefetches "
      "asked\n"
      "of the engine, while the requests of the last line are prompts.\n\n"
      "Exit codes: 0 nothing was found; 1 something was, or with --min-faults not everything was\n"
      "reached; 2 bad input, a failure of the system, or interrupted before the end.");
  const auto number = [&](const char* name, auto& value, const char* help, std::uint64_t min,
                          std::uint64_t max) {
    return command.add_option(name, value, help)->transform(whole_number(min, max))->type_name("N");
  };
  number("--schedules", schedules_,
         "Schedules to run, with one seed after the other (default 1000; 1 with --trace)", 1,
         std::uint64_t{1} << 40);
  number("--seed", seed_, "Seed of the first one (default: a new one each time)", 0, kMaxNumber);
  number("--threads", threads_, "Threads (default: one per core)", 1, 256);
  number("--min-faults", least_faults_,
         "Also fail if a kind of fault occurred fewer times on an edge where it can occur, or the\n"
         "engine did not come through everything that it can",
         1, kMaxNumber);
  output_.add_option(command);
  command.add_flag("--trace", trace_, "Print what happens in the schedule of --seed")
      ->excludes(command.get_option("--json"));
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int TortureCommand::run() const {
  if (trace_ && (!seed_ || schedules_ > 1)) return fail("--trace needs --seed, and one schedule");
  if (const auto writable = output_.check(); !writable) return fail(writable.error());
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) std::signal(signal, tell_seed);
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, interrupt);
  std::random_device random;
  const std::uint64_t seed = seed_.value_or(random());
  // At once, in case it hangs.
  if (!seed_) fmt::print(stderr, "kvbm: first seed {}\n", seed);
  if (trace_) {
    simulator::run_schedule(seed, [](const std::string& line) { fmt::print("{}\n", line); });
  }
  const std::uint64_t schedules = schedules_ > 0 ? schedules_ : trace_ ? 1 : kDefaultSchedules;
  const TortureReport report = [&] {
    ProgressBar bar("torture", schedules);
    const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
    return simulator::torture({.first_seed = seed,
                               .schedules = schedules,
                               .threads = threads_ > 0 ? static_cast<unsigned>(threads_) : cores,
                               .stop = &interrupted},
                              [&bar](std::uint64_t done) { bar.update(done); });
  }();
  std::string table =
      trace_ ? "" : fmt::format("first seed {}\n\n", seed) + to_table(report) + '\n';
  for (const simulator::Finding& finding : report.findings) {
    table += fmt::format("seed {}: {}\n", finding.seed, finding.what);
  }
  const bool is_whole = report.schedules == schedules || !report.findings.empty();
  const auto missed =
      least_faults_ > 0 && is_whole ? report.missed(least_faults_) : std::vector<std::string>();
  for (const std::string& what : missed) table += "not reached: " + what + '\n';
  const auto written = output_.write(to_json(report, seed, missed), table + last_line(report));
  if (!written) return fail(written.error());
  if (!is_whole) {
    return fail(fmt::format("interrupted after {} of {} schedules", report.schedules, schedules));
  }
  return report.findings.empty() && missed.empty() ? kOk : kWrong;
}

}  // namespace kvbm::app
