// Runs transfers on a few threads with plain copies and blocking file I/O.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "physical/transfer/transfer_queue.h"

namespace kvbm {

// The queue is as long as its callers make it; the tier engine bounds what it submits. Onboarding
// transfers go before offloading ones, which make way between two of their blocks.
class ThreadExecutor final : public TransferExecutor {
 public:
  // Errors: OperationFailed{threads, started} with errno if the system gives no more threads.
  static Result<std::unique_ptr<ThreadExecutor>> create(std::size_t threads);
  // Finishes what was submitted, then joins.
  ~ThreadExecutor() override;

  void submit(TransferRequest request, Done done) override;

 private:
  ThreadExecutor() = default;
  void work();

  TransferQueue queue_;
  std::vector<std::jthread> threads_;
};

// Runs transfers as tasks of somebody else's threads, in the same order.
class SharedExecutor final : public TransferExecutor {
 public:
  // `post` runs each task once, on some thread, never inside the call.
  explicit SharedExecutor(std::function<void(std::function<void()>)> post);
  // Waits for what was submitted.
  ~SharedExecutor() override;

  void submit(TransferRequest request, Done done) override;

 private:
  void run_next() KVBM_EXCLUDES(mutex_);

  const std::function<void(std::function<void()>)> post_;
  TransferQueue queue_;
  Mutex mutex_;
  CondVar finished_;
  std::size_t open_ KVBM_GUARDED_BY(mutex_) = 0;  // tasks that were posted and have not ended
};

}  // namespace kvbm
