#include "physical/transfer/thread_executor.h"

#include <functional>
#include <system_error>
#include <utility>

namespace kvbm {
namespace {

TransferResult execute(const TransferRequest& request,
                       Result<TransferToken> (*run)(const TransferRequest&, const BlockCopy&)) {
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

}  // namespace

void TransferQueue::push(TransferRequest request, TransferExecutor::Done done) {
  auto& queue = request.priority == TransferPriority::Onboard ? onboard_ : offload_;
  queue.push_back({std::move(request), std::move(done)});
}

TransferQueue::Job TransferQueue::pop() {
  auto& queue = onboard_.empty() ? offload_ : onboard_;
  Job job = std::move(queue.front());
  queue.pop_front();
  return job;
}

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
    queue_.push(std::move(request), std::move(done));
  }
  wake_.notify_one();
}

void ThreadExecutor::work() {
  for (;;) {
    TransferQueue::Job job;
    {
      MutexLock lock(mutex_);
      while (queue_.empty()) {
        if (stopping_) return;
        wake_.wait(mutex_);
      }
      job = queue_.pop();
    }
    job.done(execute(job.request, &TransferExecutor::run));
  }
}

SharedExecutor::SharedExecutor(std::function<void(std::function<void()>)> post)
    : post_(std::move(post)) {}

SharedExecutor::~SharedExecutor() {
  MutexLock lock(mutex_);
  while (open_ > 0) finished_.wait(mutex_);
}

void SharedExecutor::submit(TransferRequest request, Done done) {
  {
    MutexLock lock(mutex_);
    queue_.push(std::move(request), std::move(done));
    ++open_;
  }
  post_([this] { run_next(); });
}

void SharedExecutor::run_next() {
  TransferQueue::Job job;
  {
    MutexLock lock(mutex_);
    job = queue_.pop();  // one task was posted per job
  }
  job.done(execute(job.request, &TransferExecutor::run));
  job = {};  // what it holds goes before the destructor may
  MutexLock lock(mutex_);
  if (--open_ == 0) finished_.notify_all();
}

}  // namespace kvbm
