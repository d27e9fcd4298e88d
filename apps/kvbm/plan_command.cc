#include "apps/kvbm/plan_command.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/kvbm/command.h"
#include "apps/kvbm/plan_html.h"

namespace kvbm::app {

void PlanCommand::add_to(CLI::App& parent, std::function<int()>& chosen) {
  CLI::App& command =
      *parent.add_subcommand("plan", "Find sizes of the host and disk tiers that pay");
  command.footer(
      "For each pair of sizes the trace is run through the tier engine without bytes, as replay\n"
      "--deterministic would run it. The first row is the device tier alone, which the engine has\n"
      "anyway: saved is the prefill time that a pair of sizes takes less than it, load is what it\n"
      "takes to move blocks to the device, one path after the other, at the given speeds, and net\n"
      "is the difference. Sizes are whole numbers of GB, from 1; a GB is 10^9 bytes, and a block\n"
      "has 512 tokens.\n\n"
      "Exit codes: 0 the sizes were compared; 2 bad input or a failure of the system.");
  command.add_option("TRACE", trace_, "Trace file; - for standard input")->required();
  const auto number = [&](const char* name, auto& value, const char* help,
                          std::uint64_t max = kMaxNumber) {
    return command.add_option(name, value, help)->transform(whole_number(1, max))->type_name("N");
  };
  number("--block-bytes", options_.block_bytes, "Bytes per block, at most a TB", 1000 * kGigabyte)
      ->required();
  number("--prefill-rate", options_.prefill_tokens_per_second,
         "Tokens per second that the engine computes of prompts")
      ->required();
  const auto sizes = [&](const char* name, std::vector<std::uint64_t>& values, const char* help) {
    const auto parse = [name](std::string& text) -> std::uint64_t {
      const std::string problem = whole_number(1, kMaxNumber)(text);
      if (!problem.empty()) throw CLI::ValidationError(name, problem);
      return std::stoull(text);
    };
    add_list<std::uint64_t>(command, name, values, parse, help)->required()->type_name("N[,N]");
  };
  sizes("--host-gb", options_.host_gb, "Sizes of the host tier, from 1");
  sizes("--disk-gb", options_.disk_gb, "Sizes of the disk tier, from 1");
  number("--device-gb", options_.device_gb,
         "Size of the device tier, from 1 (default: the longest prompt)");
  number("--host-speed", options_.host_mb_per_second, "MB/s from host to device")
      ->capture_default_str();
  number("--disk-speed", options_.disk_mb_per_second, "MB/s from disk to host")
      ->capture_default_str();
  add_limit(command, limit_);
  output_.add_option(command);
  add_report(command, report_file_,
             "Write a page with a chart of the times to FILE: HTML that needs nothing else");
  command.callback([this, &chosen] { chosen = [this] { return run(); }; });
}

int PlanCommand::run() const {
  const auto read = read_trace(trace_, limit_);
  if (!read) return fail(read.error());
  const auto writable = check_outputs(output_, report_file_, trace_);
  if (!writable) return fail(writable.error());
  const auto report = [&] {
    const std::size_t rows = 1 + options_.host_gb.size() * options_.disk_gb.size();
    ProgressBar bar("plan", read->requests.size() * rows);
    return plan(*read, options_, [&](std::size_t done) { bar.update(done); });
  }();
  if (!report) return fail(report.error());
  if (report->device_blocks < report->longest_prompt) {
    fmt::print(
        stderr,
        "kvbm: warning: --device-gb is {} blocks and the longest prompt {}: what has no room "
        "on the device is computed each time\n",
        report->device_blocks, report->longest_prompt);
  }
  if (!report_file_.empty()) {
    const auto written = write_file(report_file_, to_html(*report, trace_));
    if (!written) return fail(written.error());
  }
  const auto written = output_.write(to_json(*report), to_table(*report));
  return written ? kOk : fail(written.error());
}

}  // namespace kvbm::app
