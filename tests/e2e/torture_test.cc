// `kvbm torture` from its command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "tests/e2e/program.h"

namespace kvbm::e2e {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST(TortureTest, OneSeedIsOneResultOnAnyNumberOfThreads) {
  const auto report = [](const char* threads) {
    const auto finished =
        Command({"torture", "--schedules", "40", "--seed", "7", "--threads", threads, "--json"})
            .run();
    EXPECT_EQ(finished.exit_code, 0);
    EXPECT_EQ(finished.err, "");
    return json::parse(finished.out);
  };
  const json one = report("1");
  EXPECT_EQ(one, report("3"));
  EXPECT_EQ(one["schedules"], 40);
  EXPECT_GE(one["requests"], 40 * 50);
  EXPECT_TRUE(one["findings"].empty());
  EXPECT_GT(one["blocks_compared"], 1000);
}

TEST(TortureTest, ANewSeedIsToldBeforeAnythingElse) {
  const auto finished = Command({"torture", "--schedules", "1"}).run();
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.err, HasSubstr("kvbm: first seed "));
}

TEST(TortureTest, WhatWasNotReachedIsAFailureThatIsTold) {
  const std::vector<std::string> few = {"torture", "--schedules",  "1",   "--seed",
                                        "1",       "--min-faults", "1000"};
  const auto told = Command(few).run();
  EXPECT_EQ(told.exit_code, 1);
  EXPECT_THAT(told.out, HasSubstr("not reached: fault error on device_to_host: "));
  auto with_json = few;
  with_json.emplace_back("--json");
  const auto as_json = Command(with_json).run();
  EXPECT_EQ(as_json.exit_code, 1);
  EXPECT_THAT(json::parse(as_json.out)["not_reached"][0], HasSubstr("fault error on"));
}

TEST(TortureTest, ATraceTellsWhatHappens) {
  const auto finished = Command({"torture", "--seed", "1", "--trace"}).run();
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.out, HasSubstr("seed 1: "));
  EXPECT_THAT(finished.out, HasSubstr("the end"));
  EXPECT_EQ(Command({"torture", "--trace"}).run().exit_code, 2);
  EXPECT_EQ(Command({"torture", "--seed", "1", "--trace", "--json"}).run().exit_code, 2);
}

TEST(TortureTest, InterruptedItTellsWhatItHasDone) {
  const auto finished =
      Command::shell("timeout -s INT 2 $KVBM torture --schedules 100000000 --seed 1").run();
  EXPECT_THAT(finished.out, HasSubstr("first seed 1"));
  EXPECT_THAT(finished.out, HasSubstr(", 0 findings"));
  EXPECT_THAT(finished.err, HasSubstr("of 100000000 schedules"));
}

}  // namespace
}  // namespace kvbm::e2e
