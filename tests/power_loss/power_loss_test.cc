// A store that loses its power at any instant, whatever of its unsynced writes reaches the disk,
// has all that it acknowledged and nothing that is wrong.
//
// KVBM_SEED repeats a run, KVBM_POWER_LOSSES makes it shorter or longer.
#include <gtest/gtest.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "history.h"

namespace kvbm::power_loss {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kLosses = 1000;
#else
constexpr std::uint64_t kLosses = 5000;
#endif
constexpr std::uint64_t kLossesOfAHistory = 100;

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* given = std::getenv(variable);
  return given ? std::strtoull(given, nullptr, 10) : otherwise;
}

TEST(PowerLossTest, WhatWasAcknowledgedIsThereAndNothingIsWrong) {
  const std::uint64_t losses = number_from("KVBM_POWER_LOSSES", kLosses);
  const std::uint64_t first = number_from("KVBM_SEED", std::random_device()());
  std::uint64_t offered = 0;
  std::uint64_t spoiled = 0;
  for (std::uint64_t i = 0; i * kLossesOfAHistory < losses; ++i) {
    History history(first + i);
    const bool right = history.run(std::min(kLossesOfAHistory, losses - i * kLossesOfAHistory));
    ASSERT_TRUE(right) << history.failure() << "\nKVBM_SEED=" << first + i;
    offered += history.offered();
    spoiled += history.spoiled();
  }
  std::fprintf(stderr,
               "KVBM_SEED=%" PRIu64 ": %" PRIu64 " losses of power, %" PRIu64
               " blocks offered after them, %" PRIu64 " found spoiled\n",
               first, losses, offered, spoiled);
  EXPECT_GT(offered, losses) << "the histories are too empty to show anything";
  EXPECT_GT(spoiled, 0u) << "the losses of power are too mild to show anything";
}

}  // namespace
}  // namespace kvbm::power_loss
