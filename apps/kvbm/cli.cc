#include "apps/kvbm/cli.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/kvbm/command.h"
#include "apps/kvbm/output.h"
#include "apps/kvbm/plan_command.h"
#include "apps/kvbm/replay.h"
#include "apps/kvbm/report_html.h"
#include "apps/kvbm/runtime_options.h"
#include "apps/kvbm/sim.h"
#include "apps/kvbm/sim_bench.h"
#include "apps/kvbm/sim_html.h"
#include "apps/kvbm/sim_tiers.h"
#include "apps/kvbm/store_commands.h"
#include "apps/kvbm/torture_command.h"
#include "apps/kvbm/trace.h"
#include "apps/kvbm/trace_describe.h"
#include "apps/kvbm/trace_generate.h"
#include "benchmarks/bench.h"

namespace kvbm::app {
namespace {

template <class Value>
using Choices = std::vector<std::pair<std::string_view, Value>>;

template <class Value>
CLI::Option* add_choice(CLI::App& command, const std::string& name, Value& value,
                        const Choices<Value>& choices, const std::string& help) {
  const auto choose = [name, &value, choices](const std::string& text) {
    std::vector<std::string_view> names;
    for (const auto& [choice, meaning] : choices) {
      if (choice == text) {
        value = meaning;
        return;
      }
      names.push_back(choice);
    }
    throw CLI::ValidationError(name,
                               fmt::format("'{}' is not one of {}", text, fmt::join(names, ", ")));
  };
  return command.add_option_function<std::string>(name, choose, help);
}

// Each command: its options, and what runs when it was chosen. The returned object must live until
// then.
struct GenerateCommand {
  GenerateOptions options;
  std::string output = "-";

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  int run() const;
};

struct DescribeCommand {
  std::string trace;
  std::optional<std::size_t> limit;
  Output output;

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  int run() const;
};

struct ReplayCommand {
  std::string trace;
  ReplayOptions options;
  std::optional<std::size_t> limit;
  Output output;
  RuntimeOptions runtime;
  std::string report_file;  // empty: none

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  int run();
};

struct BenchCommand {
  const bench::Bench* chosen_bench = nullptr;
  bench::Options options;
  std::string trace;  // empty: a generated one
  std::string dir;    // empty: the bench's own choice
  Output output;

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  int run() const;
};

struct SimCommand {
  std::string trace;
  std::optional<std::size_t> limit;
  std::vector<SimPolicy> policies;
  std::vector<std::size_t> capacities;
  bool with_tiers = false;
  SimTiersOptions tiers;
  Output output;
  std::string report_file;  // empty: none

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  void add_tiers(CLI::App& command, const std::vector<CLI::Option*>& others);
  int run() const;
  int run_tiers(const Trace& read) const;
};

// The sizes of three tiers and of their blocks, into the members of these names.
template <class Sizes>
std::vector<CLI::Option*> add_sizes(CLI::App& command, Sizes& sizes) {
  const auto number = [&](const char* name, std::size_t& value, const char* help,
                          std::uint64_t max) {
    return command.add_option(name, value, help)->transform(whole_number(1, max))->type_name("N");
  };
  constexpr std::uint64_t kMaxBlocks = std::numeric_limits<std::uint32_t>::max() - 1;
  return {number("--device-blocks", sizes.device_blocks, "Blocks of the device tier", kMaxBlocks),
          number("--host-blocks", sizes.host_blocks, "Blocks of the host tier", kMaxBlocks),
          number("--disk-blocks", sizes.disk_blocks, "Blocks of the disk tier", kMaxBlocks),
          number("--block-bytes", sizes.block_bytes, "Bytes per block", kMaxNumber)};
}

void GenerateCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command = *parent.add_subcommand("generate", "Make a seeded multi-turn chat workload");
  command.footer(
      "The workload: users hold conversations that begin with one of a few shared system prompts\n"
      "and grow turn by turn; some requests are one-off prompts that share nothing. The same\n"
      "options give the same bytes on every machine.\n\n"
      "Exit codes: 0 the trace was written; 2 bad input or a failure of the system.");
  command.add_option("-o,--output", output, "File to write; - for standard output")
      ->capture_default_str()
      ->type_name("FILE");
  const auto number = [&](const char* name, auto& value, const char* help, std::uint64_t min,
                          std::uint64_t max, const char* unit = "") {
    command.add_option(name, value, fmt::format("{}, {} .. {}{}", help, min, max, unit))
        ->transform(whole_number(min, max))
        ->capture_default_str()
        ->type_name("N");
  };
  constexpr std::uint64_t kDayMs = 86'400'000;
  number("--seed", options.seed, "Seed of the workload", 0, kMaxNumber);
  number("--requests", options.requests, "Requests to generate", 1, 1'000'000);
  number("--system-prompts", options.system_prompts, "Shared system prompts", 1, 1024);
  number("--system-prompt-tokens", options.system_prompt_tokens, "Their length", 0, 100'000);
  number("--users", options.users, "Users at the same time", 1, 100'000);
  number("--mean-turns", options.mean_turns, "Turns of a conversation", 1, 1000);
  number("--opening-tokens", options.opening_tokens, "Typical first message", 1, 100'000);
  number("--message-tokens", options.message_tokens, "Typical further message", 1, 100'000);
  number("--output-tokens", options.output_tokens, "Typical answer", 1, 100'000);
  number("--think-ms", options.think_ms, "Typical pause between turns", 0, kDayMs, " ms");
  number("--break-ms", options.break_ms, "Mean length of a break", 0, kDayMs, " ms");
  number("--pause-ms", options.pause_ms, "Mean pause between conversations", 0, kDayMs, " ms");
  number("--break-percent", options.break_percent, "Turns that follow a break", 0, 100, " %");
  number("--regenerate-percent", options.regenerate_percent, "Turns asked again", 0, 50, " %");
  number("--one-off-percent", options.one_off_percent, "One-off requests", 0, 90, " %");
  number("--one-off-tokens", options.one_off_tokens, "Their typical length", 1, 1'000'000);
  number("--max-prompt-tokens", options.max_prompt_tokens, "Longest prompt", 2, 1'048'576);
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int GenerateCommand::run() const {
  const auto trace = generate_trace(options);
  if (!trace) return fail(trace.error());
  const auto written = write_trace(*trace, output);
  return written ? kOk : fail(written.error());
}

void DescribeCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command = *parent.add_subcommand("describe", "Print the shape of a trace");
  command.footer("Exit codes: 0 the trace was described; 2 bad input or a failure of the system.");
  command.add_option("TRACE", trace, "Trace file; - for standard input")->required();
  add_limit(command, limit);
  output.add_option(command);
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int DescribeCommand::run() const {
  const auto read = read_trace(trace, limit);
  if (!read) return fail(read.error());
  const auto writable = check_outputs(output, "", trace);
  if (!writable) return fail(writable.error());
  const TraceShape shape = describe(*read);
  const auto written = output.write(to_json(shape), to_table(shape));
  return written ? kOk : fail(written.error());
}

void ReplayCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command =
      *parent.add_subcommand("replay", "Run a trace against real pools and verify every hit");
  command.footer(
      "Each request of the trace is matched against the device, host and disk pools; blocks that\n"
      "are found are brought to the device and compared with the bytes that were stored, the rest\n"
      "is written as if a model had computed it, registered and offloaded.\n\n"
      "Exit codes: 0 nothing was wrong; 1 wrong blocks, checksum mismatches or failed transfers;\n"
      "with --fault-rate, 1 wrong blocks only; 2 bad input, or memory or disk that could not be "
      "had.");
  command.add_option("TRACE", trace, "Trace file; - for standard input")->required();
  for (CLI::Option* option : add_sizes(command, options)) option->required();
  command.get_option("--block-bytes")
      ->description("Bytes per block, a multiple of layers * 2 * 512");
  command.add_option("--layers", options.layers, "Layers per block, 1 .. 128")
      ->transform(whole_number(1, MAX_NUM_LAYERS))
      ->type_name("N")
      ->capture_default_str();
  add_choice<LayoutType>(command, "--device-layout", options.device_layout,
                         {{"contiguous", LayoutType::FullyContiguous},
                          {"layer-outer", LayoutType::LayerSeparateOuterContiguous},
                          {"layer-block", LayoutType::LayerSeparateBlockContiguous}},
                         "How the device keeps a block: contiguous, layer-outer or layer-block\n"
                         "(default; each layer in its own memory)")
      ->type_name("LAYOUT");
  command
      .add_option("--disk-dir", options.disk_dir,
                  "Directory in which the disk tier survives: the next replay finds its blocks.\n"
                  "Without it the tier is a nameless file in $TMPDIR or /tmp")
      ->check(CLI::Validator(
          [](std::string& text) { return text.empty() ? "the name is empty" : std::string(); }, ""))
      ->type_name("DIR");
  add_limit(command, limit);
  add_choice<Verify>(command, "--verify", options.verify,
                     {{"full", Verify::Full}, {"sample", Verify::Sample}, {"off", Verify::Off}},
                     "Compare every byte of every hit (full, default), one region of each\n"
                     "(sample), or nothing (off)")
      ->type_name("full|sample|off");
  CLI::Option* const rate =
      command
          .add_option("--fault-rate", options.fault_rate,
                      "Of the blocks of every transfer, how many fail, hang, come late or turn\n"
                      "bytes, 0 .. 1 (default 0)")
          ->type_name("R");
  command.add_option("--seed", options.seed, "Which faults there are")
      ->transform(whole_number(0, kMaxNumber))
      ->capture_default_str()
      ->needs(rate)
      ->type_name("N");
  output.add_option(command);
  add_report(command, report_file,
             "Write a page with charts of the replay to FILE: HTML that needs nothing else");
  runtime.add_to(command);
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int ReplayCommand::run() {
  auto resolved = runtime.resolve();
  if (!resolved) return fail(resolved.error());
  options.runtime = std::move(*resolved);
  if (const auto valid = validate(options); !valid) return fail(valid.error());
  const auto read = read_trace(trace, limit);
  if (!read) return fail(read.error());
  const auto writable = check_outputs(output, report_file, trace);
  if (!writable) return fail(writable.error());

  auto report = [&] {
    ProgressBar bar("replay", read->requests.size());
    ReplayHooks hooks;
    hooks.after_request = [&](ReferenceBlockManager&, std::size_t done) { bar.update(done); };
    return replay(*read, options, hooks);
  }();
  if (!report) return fail(report.error());
  if (!report_file.empty()) {
    const auto written = write_file(report_file, to_html(*report, {trace, limit, options}));
    if (!written) return fail(written.error());
  }
  const auto written = output.write(to_json(*report), to_table(*report));
  if (!written) return fail(written.error());
  return report->clean() ? kOk : kWrong;
}

void BenchCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command =
      *parent.add_subcommand("bench", "Measure a part beside plain code for the same work");
  Choices<const bench::Bench*> choices;
  std::string names = "The benches:\n";
  for (const bench::Bench& each : bench::benches()) {
    choices.emplace_back(each.name, &each);
    names += fmt::format("  {:<10} {}\n", each.name, each.summary);
  }
  command.footer(
      names +
      "\nThe limit of a row is the fastest of the plain probes below it, timed in turns with it; "
      "the\n"
      "ratio is the speed relative to that limit. Use a Release build and an idle machine.\n\n"
      "Exit codes: 0 the bench ran; 1 a row beat its limit by more than 5 %, so its probes are "
      "too\n"
      "weak; 2 bad input or a failure of the system.");
  add_choice(command, "NAME", chosen_bench, choices, "What to measure")->required()->type_name("");
  command
      .add_option("--trace", trace,
                  "Trace that pool's row sim_accesses_per_second runs; a generated one if absent")
      ->type_name("FILE");
  command.add_option("--seed", options.seed, "Seed of random input")
      ->transform(whole_number(0, kMaxNumber))
      ->capture_default_str()
      ->type_name("N");
  command
      .add_option(
          "--dir", dir,
          "Folder for the files of disk, disk-raw and tiers, 5 GiB, 768 MiB and 320 MiB, on\n"
          "the disk to measure; the current one if absent. They are gone when the command\n"
          "ends")
      ->check(CLI::Validator(
          [](std::string& text) { return text.empty() ? "the name is empty" : std::string(); }, ""))
      ->type_name("DIR");
  output.add_option(command);
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int BenchCommand::run() const {
  const bool runs_trace = chosen_bench->name == std::string_view("pool");
  if (!runs_trace && !trace.empty()) return fail("--trace is for the bench pool only");
  const std::string_view name = chosen_bench->name;
  if (!dir.empty() && name != "disk" && name != "disk-raw" && name != "tiers") {
    return fail("--dir is for the benches disk, disk-raw and tiers only");
  }
  const Result<Trace> asked = !runs_trace     ? Trace()
                              : trace.empty() ? generate_trace({})
                                              : read_trace(trace, std::nullopt);
  if (!asked) return fail(asked.error());
  const auto writable = check_outputs(output, "", trace);
  if (!writable) return fail(writable.error());
  bench::Options chosen_options = options;
  if (!dir.empty()) chosen_options.dir = dir;
  auto report = chosen_bench->run(chosen_options);
  if (!report) return fail(report.error());
  if (runs_trace) {
    auto row = sim_row(*asked);
    if (!row) return fail(row.error());
    report->rows.push_back(std::move(*row));
  }
  const auto written = output.write(bench::to_json(*report), bench::to_table(*report));
  if (!written) return fail(written.error());
  return report->valid() ? kOk : kWrong;
}

void SimCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command = *parent.add_subcommand(
      "sim", "Count the hits of eviction policies over a trace, without bytes");
  command.footer(
      "Each policy meets each capacity, in the order given. lru, age-index and fifo are those of "
      "the\n"
      "pools, run by the clock of the trace. min and min-forced are bounds that know the future:\n"
      "no cache of that size hits more blocks; one of min-forced takes in every block it "
      "computes.\n\n"
      "With --tiers the trace goes through the tier engine and three pools instead, as replay\n"
      "--deterministic with these sizes would run it: same hits, same run digest.\n\n"
      "Exit codes: 0 the hits were counted; 2 bad input or a failure of the system.");
  command.add_option("TRACE", trace, "Trace file; - for standard input")->required();
  const auto policy = [](std::string& text) {
    if (const auto found = sim_policy(text)) return *found;
    std::vector<std::string_view> names;
    for (const SimPolicy known : kSimPolicies) names.push_back(to_string(known));
    throw CLI::ValidationError("--policy",
                               fmt::format("'{}' is not one of {}", text, fmt::join(names, ", ")));
  };
  CLI::Option* const policy_list = add_list<SimPolicy>(
      command, "--policy", policies, policy, "Policies: lru, age-index, fifo, min, min-forced");
  policy_list->type_name("P[,P]");
  const auto capacity = [](std::string& text) -> std::size_t {
    constexpr std::uint64_t kMaxBlocks = std::numeric_limits<std::uint32_t>::max() - 1;
    const std::string problem = whole_number(1, kMaxBlocks)(text);
    if (!problem.empty()) throw CLI::ValidationError("--capacity", problem);
    return std::stoull(text);
  };
  CLI::Option* const capacity_list =
      add_list<std::size_t>(command, "--capacity", capacities, capacity, "Capacities, in blocks");
  capacity_list->type_name("N[,N]");
  add_limit(command, limit);
  output.add_option(command);
  add_report(command, report_file,
             "Write a page with a chart of the hits to FILE: HTML that needs nothing else");
  add_tiers(command, {policy_list, capacity_list, command.get_option("--report")});
  command.callback([this, &chosen, policy_list, capacity_list] {
    for (const CLI::Option* option : {policy_list, capacity_list}) {
      if (!with_tiers && option->empty()) throw CLI::RequiredError(option->get_name());
    }
    chosen = [this] { return run(); };
  });
}

// `others` are those that have no meaning with tiers.
void SimCommand::add_tiers(CLI::App& command, const std::vector<CLI::Option*>& others) {
  CLI::Option* const flag =
      command.add_flag("--tiers", with_tiers, "Run three tiers; needs their sizes, as replay does");
  for (CLI::Option* size : add_sizes(command, tiers)) {
    flag->needs(size);
    size->needs(flag);
  }
  for (CLI::Option* other : others) flag->excludes(other);
}

int SimCommand::run_tiers(const Trace& read) const {
  const auto report = [&] {
    ProgressBar bar("sim", read.requests.size());
    return simulate_tiers(read, tiers, [&](std::size_t done) { bar.update(done); });
  }();
  if (!report) return fail(report.error());
  const auto written = output.write(to_json(*report), to_table(*report, tiers));
  return written ? kOk : fail(written.error());
}

int SimCommand::run() const {
  const auto read = read_trace(trace, limit);
  if (!read) return fail(read.error());
  const auto writable = check_outputs(output, report_file, trace);
  if (!writable) return fail(writable.error());
  if (with_tiers) return run_tiers(*read);

  const SimTrace sim_trace = make_sim_trace(*read);
  std::vector<SimRow> rows;
  for (const SimPolicy policy : policies) {
    for (const std::size_t capacity : capacities) {
      const auto row = simulate(sim_trace, policy, capacity);
      if (!row) return fail(row.error());
      rows.push_back(*row);
    }
  }
  if (!report_file.empty()) {
    const SimParameters about{trace, limit, sim_trace.requests.size(), sim_trace.unique_blocks};
    const auto written = write_file(report_file, to_html(rows, about));
    if (!written) return fail(written.error());
  }
  const auto written = output.write(to_json(rows), to_table(rows));
  return written ? kOk : fail(written.error());
}

// The command that was given, as far as it was understood, and its full name.
struct Given {
  const CLI::App* command;
  std::string before;  // the commands that it is part of

  std::string name() const {
    return before.empty() ? command->get_name() : before + " " + command->get_name();
  }
};

Given given_command(const CLI::App& app) {
  Given given{&app, ""};
  while (!given.command->get_subcommands().empty()) {
    given = {given.command->get_subcommands().front(), given.name()};
  }
  return given;
}

std::string help_of(const Given& given, bool all) {
  std::string text = given.command->help(given.before);
  if (!all) return text;
  for (const CLI::App* command : given.command->get_subcommands({})) {
    text += "\n" + help_of({command, given.name()}, all);
  }
  return text;
}

int print_help(const Given& given, bool all) {
  const std::string text = help_of(given, all);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return fail(Error{ErrorCode::OperationFailed, errno, 0, 0, "cannot write standard output"});
  }
  return kOk;
}

int refuse(const CLI::ParseError& error, const Given& given) {
  std::string text = error.what();
  const std::vector<std::string> unknown = given.command->remaining();
  if (!unknown.empty()) text = fmt::format("'{}' was not expected", unknown.front());
  std::vector<std::string> commands;
  for (const CLI::App* command : given.command->get_subcommands({})) {
    commands.push_back(command->get_name());
  }
  if (!commands.empty()) {  // CLI11 does not say which command it did not know
    text = fmt::format("{}; the commands are {}",
                       unknown.empty() ? given.name() + " needs a command"
                                       : "'" + unknown.front() + "' is not a command",
                       fmt::join(commands, ", "));
  }
  return fail(fmt::format("{} (see {} --help)", text, given.name()));
}

}  // namespace

int run_cli(int argc, const char* const* argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error to tell, not an end
  CLI::App app("kvbm: a KV block manager for LLM inference", "kvbm");
  app.set_help_all_flag("--help-all", "Print the help of all commands and exit");
  app.set_version_flag("--version", "kvbm " KVBM_VERSION, "Print the version and exit");
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 nothing was wrong; 1 something was, and the help of the command says\n"
      "what; 2 bad input or a failure of the system.");

  std::function<int()> chosen;
  CLI::App& trace = *app.add_subcommand("trace", "Make and inspect request traces");
  trace.require_subcommand(1);
  GenerateCommand generate;
  DescribeCommand describe_command;
  ReplayCommand replay_command;
  BenchCommand bench_command;
  SimCommand sim_command;
  PlanCommand plan_command;
  StoreCommands store_commands;
  TortureCommand torture_command;
  generate.add_to(trace, chosen);
  describe_command.add_to(trace, chosen);
  replay_command.add_to(app, chosen);
  sim_command.add_to(app, chosen);
  plan_command.add_to(app, chosen);
  torture_command.add_to(app, chosen);
  store_commands.add_to(app, chosen);
  bench_command.add_to(app, chosen);

  try {
    app.parse(argc, argv);
    return chosen();
  } catch (const CLI::CallForAllHelp&) {
    return print_help(given_command(app), true);
  } catch (const CLI::CallForVersion&) {
    fmt::print("kvbm {}\n", KVBM_VERSION);
    return kOk;
  } catch (const CLI::Success&) {  // --help
    return print_help(given_command(app), false);
  } catch (const CLI::ParseError& error) {
    return refuse(error, given_command(app));
  } catch (const std::bad_alloc&) {
    return fail("there is not enough memory");
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}

}  // namespace kvbm::app
