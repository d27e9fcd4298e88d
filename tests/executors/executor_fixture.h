// What every suite over all executors needs.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <future>
#include <memory>
#include <random>

#include "executors/backings.h"
#include "executors/places.h"

namespace kvbm {

// KVBM_SEED repeats a run.
inline std::uint64_t seed_of_run() {
  const char* text = std::getenv("KVBM_SEED");
  static const std::uint64_t seed =
      text ? std::strtoull(text, nullptr, 10) : std::random_device()();
  return seed;
}

// One executor and the memory that it moves blocks between.
class ExecutorFixture : public testing::TestWithParam<ExecutorCase> {
 protected:
  void SetUp() override {
    std::string reason;
    made_ = GetParam().make(reason);
    if (!made_) GTEST_SKIP() << reason;
  }

  TransferResult run(TransferRequest request) {
    auto answer = std::make_shared<std::promise<TransferResult>>();
    made_->executor->submit(std::move(request), [answer](TransferResult result) {
      answer->set_value(std::move(result));
    });
    return answer->get_future().get();
  }

  Place place(const Content& content, Kind kind, Shape shape) {
    return Place(content, shape, made_->backing(kind), random_);
  }

  std::unique_ptr<MadeExecutor> made_;
  std::mt19937_64 random_{seed_of_run()};
};

}  // namespace kvbm
