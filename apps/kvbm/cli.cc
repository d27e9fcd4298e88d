#include "apps/kvbm/cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/kvbm/output.h"
#include "apps/kvbm/replay.h"
#include "apps/kvbm/trace.h"
#include "apps/kvbm/trace_describe.h"
#include "apps/kvbm/trace_generate.h"

namespace kvbm::app {
namespace {

constexpr int kOk = 0;
constexpr int kWrong = 1;
constexpr int kBadInput = 2;

int fail(const Error& error) {
  // The user's own input needs no error code in front of its explanation.
  const std::string text = error.code == ErrorCode::InvalidConfig && !error.message.empty()
                               ? error.message
                               : error.to_string();
  fmt::print(stderr, "kvbm: {}\n", text);
  return kBadInput;
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

  void add_to(CLI::App& parent, std::function<int()>& chosen);
  int run() const;
};

void add_limit(CLI::App& command, std::optional<std::size_t>& limit) {
  command.add_option("--limit", limit, "Use only the first N requests")->type_name("N");
}

void GenerateCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command = *parent.add_subcommand("generate", "Make a seeded multi-turn chat workload");
  command.footer(
      "The workload: users hold conversations that begin with one of a few shared system prompts\n"
      "and grow turn by turn; some requests are one-off prompts that share nothing. The same\n"
      "options give the same bytes on every machine.");
  command.add_option("-o,--output", output, "File to write; - for standard output")
      ->capture_default_str()
      ->type_name("FILE");
  const auto number = [&](const char* name, auto& value, const char* help) {
    command.add_option(name, value, help)->capture_default_str()->type_name("N");
  };
  number("--seed", options.seed, "Seed of the workload; any number");
  number("--requests", options.requests, "Requests to generate, 1 .. 1000000");
  number("--system-prompts", options.system_prompts, "Shared system prompts, 1 .. 1024");
  number("--system-prompt-tokens", options.system_prompt_tokens, "Their length, 0 .. 100000");
  number("--users", options.users, "Users at the same time, 1 .. 100000");
  number("--mean-turns", options.mean_turns, "Turns of a conversation, 1 .. 1000");
  number("--opening-tokens", options.opening_tokens, "Typical first message, 1 .. 100000");
  number("--message-tokens", options.message_tokens, "Typical further message, 1 .. 100000");
  number("--output-tokens", options.output_tokens, "Typical answer, 1 .. 100000");
  number("--think-ms", options.think_ms, "Typical pause between turns, 0 .. 86400000 ms");
  number("--break-ms", options.break_ms, "Mean length of a break, 0 .. 86400000 ms");
  number("--pause-ms", options.pause_ms, "Mean pause between conversations, 0 .. 86400000 ms");
  number("--break-percent", options.break_percent, "Turns that follow a break, 0 .. 100 %");
  number("--regenerate-percent", options.regenerate_percent, "Turns asked again, 0 .. 50 %");
  number("--one-off-percent", options.one_off_percent, "One-off requests, 0 .. 90 %");
  number("--one-off-tokens", options.one_off_tokens, "Their typical length, 1 .. 1000000");
  number("--max-prompt-tokens", options.max_prompt_tokens, "Longest prompt, 2 .. 1048576");
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
  command.add_option("TRACE", trace, "Trace file; - for standard input")->required();
  add_limit(command, limit);
  output.add_option(command);
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int DescribeCommand::run() const {
  const auto read = read_trace(trace, limit);
  if (!read) return fail(read.error());
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
      "2 bad input, or memory or disk that could not be had.");
  const auto number = [&](const char* name, std::size_t& value, const char* help) {
    return command.add_option(name, value, help)->type_name("N");
  };
  command.add_option("TRACE", trace, "Trace file; - for standard input")->required();
  number("--device-blocks", options.device_blocks, "Blocks of the device tier")->required();
  number("--host-blocks", options.host_blocks, "Blocks of the host tier")->required();
  number("--disk-blocks", options.disk_blocks, "Blocks of the disk tier")->required();
  number("--block-bytes", options.block_bytes, "Bytes per block, a multiple of layers * 2 * 512")
      ->required();
  number("--layers", options.layers, "Layers per block, 1 .. 128")->capture_default_str();
  const std::map<std::string, LayoutType> layouts = {
      {"contiguous", LayoutType::FullyContiguous},
      {"layer-outer", LayoutType::LayerSeparateOuterContiguous},
      {"layer-block", LayoutType::LayerSeparateBlockContiguous}};
  command
      .add_option("--device-layout", options.device_layout,
                  "How the device keeps a block: contiguous, layer-outer or layer-block "
                  "(default; each layer in its own memory)")
      ->transform(CLI::CheckedTransformer(layouts, CLI::ignore_case).description(""))
      ->type_name("LAYOUT");
  command
      .add_option("--disk-dir", options.disk_dir,
                  "Directory for the disk tier's file, which stays there. Without it the file\n"
                  "is a nameless one in $TMPDIR or /tmp, gone when the command ends")
      ->type_name("DIR");
  add_limit(command, limit);
  const std::map<std::string, Verify> modes = {
      {"full", Verify::Full}, {"sample", Verify::Sample}, {"off", Verify::Off}};
  command
      .add_option("--verify", options.verify,
                  "Compare every byte of every hit (full, default), one region of each\n"
                  "(sample), or nothing (off)")
      ->transform(CLI::CheckedTransformer(modes, CLI::ignore_case).description(""))
      ->type_name("full|sample|off");
  output.add_option(command);
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int ReplayCommand::run() const {
  if (const auto valid = validate(options); !valid) return fail(valid.error());
  const auto read = read_trace(trace, limit);
  if (!read) return fail(read.error());

  auto report = [&] {
    ProgressBar bar("replay", read->requests.size());
    ReplayHooks hooks;
    hooks.after_request = [&](KvBlockManager&, std::size_t done) { bar.update(done); };
    return replay(*read, options, hooks);
  }();
  if (!report) return fail(report.error());
  const auto written = output.write(to_json(*report), to_table(*report));
  if (!written) return fail(written.error());
  return report->clean() ? kOk : kWrong;
}

}  // namespace

int run_cli(int argc, const char* const* argv) {
  CLI::App app("kvbm: a KV block manager for LLM inference", "kvbm");
  app.set_help_all_flag("--help-all", "Print the help of all commands and exit");
  app.require_subcommand(1);

  std::function<int()> chosen;
  CLI::App& trace = *app.add_subcommand("trace", "Make and inspect request traces");
  trace.require_subcommand(1);
  GenerateCommand generate;
  DescribeCommand describe_command;
  ReplayCommand replay_command;
  generate.add_to(trace, chosen);
  describe_command.add_to(trace, chosen);
  replay_command.add_to(app, chosen);

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "kvbm: {}\nTry the same command with --help.\n", error.what());
    return kBadInput;
  }
  return chosen();
}

}  // namespace kvbm::app
