// Runs transfers on a few threads with plain copies and blocking file I/O.
#pragma once

#include <deque>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "physical/transfer/transfer.h"

namespace kvbm {

// The queue is as long as its callers make it; the tier engine bounds what it submits. Onboarding
// transfers go before offloading ones.
class ThreadExecutor final : public TransferExecutor {
 public:
  // Errors: OperationFailed{threads, started} with errno if the system gives no more threads.
  static Result<std::unique_ptr<ThreadExecutor>> create(std::size_t threads);
  // Finishes what was submitted, then joins.
  ~ThreadExecutor() override;

  void submit(TransferRequest request, Done done) override;

 private:
  struct Job {
    TransferRequest request;
    Done done;
  };

  ThreadExecutor() = default;
  void work() KVBM_EXCLUDES(mutex_);
  Job take_job() KVBM_REQUIRES(mutex_);
  static TransferResult execute(const TransferRequest& request);

  Mutex mutex_;
  CondVar wake_;
  std::deque<Job> onboard_ KVBM_GUARDED_BY(mutex_);
  std::deque<Job> offload_ KVBM_GUARDED_BY(mutex_);
  bool stopping_ KVBM_GUARDED_BY(mutex_) = false;
  std::vector<std::jthread> threads_;
};

}  // namespace kvbm
