#include "physical/transfer/thread_executor.h"

#include <system_error>

namespace kvbm {

Result<std::unique_ptr<ThreadExecutor>> ThreadExecutor::create(std::size_t threads) {
  std::unique_ptr<ThreadExecutor> executor(new ThreadExecutor);
  for (std::size_t i = 0; i < threads; ++i) {
    try {
      executor->threads_.emplace_back([raw = executor.get()] { raw->work(); });
    } catch (const std::system_error& error) {
      return Error{ErrorCode::OperationFailed, error.code().value(), threads, i,
                   "the system gives no more threads"};
    }
  }
  return executor;
}

ThreadExecutor::~ThreadExecutor() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  threads_.clear();  // joins
}

void ThreadExecutor::submit(TransferRequest request, Done done) {
  {
    MutexLock lock(mutex_);
    auto& queue = request.priority == TransferPriority::Onboard ? onboard_ : offload_;
    queue.push_back({std::move(request), std::move(done)});
  }
  wake_.notify_one();
}

ThreadExecutor::Job ThreadExecutor::take_job() {
  auto& queue = onboard_.empty() ? offload_ : onboard_;
  Job job = std::move(queue.front());
  queue.pop_front();
  return job;
}

void ThreadExecutor::work() {
  for (;;) {
    Job job;
    {
      MutexLock lock(mutex_);
      while (onboard_.empty() && offload_.empty()) {
        if (stopping_) return;
        wake_.wait(mutex_);
      }
      job = take_job();
    }
    job.done(execute(job.request));
  }
}

TransferResult ThreadExecutor::execute(const TransferRequest& request) {
  TransferResult result;
  result.blocks.reserve(request.blocks.size());
  const auto begin = std::chrono::steady_clock::now();
  for (const BlockCopy& copy : request.blocks) {
    if (request.cancelled && request.cancelled->load(std::memory_order_relaxed)) {
      result.blocks.push_back(Error{ErrorCode::Cancelled, 0, 0, 0, {}});
    } else {
      result.blocks.push_back(run(request, copy));
    }
  }
  result.busy = std::chrono::steady_clock::now() - begin;
  return result;
}

}  // namespace kvbm
