// std::mutex with the annotations that let clang prove what is guarded by what.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define KVBM_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define KVBM_THREAD_ATTRIBUTE(x)
#endif

#define KVBM_GUARDED_BY(x) KVBM_THREAD_ATTRIBUTE(guarded_by(x))
#define KVBM_REQUIRES(...) KVBM_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define KVBM_EXCLUDES(...) KVBM_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define KVBM_NO_THREAD_SAFETY_ANALYSIS KVBM_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace kvbm {

class KVBM_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() KVBM_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() KVBM_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
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
