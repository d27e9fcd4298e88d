// A process that is killed at any instant leaves a disk tier that has all that it told of and
// nothing that is wrong.
//
// KVBM_SEED repeats the kills, as far as threads and clocks do; KVBM_KILLS is how many there are.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "life.h"
#include "store/check.h"
#include "store/superblock.h"

namespace kvbm::kill9 {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kKills = 50;
#else
constexpr std::uint64_t kKills = 200;
#endif

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* given = std::getenv(variable);
  return given ? std::strtoull(given, nullptr, 10) : otherwise;
}

// Whether the process has written to the pipe or ended, before so many microseconds have passed.
bool hears(int pipe, std::int64_t microseconds) {
  pollfd waits{.fd = pipe, .events = POLLIN, .revents = 0};
  const timespec limit{.tv_sec = microseconds / 1'000'000,
                       .tv_nsec = microseconds % 1'000'000 * 1000};
  return ::ppoll(&waits, 1, &limit, nullptr) > 0;
}

class Kill9Test : public testing::Test {
 protected:
  Kill9Test() : random_(seed_) { renew(); }
  ~Kill9Test() override { std::filesystem::remove_all(directory_); }

  std::int64_t between(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }

  // A new directory, of which nothing is known.
  void renew() {
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
    std::string name = testing::TempDir() + "kvbm-kill9-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    told_ = {};
  }

  // A process that lives until it is killed: some time after it is at work, or in any case.
  void kill_one(bool at_work, std::int64_t microseconds) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    std::fflush(nullptr);
    const std::uint64_t seed = random_();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(ends[0]);
      live(directory_ + "/store", told_, log_, ends[1], seed);
    }
    ::close(ends[1]);
    constexpr std::int64_t kLong = 60'000'000;
    if (at_work) {
      char byte = 0;
      ASSERT_TRUE(hears(ends[0], kLong)) << "the process hangs";
      reached_work_ += ::read(ends[0], &byte, 1) == 1 ? 1 : 0;
    }
    hears(ends[0], microseconds);
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ::close(ends[0]);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << log_.failure() << " (status " << status << ")";
    told_.take_in(log_);
  }

  // Whatever a killed process leaves is no damage, but for a superblock that it was writing.
  void check_files() {
    const auto files = store::open_store_files_to_read(directory_ + "/store");
    if (!files || files->manifest->size() < store::kManifestBytes) return;
    const auto report = store::check(*files, {.deep = true});
    ASSERT_TRUE(report.has_value()) << report.error().to_string();
    EXPECT_EQ(report->damaged_records.size(), 0u);
    EXPECT_EQ(report->damaged_payloads.size(), 0u);
    EXPECT_EQ(report->repeated_puts.size(), 0u);
    blocks_checked_ += report->valid;
  }

  const std::uint64_t seed_ = number_from("KVBM_SEED", std::random_device()());
  std::mt19937_64 random_;
  Log& log_ = Log::create();
  std::string directory_;
  Told told_;
  std::uint64_t reached_work_ = 0;
  std::uint64_t blocks_checked_ = 0;
  std::uint64_t blocks_due_ = 0;
};

TEST_F(Kill9Test, WhatWasToldIsThereAndNothingIsWrong) {
  const std::uint64_t kills = number_from("KVBM_KILLS", kKills);
  SCOPED_TRACE(testing::Message() << "KVBM_SEED=" << seed_);
  for (std::uint64_t i = 0; i < kills && !HasFailure(); ++i) {
    if (i % 20 == 0) renew();
    // One in eight while it begins.
    const bool at_work = between(0, 7) != 0;
    kill_one(at_work, at_work ? between(5'000, 150'000) : between(0, 30'000));
    if (HasFatalFailure()) return;
    check_files();
    blocks_due_ += told_.due().size();
  }
  std::fprintf(stderr,
               "KVBM_SEED=%" PRIu64 ": %" PRIu64 " kills, %" PRIu64 " at work, %" PRIu64
               " blocks due after them, %" PRIu64 " found\n",
               seed_, kills, reached_work_, blocks_due_, blocks_checked_);
  EXPECT_GT(blocks_due_, kills) << "the lives are too short to show anything";
}

}  // namespace
}  // namespace kvbm::kill9
