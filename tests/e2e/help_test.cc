// What the program says about itself, and how it looks in a terminal and in a pipe.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>

#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Arguments = std::vector<std::string>;

const std::map<Arguments, std::set<std::string>> kOptions = {
    {{"trace", "generate"},
     {"--output", "--seed", "--requests", "--system-prompts", "--system-prompt-tokens", "--users",
      "--mean-turns", "--opening-tokens", "--message-tokens", "--output-tokens", "--think-ms",
      "--break-ms", "--pause-ms", "--break-percent", "--regenerate-percent", "--one-off-percent",
      "--one-off-tokens", "--max-prompt-tokens"}},
    {{"trace", "describe"}, {"--limit", "--json"}},
    {{"replay"},
     {"--device-blocks", "--host-blocks", "--disk-blocks", "--block-bytes", "--layers",
      "--device-layout", "--disk-dir", "--limit", "--verify", "--fault-rate", "--seed", "--json",
      "--report", "--config", "--worker-id", "--transfer-threads", "--offload-queue-blocks",
      "--prefill-tokens-per-second", "--deterministic"}},
    {{"bench"}, {"--trace", "--dir", "--seed", "--json"}},
    {{"sim"},
     {"--policy", "--capacity", "--limit", "--json", "--report", "--tiers", "--device-blocks",
      "--host-blocks", "--disk-blocks", "--block-bytes"}},
    {{"plan"},
     {"--block-bytes", "--prefill-rate", "--host-gb", "--disk-gb", "--device-gb", "--host-speed",
      "--disk-speed", "--limit", "--json", "--report"}},
    {{"inspect"}, {"--hash", "--rated-endurance-bytes", "--json"}},
    {{"fsck"}, {"--repair", "--deep", "--json"}},
    {{"export"}, {"--namespace", "--hash"}},
    {{"import"}, {}},
};

std::string help(Arguments arguments, const std::string& flag = "--help") {
  arguments.push_back(flag);
  const Finished finished = Command(std::move(arguments)).run();
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_EQ(finished.err, "");
  EXPECT_THAT(finished.out, EndsWith("\n"));
  EXPECT_THAT(finished.out, HasSubstr("Exit codes: 0 "));
  return finished.out;
}

std::string joined(const Arguments& arguments) {
  std::string text = "kvbm";
  for (const std::string& argument : arguments) text += " " + argument;
  return text;
}

// The options that begin a line of help, without those that every command has.
std::set<std::string> options_in(const std::string& text) {
  const std::regex option(R"(\n  (?:-\w,)?(--[a-z-]+))");
  std::set<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), option), end; it != end; ++it) {
    found.insert((*it)[1]);
  }
  found.erase("--help");
  found.erase("--help-all");
  return found;
}

TEST(HelpTest, EachCommandTellsAllItsOptions) {
  for (const auto& [command, options] : kOptions) {
    SCOPED_TRACE(joined(command));
    const std::string text = help(command);
    EXPECT_THAT(text, HasSubstr("Usage: " + joined(command) + " [OPTIONS]"));
    EXPECT_EQ(options_in(text), options);
    EXPECT_EQ(help(command, "-h"), text);
  }
}

TEST(HelpTest, CommandsTellTheirCommands) {
  EXPECT_THAT(help({}), HasSubstr("Usage: kvbm [OPTIONS] SUBCOMMAND"));
  for (const char* command : {"\n  trace ", "\n  replay ", "\n  sim ", "\n  inspect ", "\n  fsck ",
                              "\n  export ", "\n  import ", "\n  bench "}) {
    EXPECT_THAT(help({}), HasSubstr(command));
  }
  for (const char* command : {"\n  generate ", "\n  describe "}) {
    EXPECT_THAT(help({"trace"}), HasSubstr(command));
  }
}

TEST(HelpTest, HelpAllIsTheHelpOfAllCommands) {
  const std::string all = help({}, "--help-all");
  EXPECT_THAT(all, StartsWith(help({})));
  EXPECT_THAT(all, HasSubstr(help({"trace"})));
  for (const auto& [command, options] : kOptions) EXPECT_THAT(all, HasSubstr(help(command)));

  const std::string traces = help({"trace"}, "--help-all");
  EXPECT_THAT(traces, HasSubstr(help({"trace", "generate"})));
  EXPECT_THAT(traces, Not(HasSubstr("--device-blocks")));
}

TEST(HelpTest, RangesInTheHelpAreTheOnesThatHold) {
  const std::string text = help({"trace", "generate"});
  const std::regex range(R"(\n  (?:-\w,)?(--[a-z-]+) N=\d+\s[^\n]*?\n?[^\n]*?, (\d+) \.\. (\d+))");
  int checked = 0;
  for (std::sregex_iterator it(text.begin(), text.end(), range), end; it != end; ++it, ++checked) {
    const std::string option = (*it)[1];
    if (option == "--seed") continue;
    const std::string above = std::to_string(std::stoull((*it)[3]) + 1);
    const Finished finished = Command({"trace", "generate", option, above}).run();
    EXPECT_EQ(finished.exit_code, 2) << option;
    EXPECT_THAT(finished.err, HasSubstr(option + ": '" + above + "' is not a whole number from " +
                                        (*it)[2].str() + " to " + (*it)[3].str()));
  }
  EXPECT_EQ(checked, 17);
}

TEST(TerminalTest, PipesGetPlainText) {
  const std::string trace = small_trace();
  const std::vector<Finished> runs = {
      replay_command("-", kSmallTiers).input(trace).run(),
      replay_command("-", {0, 1, 1}).run(),
      Command({"trace", "describe", "-"}).input(trace).run(),
      Command({"--help-all"}).run(),
  };
  for (const Finished& finished : runs) {
    const std::string text = finished.out + finished.err;
    EXPECT_FALSE(text.empty());
    EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) {
      return c == '\n' || (c >= ' ' && c <= '~');
    })) << text;
  }
}

TEST(TerminalTest, ATerminalGetsABarThatIsWipedAtTheEnd) {
  const Finished finished =
      replay_command("-", kSmallTiers).input(small_trace()).terminal_on_stderr().run();

  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.err, StartsWith("\rreplay ["));
  EXPECT_THAT(finished.err, HasSubstr("]  50.0%"));
  EXPECT_THAT(finished.err, EndsWith("] 100.0%\r\033[K"));
  EXPECT_THAT(finished.err, Not(HasSubstr("\n")));
  EXPECT_THAT(finished.out, StartsWith("300 requests"));
  EXPECT_THAT(finished.out, Not(HasSubstr("\r")));
}

TEST(TerminalTest, TheBarDoesNotMixWithAnError) {
  const Finished finished = replay_command("-", kSmallTiers, {"--json", "/dev/full"})
                                .input(small_trace())
                                .terminal_on_stderr()
                                .run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.err, HasSubstr("100.0%\r\033[Kkvbm: "));
}

}  // namespace
}  // namespace kvbm::e2e
