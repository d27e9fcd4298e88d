#include "physical/transfer/transfer_queue.h"

#include <utility>

#include "base/relax.h"

namespace kvbm {

void TransferQueue::count() noexcept {
  onboards_waiting_.store(onboards_.size(), std::memory_order_relaxed);
  waiting_.store(onboards_.size() + offloads_.size(), std::memory_order_relaxed);
}

// A thread that looks for a job finds this one before it sleeps: it takes the mutex in between.
void TransferQueue::push(TransferRequest request, TransferExecutor::Done done) {
  bool wakes = false;
  {
    MutexLock lock(mutex_);
    auto& queue = of(request.priority);
    queue.push_back({std::move(request), std::move(done)});
    count();
    const std::size_t found = is_looked_for_ ? 1 : 0;
    wakes = asleep_ > 0 && onboards_.size() + offloads_.size() > found;
  }
  if (wakes) wake_.notify_one();
}

void TransferQueue::put_back(Job job) {
  MutexLock lock(mutex_);
  auto& queue = of(job.request.priority);
  queue.push_front(std::move(job));
  count();
}

TransferQueue::Job TransferQueue::take() {
  auto& queue = onboards_.empty() ? offloads_ : onboards_;
  Job job = std::move(queue.front());
  queue.pop_front();
  count();
  return job;
}

TransferQueue::Job TransferQueue::pop() {
  MutexLock lock(mutex_);
  return take();
}

std::optional<TransferQueue::Job> TransferQueue::wait_and_pop() {
  const bool looks = waiting_.load(std::memory_order_relaxed) == 0 && begin_looking();
  if (looks) {
    relax_until([this] { return waiting_.load(std::memory_order_relaxed) > 0; },
                std::chrono::steady_clock::now() + kLookFor);
  }
  MutexLock lock(mutex_);
  if (looks) is_looked_for_ = false;
  while (onboards_.empty() && offloads_.empty()) {
    if (stopping_) return std::nullopt;
    ++asleep_;
    wake_.wait(mutex_);
    --asleep_;
  }
  return take();
}

void TransferQueue::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
}

bool TransferQueue::begin_looking() {
  if (!has_other_cores()) return false;
  MutexLock lock(mutex_);
  return !stopping_ && !std::exchange(is_looked_for_, true);
}

}  // namespace kvbm
