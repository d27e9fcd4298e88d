// Transfers that wait for a thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <optional>

#include "base/mutex.h"
#include "physical/transfer/transfer.h"

namespace kvbm {

// Onboarding transfers are taken first. Thread-safe.
class TransferQueue {
 public:
  struct Job {
    TransferRequest request;
    TransferExecutor::Done done;
    TransferResult result = {};  // of the blocks that have ended
  };

  void push(TransferRequest request, TransferExecutor::Done done);
  // An unfinished job, which will be the next one of its priority. Requires: the caller takes a job
  // next.
  void put_back(Job job);

  // Requires: there is one.
  Job pop();
  // Waits for one. None, once the queue is empty after stop().
  std::optional<Job> wait_and_pop();
  void stop();

  // One load.
  bool onboard_waits() const noexcept {
    return onboards_waiting_.load(std::memory_order_relaxed) > 0;
  }

 private:
  // So long a thread without work looks for some before it sleeps, which is about what it costs to
  // wake it. One at a time does, so that an idle queue costs nothing, and a busy one little.
  static constexpr std::chrono::microseconds kLookFor{50};

  std::deque<Job>& of(TransferPriority priority) KVBM_REQUIRES(mutex_) {
    return priority == TransferPriority::Onboard ? onboards_ : offloads_;
  }
  void count() noexcept KVBM_REQUIRES(mutex_);
  Job take() KVBM_REQUIRES(mutex_);
  bool begin_looking() KVBM_EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar wake_;
  std::deque<Job> onboards_ KVBM_GUARDED_BY(mutex_);
  std::deque<Job> offloads_ KVBM_GUARDED_BY(mutex_);
  bool stopping_ KVBM_GUARDED_BY(mutex_) = false;
  bool is_looked_for_ KVBM_GUARDED_BY(mutex_) = false;  // by a thread that does not sleep
  std::size_t asleep_ KVBM_GUARDED_BY(mutex_) = 0;      // threads
  // Changed under the mutex.
  std::atomic<std::size_t> onboards_waiting_{0};
  std::atomic<std::size_t> waiting_{0};
};

}  // namespace kvbm
