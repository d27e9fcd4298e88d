// What a store needs done in the background: syncs, probes of a disk that failed, and reading its
// blocks again before somebody needs them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "kvbm/store.h"
#include "store/disk_store.h"
#include "store/health.h"
#include "store/payload.h"

namespace kvbm::store {

// One thread, or none. Thread-safe.
class Keeper {
 public:
  // Told of a block whose bytes are not what its record says. The record may change meanwhile.
  using Damaged = std::function<void(Slot, const SlotRecord&)>;

  // Tells the time.
  using Now = std::function<Clock::time_point()>;

  // Store and health must outlive it. With a clock of the caller's there is no thread, and tend()
  // must be called instead. Errors: OperationFailed with errno if the system gives no thread.
  static Result<std::unique_ptr<Keeper>> start(DiskStore& store, Health& health,
                                               const DiskStoreConfig& config, Damaged damaged,
                                               Now now = {});
  ~Keeper() { stop(); }

  // Syncs once more, answers who waits, and ends. Idempotent.
  void stop();

  // Requires: stop() was not called. Calls `then` on the keeper's thread when all that was put
  // before this call is durable, or with the error why it may not be. Who waits at one time shares
  // one sync.
  void after_sync(std::function<void(const Result<void>&)> then);

  // Does what is due now. Only where there is no thread.
  void tend() { tend(take_waiting(), false); }

  std::uint64_t scrubbed_blocks() const noexcept { return scrubbed_; }
  std::uint64_t scrub_mismatches() const noexcept { return scrub_mismatches_; }

 private:
  using Waiter = std::function<void(const Result<void>&)>;

  Keeper(DiskStore& store, Health& health, const DiskStoreConfig& config, Damaged damaged, Now now);
  void run();
  std::vector<Waiter> take_waiting() KVBM_EXCLUDES(mutex_);
  void tend(std::vector<Waiter> waiters, bool stopping);
  void sync(std::vector<Waiter> waiters);
  void leave();
  void probe();
  void scrub(std::chrono::nanoseconds elapsed);
  bool scrub_one(Slot slot);

  DiskStore& store_;
  Health& health_;
  const std::chrono::milliseconds interval_;
  const std::uint64_t scrub_rate_;  // bytes per second
  const Damaged damaged_;
  const Now now_;
  PayloadReader reader_;
  Clock::time_point last_sync_;
  Clock::time_point last_scrub_;
  Slot next_scrub_ = 0;
  double scrub_credit_ = 0;  // bytes that may be read now
  std::atomic<std::uint64_t> scrubbed_{0};
  std::atomic<std::uint64_t> scrub_mismatches_{0};

  Mutex mutex_;
  CondVar changed_;
  std::vector<Waiter> waiting_ KVBM_GUARDED_BY(mutex_);
  bool stopping_ KVBM_GUARDED_BY(mutex_) = false;
  Mutex stopping_mutex_;  // for who joins the thread
  std::jthread thread_;
};

}  // namespace kvbm::store
