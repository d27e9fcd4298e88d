#include "apps/kvbm/runtime_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "manager/options.h"

namespace kvbm::app {
namespace {

using testing::HasSubstr;

constexpr const char* kVariable = "KVBM_RUNTIME_TRANSFER_THREADS";

class RuntimeOptionsTest : public testing::Test {
 protected:
  void SetUp() override { ::unsetenv(kVariable); }
  void TearDown() override {
    ::unsetenv(kVariable);
    ::unlink(path_.c_str());
  }

  std::string file(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }

  // What a command that was given these arguments would use.
  Result<KvManagerRuntimeConfig> resolve(std::vector<std::string> arguments) {
    CLI::App command;
    RuntimeOptions options;
    options.add_to(command);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
    command.parse(arguments);
    return options.resolve();
  }
  std::string error(std::vector<std::string> arguments) {
    const auto resolved = resolve(std::move(arguments));
    return resolved ? "accepted" : resolved.error().message;
  }

  const std::string path_ = testing::TempDir() + "/kvbm-config-" + std::to_string(::getpid());
};

TEST_F(RuntimeOptionsTest, WithoutAnythingTheDefaultsHold) {
  const auto config = resolve({}).value();
  EXPECT_EQ(config.transfer_threads, KvManagerRuntimeConfig().transfer_threads);
}

TEST_F(RuntimeOptionsTest, FlagsOverrideTheEnvironmentAndThatTheFile) {
  const std::string config =
      file("# threads\n[runtime]\ntransfer_threads = 2\noffload_queue_blocks = 77\n");
  EXPECT_EQ(resolve({"--config", config}).value().transfer_threads, 2u);
  EXPECT_EQ(resolve({"--config", config}).value().offload_queue_blocks, 77u);
  ::setenv(kVariable, "3", 1);
  EXPECT_EQ(resolve({"--config", config}).value().transfer_threads, 3u);
  EXPECT_EQ(resolve({"--config", config}).value().offload_queue_blocks, 77u);
  EXPECT_EQ(resolve({"--config", config, "--transfer-threads", "5"}).value().transfer_threads, 5u);
}

TEST_F(RuntimeOptionsTest, ASwitchNeedsNoValue) {
  EXPECT_FALSE(resolve({}).value().deterministic);
  EXPECT_TRUE(resolve({"--deterministic"}).value().deterministic);
  EXPECT_FALSE(resolve({"--deterministic=0"}).value().deterministic);
  EXPECT_TRUE(resolve({"--deterministic", "--transfer-threads", "5"}).value().deterministic);
  EXPECT_THAT(error({"--deterministic=7"}),
              HasSubstr("--deterministic: '7' is not a whole number from 0 to 1"));
}

TEST_F(RuntimeOptionsTest, AFileMaySayTrue) {
  EXPECT_TRUE(
      resolve({"--config", file("[runtime]\ndeterministic = true\n")}).value().deterministic);
  EXPECT_FALSE(
      resolve({"--config", file("[runtime]\ndeterministic = false\n")}).value().deterministic);
  EXPECT_THAT(error({"--config", file("[runtime]\ntransfer_threads = true\n")}),
              HasSubstr("'true' is not a whole number from 1 to 64"));
}

TEST_F(RuntimeOptionsTest, WrongValuesNameWhereTheyCameFromAndWhatIsAllowed) {
  EXPECT_THAT(error({"--transfer-threads", "65"}),
              HasSubstr("--transfer-threads: '65' is not a whole number from 1 to 64"));
  EXPECT_THAT(error({"--transfer-threads", "0"}), HasSubstr("from 1 to 64"));
  ::setenv(kVariable, "many", 1);
  EXPECT_THAT(error({}), HasSubstr(std::string(kVariable) + ": 'many'"));
  ::unsetenv(kVariable);
  EXPECT_THAT(error({"--config", file("[runtime]\n\ntransfer_threads = 100\n")}),
              HasSubstr(path_ + ":3: runtime.transfer_threads: '100'"));
  EXPECT_THAT(error({"--config", file("[runtime]\ntransfer_threads = \"4\"\n")}),
              HasSubstr("is not a whole number"));
}

TEST_F(RuntimeOptionsTest, FilesWithUnknownKeysOrNoTomlAreRefused) {
  EXPECT_THAT(error({"--config", file("[runtime]\nthreads = 4\n")}),
              HasSubstr(path_ + ":2: 'runtime.threads' is no option; the options are"));
  EXPECT_THAT(error({"--config", file("threads = 4\n")}), HasSubstr("'threads' is no option"));
  EXPECT_THAT(error({"--config", file("[runtime\n")}), HasSubstr(path_ + ":"));
  EXPECT_EQ(resolve({"--config", "/nowhere/kvbm.toml"}).error().code, ErrorCode::OperationFailed);
}

// A table that says one thing and a struct that does another would mislead everybody.
TEST(OptionTableTest, ItsDefaultsAreTheStructs) {
  const KvBlockManagerConfig config;
  for (const detail::Option& option : detail::options()) {
    EXPECT_EQ(option.read(config), option.default_value) << option.name;
    EXPECT_GE(option.default_value, option.min) << option.name;
    EXPECT_LE(option.default_value, option.max) << option.name;
    KvBlockManagerConfig changed;
    option.write(changed, option.max);
    EXPECT_EQ(option.read(changed), option.max) << option.name;
    EXPECT_EQ(detail::find_option(option.name), &option);
  }
}

}  // namespace
}  // namespace kvbm::app
