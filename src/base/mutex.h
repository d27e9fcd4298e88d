// A mutex with the annotations that let clang prove what is guarded by what.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#if defined(__clang__)
#define KVBM_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define KVBM_THREAD_ATTRIBUTE(x)
#endif

#define KVBM_GUARDED_BY(x) KVBM_THREAD_ATTRIBUTE(guarded_by(x))
#define KVBM_PT_GUARDED_BY(x) KVBM_THREAD_ATTRIBUTE(pt_guarded_by(x))
#define KVBM_REQUIRES(...) KVBM_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define KVBM_EXCLUDES(...) KVBM_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define KVBM_NO_THREAD_SAFETY_ANALYSIS KVBM_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace kvbm {

// Taking and giving back a free mutex is one atomic change each, inlined, which is half of what
// std::mutex costs here; a pool call is hardly more than its lock. A taken one is waited for as
// std::atomic waits: a moment busily, then asleep.
class InlineMutex {
 public:
  void lock() noexcept {
    std::uint32_t free = kFree;
    if (!state_.compare_exchange_strong(free, kTaken, std::memory_order_acquire,
                                        std::memory_order_relaxed)) {
      wait();
    }
  }
  void unlock() noexcept {
    if (state_.exchange(kFree, std::memory_order_release) == kWaitedFor) state_.notify_one();
  }

 private:
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kTaken = 1;
  static constexpr std::uint32_t kWaitedFor = 2;  // taken, and somebody may sleep

  void wait() noexcept {
    while (state_.exchange(kWaitedFor, std::memory_order_acquire) != kFree) {
      state_.wait(kWaitedFor, std::memory_order_relaxed);
    }
  }
  std::atomic<std::uint32_t> state_{kFree};
};

class KVBM_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() KVBM_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() KVBM_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

 private:
#if defined(__SANITIZE_THREAD__)
  std::mutex mutex_;  // whose order of taking the sanitizer checks
#else
  InlineMutex mutex_;
#endif
};

class KVBM_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) KVBM_THREAD_ATTRIBUTE(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() KVBM_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits on a Mutex that the caller holds. Callers loop on their condition, which keeps the guarded
// reads inside the function that the analysis checks.
using CondVar = std::condition_variable_any;

}  // namespace kvbm
