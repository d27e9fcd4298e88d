// Random histories of block stores agree with an oracle; and one that does not is found and told in
// few operations.
//
// KVBM_SEED repeats a run, KVBM_OPERATIONS makes it shorter or longer.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <random>

#include "block_store_history.h"
#include "shrink.h"

namespace kvbm::model {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kOperations = 100'000;
#else
constexpr std::uint64_t kOperations = 1'000'000;
#endif

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* given = std::getenv(variable);
  return given ? std::strtoull(given, nullptr, 10) : otherwise;
}

// Runs the history in a process of its own, so that a broken invariant, which aborts, is a failure
// like any other. Nothing: it agrees; else what it says about its first difference, after the
// operations if `spelling` is std::cerr.
std::optional<std::string> outcome(const HistoryOptions& options,
                                   const std::vector<Operation>& operations,
                                   std::ostream* spelling = nullptr) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return "no process";
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    const auto failure = run_history(options, operations, spelling);
    if (failure) std::fprintf(stderr, "%s\n", failure->c_str());
    _exit(failure ? 1 : 0);
  }
  close(ends[1]);
  std::string text;
  char buffer[1024];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return std::nullopt;
  return text.empty() ? "crashed" : text;
}

// The shortest failing part of the history that could be found.
std::vector<Operation> shortest(const HistoryOptions& options, std::vector<Operation> operations) {
  constexpr std::size_t kTries = 3000;
  return shrink(std::move(operations), kTries, [&](const std::vector<Operation>& part) {
    return outcome(options, part).has_value();
  });
}

testing::AssertionResult agrees(const HistoryOptions& options) {
  const std::vector<Operation> operations = draw_operations(options);
  if (!outcome(options, operations)) return testing::AssertionSuccess();
  const std::vector<Operation> part = shortest(options, operations);
  return testing::AssertionFailure()
         << "history " << options.seed << " on " << options.blocks << " blocks, "
         << to_string(options.policy) << "; shortened to " << part.size() << " operations:\n"
         << outcome(options, part, &std::cerr).value_or("now it agrees");
}

EvictionPolicy policy_of(std::size_t history) {
  constexpr auto kLru = EvictionPolicy::Lru;
  constexpr auto kFifo = EvictionPolicy::Fifo;
  constexpr EvictionPolicy kPolicies[] = {kLru, kFifo, kLru, kFifo,
                                          kLru, kLru,  kLru, EvictionPolicy::AgeIndex};
  return kPolicies[history % std::size(kPolicies)];
}

TEST(BlockStorePropertyTest, AgreesWithTheOracleOnRandomHistories) {
  const std::uint64_t seed = number_from("KVBM_SEED", std::random_device{}());
  const std::uint64_t operations = number_from("KVBM_OPERATIONS", kOperations);
  std::printf("KVBM_SEED=%" PRIu64 " KVBM_OPERATIONS=%" PRIu64 "\n", seed, operations);
  std::mt19937_64 random(seed);
  std::size_t history = 0;
  for (std::uint64_t done = 0; done < operations; ++history) {
    HistoryOptions options{.seed = random()};
    options.policy = policy_of(history);
    options.is_calm = random() % 3 == 0;
    if (history % 100 == 99) {
      options.stores = 1;
      options.blocks = std::size_t{512} << random() % 4;
      options.conversations = 64;
      options.length = 100;
      options.check_every = 1000;
    } else {
      options.stores = random() % 4 == 0 ? 2 : 1;
      options.blocks = 1 + random() % (random() % 8 == 0 ? 64 : 16);
    }
    ASSERT_TRUE(agrees(options));
    done += options.operations;
  }
}

TEST(BlockStorePropertyTest, FindsAPlantedMistakeAndShortensIt) {
  std::uint64_t seed = 1;
  HistoryOptions options{.seed = seed, .mistake = Mistake::EvictsTheYoungest};
  const std::vector<Operation> operations = draw_operations(options);
  ASSERT_TRUE(outcome(options, operations));
  const std::vector<Operation> part = shortest(options, operations);
  const auto told = outcome(options, part, &std::cerr);
  ASSERT_TRUE(told);
  EXPECT_LT(part.size(), 40u) << *told;
  EXPECT_NE(told->find("allocate"), std::string::npos) << *told;
}

}  // namespace
}  // namespace kvbm::model
