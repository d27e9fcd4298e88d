#include "tiers/driver.h"

#include <algorithm>
#include <system_error>
#include <tuple>
#include <utility>

#include "base/random_bits.h"
#include "tiers/disk_tier.h"

namespace kvbm::detail {
namespace {

Result<TierDriver::Plans> make_plans(const TierPools& pools) {
  TierDriver::Plans plans;
  const auto plan = [&plans](Edge edge, const TierPool* from, const TierPool* to) -> Result<void> {
    if (!from || !to) return {};
    KVBM_TRY(plans.whole[static_cast<std::size_t>(edge)],
             CopyPlan::create(from->layout(), to->layout()));
    return {};
  };
  KVBM_CHECK_OK(plan(Edge::DeviceToHost, pools.device, pools.host));
  KVBM_CHECK_OK(plan(Edge::HostToDevice, pools.host, pools.device));
  KVBM_CHECK_OK(plan(Edge::HostToDisk, pools.host, pools.disk));
  KVBM_CHECK_OK(plan(Edge::DiskToHost, pools.disk, pools.host));
  if (!pools.host) return plans;
  KVBM_CHECK_OK(plan(Edge::PeerToHost, pools.host, pools.host));
  const std::size_t layers = pools.device->layout()->content()->num_layers();
  for (std::size_t layer = 0; layer < layers; ++layer) {
    KVBM_TRY(auto part, CopyPlan::create(pools.host->layout(), pools.device->layout(),
                                         {.first = layer, .count = 1}));
    plans.layers.push_back(std::move(part));
  }
  return plans;
}

// What this thread is in the middle of.
thread_local const TierDriver* driver_that_tells = nullptr;
thread_local std::size_t tellings_here = 0;

// Plans of an earlier life of this process, or of another one, are not found in this one.
PlanId first_plan_id() {
  constexpr PlanId kRandom = 0x7fff'ffff'0000'0000;
  return (random_bits() & kRandom) | 1;
}

}  // namespace

TimePoint deadline_after(std::chrono::nanoseconds duration) noexcept {
  constexpr std::chrono::hours kForEver{24 * 365};
  return std::chrono::steady_clock::now() + std::min<std::chrono::nanoseconds>(duration, kForEver);
}

TierDriver::TierDriver(TierPools pools, Plans plans, EngineOptions options,
                       std::unique_ptr<TransferExecutor> executor)
    : pools_(pools),
      plans_(std::move(plans)),
      leased_(std::make_shared<PlanTable>(first_plan_id())),
      engine_(pools, options),
      executor_(std::move(executor)) {}

Result<std::shared_ptr<TierDriver>> TierDriver::create(TierPools pools, EngineOptions options,
                                                       std::unique_ptr<TransferExecutor> executor) {
  KVBM_TRY(Plans plans, make_plans(pools));
  std::shared_ptr<TierDriver> driver(
      new TierDriver(pools, std::move(plans), options, std::move(executor)));
  try {
    driver->deadline_thread_ = std::jthread(
        [raw = driver.get()](std::stop_token stop) { raw->watch_deadlines(std::move(stop)); });
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), 1, 0,
                 "the system gives no more threads"};
  }
  return driver;
}

TierDriver::~TierDriver() { close(); }

void TierDriver::close() {
  leased_->close();
  post(CloseRequested{});
  wait_until_idle();  // not for who is told: two who close it then would wait for each other
}

void TierDriver::offered(Tier tier, std::vector<OffloadOffer> offers) {
  post(BlocksOffered{tier, std::move(offers)});
}

RequestId TierDriver::start(RequestStarted request, Listener listener) {
  {
    MutexLock lock(mutex_);
    request.id = next_request_++;
    listeners_.emplace(request.id, std::make_shared<const Listener>(std::move(listener)));
  }
  const RequestId id = request.id;
  post(std::move(request));
  return id;
}

bool TierDriver::is_external_busy(BlockId id) const {
  MutexLock lock(mutex_);
  return engine_.is_external_busy(id);
}

std::unique_ptr<LookupCore> TierDriver::lookup(const Names& names, std::chrono::nanoseconds lease) {
  return keep(lookup_tiers(pools_, names), lease);
}

std::unique_ptr<LookupCore> TierDriver::keep(Plan plan, std::chrono::nanoseconds lease) {
  auto view = view_of(plan);
  if (plan.size() == 0) return view;
  const TimePoint expires = deadline_after(lease);
  view->id = leased_->add(std::move(plan), expires);
  view->table = leased_;
  if (expires < watched_.load()) {
    // The thread looks at the table under the mutex before it waits.
    MutexLock lock(mutex_);
    deadline_moved_.notify_all();
  }
  return view;
}

Result<std::unique_ptr<LookupCore>> TierDriver::take_plan(PlanId id) {
  KVBM_TRY(const auto segments, leased_->segments(id));
  auto view = std::make_unique<LookupCore>();
  view->table = leased_;
  view->id = id;
  view->segments = segments;
  return view;
}

void TierDriver::cancel(RequestId id) { post(RequestCancelled{id}); }

void TierDriver::wait_until_idle() {
  MutexLock lock(mutex_);
  while (!engine_.idle()) idle_.wait(mutex_);
}

bool TierDriver::is_quiet() const {
  return engine_.idle() && telling_ == (driver_that_tells == this ? tellings_here : 0);
}

bool TierDriver::drain(TimePoint deadline) {
  MutexLock lock(mutex_);
  while (!is_quiet()) {
    if (deadline == TimePoint::max()) {  // wait_until() would overflow
      idle_.wait(mutex_);
    } else if (idle_.wait_until(mutex_, deadline) == std::cv_status::timeout) {
      return is_quiet();
    }
  }
  return true;
}

bool TierDriver::closed() const {
  MutexLock lock(mutex_);
  return engine_.closed();
}

TransferStats TierDriver::stats() const {
  MutexLock lock(mutex_);
  return engine_.stats();
}

TransitionCounts TierDriver::reached() const {
  MutexLock lock(mutex_);
  return engine_.reached();
}

void TierDriver::check_invariants() const {
  leased_->check_invariants();
  MutexLock lock(mutex_);
  engine_.check_invariants();
}

void TierDriver::without_moves(const std::function<void()>& change) {
  MutexLock lock(mutex_);
  change();
}

void TierDriver::post(Event event) {
  std::vector<Event> events;
  events.push_back(std::move(event));
  std::vector<Command> commands;
  bool is_idle = false;
  bool is_earlier = false;
  bool tells = false;
  {
    MutexLock lock(mutex_);
    commands = engine_.step(std::chrono::steady_clock::now(), std::move(events));
    const auto deadline = engine_.next_deadline();
    is_idle = engine_.idle();
    is_earlier = deadline && *deadline < watched_.load();
    tells = std::ranges::any_of(commands, [](const Command& command) {
      return std::holds_alternative<FinishRequest>(command);
    });
    telling_ += tells ? 1 : 0;
  }
  if (is_earlier) deadline_moved_.notify_all();
  if (tells) {
    const auto outer = std::pair(driver_that_tells, tellings_here);
    tellings_here = driver_that_tells == this ? tellings_here + 1 : 1;
    driver_that_tells = this;
    carry_out(std::move(commands));
    std::tie(driver_that_tells, tellings_here) = outer;
    MutexLock lock(mutex_);
    --telling_;
    is_idle = engine_.idle();
  } else {
    carry_out(std::move(commands));
  }
  if (is_idle) idle_.notify_all();
}

void TierDriver::carry_out(std::vector<Command> commands) {
  for (Command& command : commands) {
    if (auto* transfer = std::get_if<StartTransfer>(&command)) {
      begin(std::move(*transfer));
    } else if (const auto* layers = std::get_if<LayersArrived>(&command)) {
      tell(*layers);
    } else {
      finish(std::move(std::get<FinishRequest>(command)));
    }
  }
}

void TierDriver::begin(StartTransfer command) {
  const bool onboard = command.edge != Edge::DeviceToHost && command.edge != Edge::HostToDisk;
  TransferRequest request{
      .plan = command.layer ? plans_.layers[*command.layer]
                            : plans_.whole[static_cast<std::size_t>(command.edge)],
      .blocks = std::move(command.blocks),
      .priority = onboard ? TransferPriority::Onboard : TransferPriority::Offload,
      .cancelled = std::move(command.cancelled),
      .order = command.order};
  request.step = command.step;
  request.remote = std::move(command.remote);
  const bool with_disk = command.edge == Edge::DiskToHost || command.edge == Edge::HostToDisk;
  DiskTier* const disk = with_disk ? pools_.disk->disk() : nullptr;
  request.journal = disk;
  const auto ended = [this, id = command.id](TransferResult result) {
    post(TransferEnded{id, std::move(result)});
  };
  if (disk && command.edge == Edge::HostToDisk) {
    executor_->submit(std::move(request), [disk, ended](TransferResult result) {
      disk->acknowledge(std::move(result), ended);
    });
  } else {
    executor_->submit(std::move(request), ended);
  }
}

void TierDriver::tell(const LayersArrived& command) {
  std::shared_ptr<const Listener> listener;
  {
    MutexLock lock(mutex_);
    const auto found = listeners_.find(command.id);
    if (found == listeners_.end()) return;  // it has ended on another thread
    listener = found->second;
  }
  if (listener->layers_arrived) listener->layers_arrived(command.layers);
}

void TierDriver::finish(FinishRequest command) {
  std::shared_ptr<const Listener> listener;
  {
    MutexLock lock(mutex_);
    listener = std::move(listeners_.extract(command.id).mapped());
  }
  listener->finished(std::move(command.blocks));
}

std::optional<TimePoint> TierDriver::next_deadline() const {
  const auto request = engine_.next_deadline();
  const auto lease = leased_->next_expiry();
  if (!request || !lease) return request ? request : lease;
  return std::min(*request, *lease);
}

void TierDriver::watch_deadlines(std::stop_token stop) {
  // The lambda takes the mutex so that the stop cannot fall between the check and the wait.
  const std::stop_callback wake(stop, [this] {
    MutexLock lock(mutex_);
    deadline_moved_.notify_all();
  });
  for (;;) {
    {
      MutexLock lock(mutex_);
      // Before the look at what there is: who adds a lease looks at it afterwards.
      watched_.store(TimePoint::max());
      const std::optional<TimePoint> next = next_deadline();
      if (next) watched_.store(*next);
      if (stop.stop_requested()) return;
      if (!next) {
        deadline_moved_.wait(mutex_);
        continue;
      }
      if (std::chrono::steady_clock::now() < *next) {
        deadline_moved_.wait_until(mutex_, *next);
        continue;
      }
    }
    leased_->expire(std::chrono::steady_clock::now());
    post(ClockTicked{});
  }
}

}  // namespace kvbm::detail
