// Runs the tier engine with real threads and a real clock.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include "base/mutex.h"
#include "tiers/engine.h"
#include "tiers/lookup.h"

namespace kvbm::detail {

// Thread-safe. The engine is stepped on whichever thread brings an event, under one mutex; a thread
// of its own does nothing but wait for the next deadline.
class TierDriver {
 public:
  using Answer = std::function<void(std::vector<Result<ImmutableHold>>)>;
  using Plans = std::array<std::shared_ptr<const CopyPlan>, kEdgeCount>;  // by Edge

  // Errors: those of CopyPlan::create() for tiers whose blocks do not fit each other;
  // OperationFailed with errno if the system gives no thread.
  static Result<std::shared_ptr<TierDriver>> create(TierPools pools, EngineOptions options,
                                                    std::unique_ptr<TransferExecutor> executor);
  ~TierDriver();  // close()

  // Blocks that their owner registered.
  void registered(Tier tier, std::vector<OffloadOffer> offers);
  // Calls `answer` exactly once, on some thread, with one outcome per item.
  RequestId onboard(std::vector<OnboardItem> items, TimePoint deadline, Answer answer);
  void cancel(RequestId id);

  // Calls `change` while no move between the pools begins or ends.
  void without_moves(const std::function<void()>& change);

  // Waits until the engine is idle; false at the deadline.
  bool drain(TimePoint deadline);
  // Ends all requests and waits for running copies. Idempotent.
  void close();
  bool closed() const;

  TransferStats stats() const;
  const TierPools& pools() const noexcept { return pools_; }
  void check_invariants() const;

 private:
  TierDriver(TierPools pools, Plans plans, EngineOptions options,
             std::unique_ptr<TransferExecutor> executor);
  void post(Event event) KVBM_EXCLUDES(mutex_);
  void carry_out(std::vector<Command> commands);
  void start(StartTransfer command);
  void finish(FinishRequest command);
  void watch_deadlines(std::stop_token stop);

  const TierPools pools_;
  const Plans plans_;
  mutable Mutex mutex_;
  TierEngine engine_ KVBM_GUARDED_BY(mutex_);
  std::map<RequestId, Answer> answers_ KVBM_GUARDED_BY(mutex_);
  RequestId next_request_ KVBM_GUARDED_BY(mutex_) = 1;
  std::optional<TimePoint> watched_ KVBM_GUARDED_BY(mutex_);
  CondVar changed_;  // the engine became idle, or its next deadline moved
  std::unique_ptr<TransferExecutor> executor_;
  std::jthread deadline_thread_;
};

}  // namespace kvbm::detail
