// The executors that the suite runs over, and the memory that it gives them.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "executors/places.h"
#include "physical/transfer/transfer.h"

namespace kvbm {

struct MadeExecutor {
  virtual ~MadeExecutor() = default;
  // Requires: a kind among the executor's pairs.
  virtual Backing backing(Kind kind) = 0;
  std::unique_ptr<TransferExecutor> executor;
};

struct ExecutorCase {
  const char* name;
  std::vector<std::pair<Kind, Kind>> pairs;  // what it copies from and to
  // Null, with the reason, where this machine has not what it needs.
  std::function<std::unique_ptr<MadeExecutor>(std::string& reason)> make;
};

inline void PrintTo(const ExecutorCase& which, std::ostream* out) { *out << which.name; }

std::vector<ExecutorCase> executor_cases();

}  // namespace kvbm
