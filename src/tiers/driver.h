// Runs the tier engine with real threads and a real clock.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "tiers/engine.h"
#include "tiers/lookup.h"

namespace kvbm::detail {

// So long from now; a duration that no clock can hold means for ever, or as good as.
TimePoint deadline_after(std::chrono::nanoseconds duration) noexcept;

// Thread-safe. The engine is stepped on whichever thread brings an event, under one mutex; a thread
// of its own does nothing but wait for the next deadline.
class TierDriver {
 public:
  // Who made a request is told how it goes, on some thread, with no lock held.
  struct Listener {
    // Exactly once, with one outcome per item.
    std::function<void(std::vector<Result<ImmutableHold>>)> finished;
    // Of a request that goes layer by layer, each time when more layers have come; before
    // `finished`, if at all.
    std::function<void(std::size_t layers)> layers_arrived = {};
  };
  // What a block goes through on each path, by Edge, null where a tier is missing; and layer by
  // layer from host to device.
  struct Plans {
    std::array<std::shared_ptr<const CopyPlan>, kEdgeCount> whole;
    std::vector<std::shared_ptr<const CopyPlan>> layers;
  };

  // Errors: those of CopyPlan::create() for tiers whose blocks do not fit each other;
  // OperationFailed with errno if the system gives no thread.
  static Result<std::shared_ptr<TierDriver>> create(TierPools pools, EngineOptions options,
                                                    std::unique_ptr<TransferExecutor> executor);
  ~TierDriver();  // close()

  // Blocks that were registered in a tier or found there.
  void offered(Tier tier, std::vector<OffloadOffer> offers);
  // `request.id` is not looked at.
  RequestId start(RequestStarted request, Listener listener);
  void cancel(RequestId id);
  bool is_external_busy(BlockId id) const;

  // Holds what the tiers have of these names, as lookup_tiers(), until the lease is over.
  std::unique_ptr<LookupCore> lookup(const Names& names, std::chrono::nanoseconds lease);
  // The same of a plan that is made already.
  std::unique_ptr<LookupCore> keep(Plan plan, std::chrono::nanoseconds lease);
  // Takes up a plan whose id was left. Errors: PlanExpired{id}.
  Result<std::unique_ptr<LookupCore>> take_plan(PlanId id);
  const std::shared_ptr<PlanTable>& plans() const noexcept { return leased_; }

  // Calls `change` while no move between the pools begins or ends.
  void without_moves(const std::function<void()>& change);

  // Waits until the engine is idle and everybody has been told what became of their requests, but
  // for those whom this thread is telling; false at the deadline.
  bool drain(TimePoint deadline);
  // Ends all requests and waits for running copies. Idempotent.
  void close();
  bool closed() const;

  TransferStats stats() const;
  TransitionCounts reached() const;
  const TierPools& pools() const noexcept { return pools_; }
  void check_invariants() const;

 private:
  TierDriver(TierPools pools, Plans plans, EngineOptions options,
             std::unique_ptr<TransferExecutor> executor);
  void post(Event event) KVBM_EXCLUDES(mutex_);
  void wait_until_idle() KVBM_EXCLUDES(mutex_);
  bool is_quiet() const KVBM_REQUIRES(mutex_);
  void carry_out(std::vector<Command> commands);
  void begin(StartTransfer command);
  void tell(const LayersArrived& command);
  void finish(FinishRequest command);
  void watch_deadlines(std::stop_token stop);
  std::optional<TimePoint> next_deadline() const KVBM_REQUIRES(mutex_);

  const TierPools pools_;
  const Plans plans_;
  const std::shared_ptr<PlanTable> leased_;
  mutable Mutex mutex_;
  TierEngine engine_ KVBM_GUARDED_BY(mutex_);
  std::map<RequestId, std::shared_ptr<const Listener>> listeners_ KVBM_GUARDED_BY(mutex_);
  RequestId next_request_ KVBM_GUARDED_BY(mutex_) = 1;
  std::size_t telling_ KVBM_GUARDED_BY(mutex_) = 0;   // calls of post() that tell of ended requests
  std::atomic<TimePoint> watched_{TimePoint::max()};  // what the thread waits for
  CondVar idle_;
  CondVar deadline_moved_;  // to an earlier time
  std::unique_ptr<TransferExecutor> executor_;
  std::jthread deadline_thread_;
};

}  // namespace kvbm::detail
