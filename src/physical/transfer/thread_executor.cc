#include "physical/transfer/thread_executor.h"

#include <chrono>
#include <system_error>
#include <utility>

namespace kvbm {
namespace {

// Moves blocks until all have ended. Or, of an offload, until somebody waits for another transfer:
// false then, and what has ended is kept in the job.
bool advance(TransferQueue::Job& job, const TransferQueue& queue,
             Result<TransferToken> (*run)(const TransferRequest&, const BlockCopy&)) {
  const TransferRequest& request = job.request;
  auto& blocks = job.result.blocks;
  blocks.reserve(request.blocks.size());
  const bool makes_way = request.priority == TransferPriority::Offload;
  const auto begin = std::chrono::steady_clock::now();
  while (blocks.size() < request.blocks.size() && !(makes_way && queue.onboard_waits())) {
    if (request.cancelled && request.cancelled->load(std::memory_order_relaxed)) {
      blocks.push_back(Error{ErrorCode::Cancelled, 0, 0, 0, {}});
    } else {
      blocks.push_back(run(request, request.blocks[blocks.size()]));
    }
  }
  job.result.busy += std::chrono::steady_clock::now() - begin;
  return blocks.size() == request.blocks.size();
}

}  // namespace

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
  queue_.stop();
  threads_.clear();  // joins
}

void ThreadExecutor::submit(TransferRequest request, Done done) {
  queue_.push(std::move(request), std::move(done));
}

void ThreadExecutor::work() {
  while (auto job = queue_.wait_and_pop()) {
    if (advance(*job, queue_, &TransferExecutor::run)) {
      job->done(std::move(job->result));
      // Whoever waited for it may have been woken onto this core, and should not wait for the next
      // offload as well.
      const bool was_onboard = job->request.priority == TransferPriority::Onboard;
      if (was_onboard && !queue_.onboard_waits()) std::this_thread::yield();
    } else {
      queue_.put_back(std::move(*job));
    }
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
    ++open_;
  }
  queue_.push(std::move(request), std::move(done));
  post_([this] { run_next(); });
}

// One task was posted per job. Who puts one back takes another, so there is always one for a task
// that begins.
void SharedExecutor::run_next() {
  TransferQueue::Job job = queue_.pop();
  while (!advance(job, queue_, &TransferExecutor::run)) {
    queue_.put_back(std::move(job));
    job = queue_.pop();
  }
  job.done(std::move(job.result));
  job = {};  // what it holds goes before the destructor may
  MutexLock lock(mutex_);
  if (--open_ == 0) finished_.notify_all();
}

}  // namespace kvbm
