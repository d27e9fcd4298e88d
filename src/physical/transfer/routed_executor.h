// Sends each transfer to the executor that is best at it.
#pragma once

#include <memory>

#include "physical/transfer/transfer.h"

namespace kvbm {

// Transfers with a file on one side go to `files`, all others to `memory`. Its destructor is
// theirs: nobody may submit any more by then, from `done` either.
class RoutedExecutor final : public TransferExecutor {
 public:
  RoutedExecutor(std::unique_ptr<TransferExecutor> memory, std::unique_ptr<TransferExecutor> files)
      : memory_(std::move(memory)), files_(std::move(files)) {}

  void submit(TransferRequest request, Done done) override {
    const CopyPlan& plan = *request.plan;
    const bool file =
        plan.source_side() == CopyPlan::Side::File || plan.target_side() == CopyPlan::Side::File;
    (file ? *files_ : *memory_).submit(std::move(request), std::move(done));
  }

 private:
  std::unique_ptr<TransferExecutor> memory_;
  std::unique_ptr<TransferExecutor> files_;
};

}  // namespace kvbm
