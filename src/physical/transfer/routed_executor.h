// Sends each transfer to the executor that is best at it.
#pragma once

#include <memory>

#include "physical/transfer/transfer.h"

namespace kvbm {

// Transfers of other workers' blocks go to `peers`, those with a file on one side to `files`, all
// others to `others`. Its destructor is theirs: nobody may submit any more by then, from `done`
// either.
class RoutedExecutor final : public TransferExecutor {
 public:
  // `files` may be null: then those go to `others`; and `peers`: then there are none.
  RoutedExecutor(std::unique_ptr<TransferExecutor> others, std::unique_ptr<TransferExecutor> files,
                 std::unique_ptr<TransferExecutor> peers = nullptr)
      : others_(std::move(others)), files_(std::move(files)), peers_(std::move(peers)) {}

  void submit(TransferRequest request, Done done) override {
    if (request.remote) return peers_->submit(std::move(request), std::move(done));
    const CopyPlan& plan = *request.plan;
    const bool file =
        plan.source_side() == CopyPlan::Side::File || plan.target_side() == CopyPlan::Side::File;
    (file && files_ ? *files_ : *others_).submit(std::move(request), std::move(done));
  }

 private:
  std::unique_ptr<TransferExecutor> others_;
  std::unique_ptr<TransferExecutor> files_;
  std::unique_ptr<TransferExecutor> peers_;
};

}  // namespace kvbm
