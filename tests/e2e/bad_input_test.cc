// Whatever is wrong with the input: exit code 2, one line on standard error that names the culprit
// and what is allowed, nothing on standard output, nothing left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <optional>

#include "tests/e2e/replay_run.h"

namespace kvbm::e2e {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const std::vector<std::string> kGoodLines = {
    R"({"timestamp": 0, "input_length": 1024, "output_length": 9, "hash_ids": [0, 1]})",
    R"({"timestamp": 5, "input_length": 1000, "output_length": 9, "hash_ids": [0, 2]})",
};

// A folder with a trace and an empty folder for temporary files, to which nothing may be added.
class BadInputTest : public testing::Test {
 protected:
  BadInputTest() {
    std::filesystem::create_directory(folder_.path() / "tmp");
    write_trace({});
    before_ = contents(folder_.path());
  }

  void write_trace(const std::vector<std::string>& more) {
    std::string text;
    for (const std::string& line : kGoodLines) text += line + "\n";
    for (const std::string& line : more) text += line + "\n";
    write_file(folder_ / "trace.jsonl", text);
    before_ = contents(folder_.path());
  }

  Finished run(Command command) const {
    return command.folder(folder_.path()).environment("TMPDIR", folder_ / "tmp").run();
  }

  void expect_refused(const Command& command, const std::vector<std::string>& told) const {
    expect_refusal(run(command), told);
  }

  void expect_refusal(const Finished& finished, const std::vector<std::string>& told) const {
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_EQ(finished.signal, 0);
    EXPECT_EQ(finished.out, "");
    EXPECT_THAT(finished.err, StartsWith("kvbm: "));
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
    EXPECT_TRUE(finished.err.ends_with("\n"));
    for (const std::string& text : told) EXPECT_THAT(finished.err, HasSubstr(text));
    EXPECT_EQ(contents(folder_.path()), before_);
  }

  TemporaryFolder folder_;
  std::vector<std::string> before_;
};

// A replay's command line with one option's value replaced, or the option left out.
Command replay_with(const std::string& option, const std::optional<std::string>& value) {
  std::vector<std::pair<std::string, std::string>> options = {{"--device-blocks", "10"},
                                                              {"--host-blocks", "10"},
                                                              {"--disk-blocks", "10"},
                                                              {"--block-bytes", "8192"}};
  std::erase_if(options, [&](const auto& one) { return one.first == option; });
  if (value) options.emplace_back(option, *value);
  std::vector<std::string> arguments = {"replay", "trace.jsonl"};
  for (const auto& [name, text] : options) arguments.insert(arguments.end(), {name, text});
  return Command(std::move(arguments));
}

TEST_F(BadInputTest, TheCommandsThatTheseTestsSpoilAreGood) {
  const Finished finished = run(replay_with("--layers", "4"));
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_EQ(contents(folder_.path()), before_);
}

// --- the command line ------------------------------------------------------------------------

TEST_F(BadInputTest, Commands) {
  expect_refused(Command({}), {"needs a command", "trace, replay, sim", "kvbm --help"});
  expect_refused(Command({"trace"}), {"needs a command", "generate, describe", "trace --help"});
  expect_refused(Command({"rplay", "trace.jsonl"}), {"'rplay'", "trace, replay, sim"});
  expect_refused(Command({"trace", "print"}), {"'print'", "generate, describe"});
  expect_refused(Command({"--fast"}), {"'--fast'", "kvbm --help"});
}

TEST_F(BadInputTest, UnknownOptionsAndArguments) {
  expect_refused(replay_with("--fast", "1"), {"'--fast'", "replay --help"});
  expect_refused(Command({"replay", "--fast"}), {"'--fast'", "replay --help"});
  expect_refused(Command({"trace", "describe", "trace.jsonl", "--fast=1"}),
                 {"'--fast=1'", "trace describe --help"});
  expect_refused(Command({"trace", "generate", "out.jsonl"}),
                 {"'out.jsonl'", "trace generate --help"});
  expect_refused(Command({"trace", "describe", "trace.jsonl", "more.jsonl"}), {"'more.jsonl'"});
}

TEST_F(BadInputTest, MissingOptionsAndValues) {
  for (const char* option :
       {"--device-blocks", "--host-blocks", "--disk-blocks", "--block-bytes"}) {
    expect_refused(replay_with(option, std::nullopt), {option, "required"});
  }
  expect_refused(Command({"replay"}), {"TRACE", "required"});
  expect_refused(Command({"trace", "describe"}), {"TRACE", "required"});
  expect_refused(Command({"trace", "generate", "--seed"}), {"--seed", "required"});
  expect_refused(Command({"replay", "trace.jsonl", "--layers", "1", "--layers", "2"}),
                 {"--layers", "2"});
}

TEST_F(BadInputTest, NumbersOfBlocks) {
  for (const char* option : {"--device-blocks", "--host-blocks", "--disk-blocks"}) {
    for (const char* value :
         {"0", "-1", "-18446744073709551606", "4294967295", "18446744073709551615",
          "99999999999999999999", "ten", "", " 1", "1 ", "+1", "1.5", "1e3", "0x10", "1,000"}) {
      SCOPED_TRACE(std::string(option) + " '" + value + "'");
      expect_refused(replay_with(option, value),
                     {option, "'" + std::string(value) + "'", "from 1 to 4294967294"});
    }
  }
}

TEST_F(BadInputTest, OtherNumbers) {
  for (const char* value : {"0", "129", "-1", "four", "99999999999999999999"}) {
    SCOPED_TRACE(value);
    expect_refused(replay_with("--layers", value), {"--layers", value, "1 to 128"});
    expect_refused(Command({"trace", "generate", "--requests", value + std::string("9999999")}),
                   {"--requests", value, "1 to 1000000"});
  }
  for (const char* value : {"0", "-1", "some", "18446744073709551616"}) {
    SCOPED_TRACE(value);
    expect_refused(replay_with("--limit", value), {"--limit", value, "from 1"});
    expect_refused(Command({"trace", "describe", "trace.jsonl", "--limit", value}),
                   {"--limit", value, "from 1"});
  }
  expect_refused(Command({"trace", "generate", "--seed", "-1"}), {"--seed", "'-1'", "from 0"});
  expect_refused(Command({"trace", "generate", "--max-prompt-tokens", "1000", "-o", "new.jsonl"}),
                 {"prompt", "1000", "2251 to 1048576"});
}

TEST_F(BadInputTest, BlockBytes) {
  for (const char* value : {"1", "512", "4095", "8191", "12289", "18446744073709551615"}) {
    SCOPED_TRACE(value);
    expect_refused(replay_with("--block-bytes", value),
                   {"--block-bytes", value, "multiple of 4096"});
  }
  for (const char* value : {"0", "-4096", "8k", "99999999999999999999"}) {
    SCOPED_TRACE(value);
    expect_refused(replay_with("--block-bytes", value), {"--block-bytes", value, "whole number"});
  }
  expect_refused(Command({"replay", "trace.jsonl", "--device-blocks", "10", "--host-blocks", "10",
                          "--disk-blocks", "10", "--layers", "3", "--block-bytes", "8192"}),
                 {"--block-bytes", "multiple of 3072", "3 layers"});
}

TEST_F(BadInputTest, Choices) {
  for (const char* value : {"most", "", "0", "Full"}) {
    SCOPED_TRACE(value);
    expect_refused(replay_with("--verify", value), {"--verify", "full, sample, off"});
    expect_refused(replay_with("--device-layout", value),
                   {"--device-layout", "contiguous, layer-outer, layer-block"});
  }
}

TEST_F(BadInputTest, Faults) {
  for (const char* value : {"2", "-0.1", "nan", "many"}) {
    SCOPED_TRACE(value);
    expect_refused(replay_with("--fault-rate", value), {"--fault-rate"});
  }
  expect_refused(replay_with("--seed", "1"), {"--seed requires --fault-rate"});
}

// --- the trace -------------------------------------------------------------------------------

TEST_F(BadInputTest, MalformedTraceLines) {
  const std::string fields = R"("timestamp": 9, "output_length": 1, )";
  const std::vector<std::pair<std::string, std::vector<std::string>>> lines = {
      {"{", {"JSON", "timestamp, input_length, output_length and hash_ids"}},
      {"[1, 2]", {"an array is not a JSON object", "timestamp"}},
      {"{" + fields + R"("hash_ids": []})", {"input_length is missing"}},
      {"{" + fields + R"("input_length": -4, "hash_ids": []})", {"input_length is -4", "0 to"}},
      {"{" + fields + R"("input_length": "4", "hash_ids": [7]})", {"input_length is a string"}},
      {"{" + fields + R"("input_length": 1e30, "hash_ids": [7]})", {"input_length is 1e+30"}},
      {"{" + fields + R"("input_length": 600, "hash_ids": [7]})", {"1 ids", "must have 2"}},
      {"{" + fields + R"("input_length": 600, "hash_ids": 7})", {"must be an array"}},
      {"{" + fields + R"("input_length": 600, "hash_ids": [7, 7]})", {"id 7", "twice"}},
      // Id 1 follows id 0 on line 1.
      {"{" + fields + R"("input_length": 600, "hash_ids": [7, 1]})",
       {"hash id 1 follows id 7", "follows id 0 on line 1", "same id"}},
      {R"({"timestamp": 4, "input_length": 0, "output_length": 1, "hash_ids": []})",
       {"timestamp 4", "5 on line 2", "not decrease"}},
  };
  for (auto [line, told] : lines) {
    SCOPED_TRACE(line);
    write_trace({"", line});
    told.push_back("trace.jsonl:4: ");  // a blank line counts
    expect_refused(replay_with("--layers", "4"), told);
    expect_refused(Command({"trace", "describe", "trace.jsonl", "--json", "new.json"}), told);
  }
}

TEST_F(BadInputTest, TracesThatCannotBeRead) {
  for (const auto& [path, reason] : std::vector<std::pair<std::string, std::string>>{
           {"none.jsonl", "No such file"}, {"tmp", "Is a directory"}, {"trace.jsonl/x", "Not a"}}) {
    SCOPED_TRACE(path);
    expect_refused(replay_command(path, kSmallTiers), {path, reason});
    expect_refused(Command({"trace", "describe", path}), {path, reason});
  }
  expect_refused(replay_command("-", kSmallTiers).input("\n \n"), {"<stdin>", "no requests"});
  expect_refused(Command({"trace", "describe", "/dev/null"}), {"/dev/null", "no requests"});
}

TEST_F(BadInputTest, PoliciesAndCapacities) {
  const auto sim = [](const std::string& policies, const std::string& capacities) {
    return Command({"sim", "trace.jsonl", "--policy", policies, "--capacity", capacities});
  };
  EXPECT_EQ(run(sim("lru,min", "1,4294967294")).exit_code, 0);
  for (const char* policies : {"", "LRU", "lru,", ",lru", "lru,,min", "lru min", "lru,best"}) {
    SCOPED_TRACE(policies);
    expect_refused(sim(policies, "5"), {"--policy: '", "' is not one of lru, ", "kvbm sim --help"});
  }
  expect_refused(sim("lru,best", "5"), {"'best'", "lru, age-index, fifo, min, min-forced"});
  for (const char* capacities : {"", "0", "-1", "4294967295", "5,", ",5", "5,,6", "5 6", "5,1e3"}) {
    SCOPED_TRACE(capacities);
    expect_refused(sim("lru", capacities),
                   {"--capacity: '", "' is not a whole number from 1 to 4294967294"});
  }
  expect_refused(Command({"sim", "trace.jsonl", "--policy", "lru"}), {"--capacity", "required"});
  expect_refused(Command({"sim", "trace.jsonl", "--capacity", "5"}), {"--policy", "required"});
  expect_refused(Command({"sim", "--policy", "lru", "--capacity", "5"}), {"TRACE", "required"});
  expect_refused(Command({"sim", "none.jsonl", "--policy", "lru", "--capacity", "5"}),
                 {"none.jsonl", "No such file"});
}

// --- where results go ------------------------------------------------------------------------

TEST_F(BadInputTest, FilesThatCannotBeWritten) {
  for (const auto& [path, reason] :
       std::vector<std::pair<std::string, std::string>>{{"none/new", "No such file"},
                                                        {"tmp", "Is a directory"},
                                                        {"trace.jsonl/x", "Not a directory"},
                                                        {"/dev/full", "No space"}}) {
    SCOPED_TRACE(path);
    expect_refused(replay_with("--json", path), {path, reason});
    expect_refused(Command({"trace", "describe", "trace.jsonl", "--json", path}), {path, reason});
    expect_refused(Command({"trace", "generate", "--requests", "5", "-o", path}), {path, reason});
  }
}

TEST_F(BadInputTest, ResultsThatWouldReplaceTheTraceOrEachOther) {
  std::filesystem::create_symlink("trace.jsonl", folder_ / "link");
  before_ = contents(folder_.path());
  for (const std::string path : {"trace.jsonl", "./trace.jsonl", "link"}) {
    SCOPED_TRACE(path);
    const std::string json = "--json would replace the trace " + path;
    expect_refused(replay_with("--json", path), {json});
    expect_refused(replay_with("--report", path), {"--report would replace the trace " + path});
    expect_refused(Command({"trace", "describe", "trace.jsonl", "--json", path}), {json});
    expect_refused(Command({"bench", "pool", "--trace", "trace.jsonl", "--json", path}), {json});
    expect_refused(
        Command({"sim", "trace.jsonl", "--policy", "lru", "--capacity", "9", "--report", path}),
        {"--report would replace the trace " + path});
    expect_refused(Command({"plan", "trace.jsonl", "--block-bytes", "1000000", "--prefill-rate",
                            "1", "--host-gb", "1", "--disk-gb", "1", "--json", path}),
                   {json});
  }
  expect_refused(Command({"sim", "trace.jsonl", "--policy", "lru", "--capacity", "9", "--json",
                          "new", "--report", "./tmp/../new"}),
                 {"--json and --report both name ./tmp/../new"});
  expect_refused(Command::shell("$KVBM trace describe - --json trace.jsonl < trace.jsonl"),
                 {"--json would replace the trace trace.jsonl"});
}

TEST_F(BadInputTest, FullStandardOutput) {
  const std::vector<Command> commands = {Command({"trace", "generate", "--requests", "5"}),
                                         Command({"trace", "describe", "trace.jsonl"}),
                                         Command({"trace", "describe", "trace.jsonl", "--json"}),
                                         replay_with("--layers", "4"),
                                         replay_with("--json", "-"),
                                         Command({"--help"}),
                                         Command({"replay", "--help"}),
                                         Command({"--help-all"})};
  for (Command command : commands) {
    expect_refused(command.output_to("/dev/full"), {"No space left"});
  }
}

TEST_F(BadInputTest, DiskDirectoriesThatCannotBeUsed) {
  expect_refused(replay_with("--disk-dir", "none/none"), {"none/none", "No such file"});
  expect_refused(replay_with("--disk-dir", "trace.jsonl"), {"trace.jsonl/", "Not a directory"});
  expect_refused(replay_with("--disk-dir", ""), {"--disk-dir", "empty"});
  if (::geteuid() != 0) {  // root may write everywhere
    std::filesystem::permissions(folder_.path() / "tmp", std::filesystem::perms(0555));
    expect_refused(replay_with("--disk-dir", "tmp"), {"tmp/", "Permission denied"});
  }
  expect_refusal(replay_with("--layers", "4")
                     .folder(folder_.path())
                     .environment("TMPDIR", folder_ / "none")
                     .run(),
                 {"/none", "No such file"});
}

TEST_F(BadInputTest, ADiskDirectoryServesOneReplayAtATime) {
  const TemporaryFolder disk;
  const std::string file = disk / "kvbm-blocks";
  const std::vector<std::string> kept = {"--disk-dir", disk.path()};
  write_file(disk / "long.jsonl", generate({"--requests", "1000"}));
  Running first = replay_command(disk / "long.jsonl", kSmallTiers, kept).start();
  // The file has its size only after it was locked; stopped, its owner cannot end too early.
  ASSERT_TRUE(first.reaches([&] {
    std::error_code none;
    const auto size = std::filesystem::file_size(file, none);
    return !none && size > 0;
  }));
  first.send(SIGSTOP);

  expect_refused(replay_command("trace.jsonl", kSmallTiers, kept), {file, "in use"});

  first.send(SIGCONT);
  EXPECT_EQ(first.wait().exit_code, 0);
}

// --- memory ----------------------------------------------------------------------------------

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kHasShadowMemory = true;  // terabytes of addresses, whatever the program does
#else
constexpr bool kHasShadowMemory = false;
#endif

constexpr rlim_t kMiB = rlim_t{1} << 20;

// 2^32 blocks of 128 MiB are more than an address space.
TEST_F(BadInputTest, MoreMemoryThanThereCanBe) {
  for (const char* option : {"--device-blocks", "--host-blocks", "--disk-blocks"}) {
    SCOPED_TRACE(option);
    std::vector<std::string> arguments = {"replay", "trace.jsonl", "--block-bytes", "134217728"};
    for (const char* each : {"--device-blocks", "--host-blocks", "--disk-blocks"}) {
      arguments.insert(arguments.end(), {each, each == option ? "4294967294" : "1"});
    }
    expect_refused(Command(arguments), {"requested"});
  }
}

TEST_F(BadInputTest, MoreMemoryThanIsAllowed) {
  if (kHasShadowMemory) GTEST_SKIP() << "AddressSanitizer needs the addresses";
  for (const char* option : {"--device-blocks", "--host-blocks"}) {
    SCOPED_TRACE(option);
    expect_refused(replay_with(option, "100000").limit(RLIMIT_AS, 512 * kMiB),
                   {"requested", "Cannot allocate memory"});
  }
  expect_refused(
      Command({"trace", "generate", "--requests", "1000000"}).limit(RLIMIT_AS, 64 * kMiB),
      {"not enough memory"});
}

// A gigabyte of addresses, and half of one for each thread.
TEST_F(BadInputTest, MoreThreadsThanAreAllowed) {
  if (kHasShadowMemory) GTEST_SKIP() << "AddressSanitizer needs the addresses";
  expect_refused(
      replay_with("--layers", "4").limit(RLIMIT_STACK, 512 * kMiB).limit(RLIMIT_AS, 1200 * kMiB),
      {"Resource temporarily unavailable"});
}

// Each mapping alone would fit; all together are twice the memory. Nothing would touch so much in a
// short run, and a long one would be killed.
TEST_F(BadInputTest, MoreMemoryThanTheMachineHas) {
  const auto memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * 4096;
  constexpr std::uint64_t kBlock = 128 * kMiB;
  expect_refused(
      Command({"replay", "trace.jsonl", "--layers", "8", "--block-bytes", std::to_string(kBlock),
               "--device-blocks", std::to_string(2 * memory / kBlock), "--host-blocks", "1",
               "--disk-blocks", "1", "--verify", "off"}),
      {"requested", "available"});
}

}  // namespace
}  // namespace kvbm::e2e
