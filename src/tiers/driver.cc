#include "tiers/driver.h"

#include <system_error>
#include <utility>

#include "tiers/disk_tier.h"

namespace kvbm::detail {
namespace {

// What a block goes through on each path; null where a tier is missing.
Result<TierDriver::Plans> make_plans(const TierPools& pools) {
  TierDriver::Plans plans;
  const auto plan = [&plans](Edge edge, const TierPool* from, const TierPool* to) -> Result<void> {
    if (!from || !to) return {};
    KVBM_TRY(plans[static_cast<std::size_t>(edge)], CopyPlan::create(from->layout(), to->layout()));
    return {};
  };
  KVBM_CHECK_OK(plan(Edge::DeviceToHost, pools.device, pools.host));
  KVBM_CHECK_OK(plan(Edge::HostToDevice, pools.host, pools.device));
  KVBM_CHECK_OK(plan(Edge::HostToDisk, pools.host, pools.disk));
  KVBM_CHECK_OK(plan(Edge::DiskToHost, pools.disk, pools.host));
  return plans;
}

}  // namespace

TierDriver::TierDriver(TierPools pools, Plans plans, EngineOptions options,
                       std::unique_ptr<TransferExecutor> executor)
    : pools_(pools),
      plans_(std::move(plans)),
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
  post(CloseRequested{});
  drain(TimePoint::max());
}

void TierDriver::registered(Tier tier, std::vector<OffloadOffer> offers) {
  post(BlocksRegistered{tier, std::move(offers)});
}

RequestId TierDriver::onboard(std::vector<OnboardItem> items, TimePoint deadline, Answer answer) {
  RequestId id = 0;
  {
    MutexLock lock(mutex_);
    id = next_request_++;
    answers_.emplace(id, std::move(answer));
  }
  post(OnboardRequested{id, std::move(items), deadline});
  return id;
}

void TierDriver::cancel(RequestId id) { post(RequestCancelled{id}); }

bool TierDriver::drain(TimePoint deadline) {
  MutexLock lock(mutex_);
  while (!engine_.idle()) {
    if (deadline == TimePoint::max()) {  // wait_until() would overflow
      changed_.wait(mutex_);
    } else if (changed_.wait_until(mutex_, deadline) == std::cv_status::timeout) {
      return engine_.idle();
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

void TierDriver::check_invariants() const {
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
  bool tell = false;
  {
    MutexLock lock(mutex_);
    commands = engine_.step(std::chrono::steady_clock::now(), std::move(events));
    tell = engine_.idle() || engine_.next_deadline() != watched_;
  }
  carry_out(std::move(commands));
  if (tell) changed_.notify_all();
}

void TierDriver::carry_out(std::vector<Command> commands) {
  for (Command& command : commands) {
    if (auto* transfer = std::get_if<StartTransfer>(&command)) {
      start(std::move(*transfer));
    } else {
      finish(std::move(std::get<FinishRequest>(command)));
    }
  }
}

void TierDriver::start(StartTransfer command) {
  const bool onboard = command.edge == Edge::DiskToHost || command.edge == Edge::HostToDevice;
  TransferRequest request{
      .plan = plans_[static_cast<std::size_t>(command.edge)],
      .blocks = std::move(command.blocks),
      .priority = onboard ? TransferPriority::Onboard : TransferPriority::Offload,
      .cancelled = std::move(command.cancelled)};
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

void TierDriver::finish(FinishRequest command) {
  Answer answer;
  {
    MutexLock lock(mutex_);
    const auto found = answers_.find(command.id);
    answer = std::move(found->second);
    answers_.erase(found);
  }
  answer(std::move(command.blocks));
}

void TierDriver::watch_deadlines(std::stop_token stop) {
  // The lambda takes the mutex so that the stop cannot fall between the check and the wait.
  const std::stop_callback wake(stop, [this] {
    MutexLock lock(mutex_);
    changed_.notify_all();
  });
  for (;;) {
    {
      MutexLock lock(mutex_);
      watched_ = engine_.next_deadline();
      if (stop.stop_requested()) return;
      if (!watched_) {
        changed_.wait(mutex_);
        continue;
      }
      if (std::chrono::steady_clock::now() < *watched_) {
        changed_.wait_until(mutex_, *watched_);
        continue;
      }
    }
    post(ClockTicked{});
  }
}

}  // namespace kvbm::detail
