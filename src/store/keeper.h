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

// One thread. Thread-safe.
class Keeper {
 public:
  // Told of a block whose bytes are not what its record says. The record may change meanwhile.
  using Damaged = std::function<void(Slot, const SlotRecord&)>;

  // Store and health must outlive it. Errors: OperationFailed with errno if the system gives no
  // thread.
  static Result<std::unique_ptr<Keeper>> start(DiskStore& store, Health& health,
                                               const DiskStoreConfig& config, Damaged damaged);
  ~Keeper() { stop(); }

  // Syncs once more, answers who waits, and ends. Idempotent.
  void stop();

  // Requires: stop() was not called. Calls `then` on the keeper's thread when all that was put
  // before this call is durable, or with the error why it may not be. Who waits at one time shares
  // one sync.
  void after_sync(std::function<void(const Result<void>&)> then);

  std::uint64_t scrubbed_blocks() const noexcept { return scrubbed_; }
  std::uint64_t scrub_mismatches() const noexcept { return scrub_mismatches_; }

 private:
  using Waiter = std::function<void(const Result<void>&)>;

  Keeper(DiskStore& store, Health& health, const DiskStoreConfig& config, Damaged damaged);
  void run();
  void sync(std::vector<Waiter> waiters);
  void leave();
  void probe(PayloadReader& reader);
  void scrub(PayloadReader& reader, std::chrono::nanoseconds elapsed);
  bool scrub_one(PayloadReader& reader, Slot slot);

  DiskStore& store_;
  Health& health_;
  const std::chrono::milliseconds interval_;
  const std::uint64_t scrub_rate_;  // bytes per second
  const Damaged damaged_;
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
