#include "observe/event_dispatcher.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace kvbm {

struct EventDispatcher::State {
  State(std::shared_ptr<EventManager> event_manager, std::size_t limit)
      : manager(std::move(event_manager)), queue_limit(limit) {}

  const std::shared_ptr<EventManager> manager;
  const std::size_t queue_limit;
  mutable Mutex mutex;
  CondVar changed;
  std::vector<BlockEvent> queue KVBM_GUARDED_BY(mutex);
  bool closing KVBM_GUARDED_BY(mutex) = false;
  bool finished KVBM_GUARDED_BY(mutex) = false;
  EventStats stats KVBM_GUARDED_BY(mutex);
  std::atomic<bool> abandoned{false};  // by a close() that lost patience

  void deliver();
  void deliver(std::span<const BlockEvent> batch);
  bool deliver_one(const BlockEvent& event) noexcept;
};

EventDispatcher::EventDispatcher(std::shared_ptr<EventManager> manager, std::size_t queue_limit)
    : state_(std::make_shared<State>(std::move(manager), queue_limit)) {
  std::thread([state = state_] { state->deliver(); }).detach();
}

EventDispatcher::~EventDispatcher() { close(std::chrono::seconds(1)); }

void EventDispatcher::put(std::span<const BlockEvent> events) noexcept {
  bool was_empty = false;
  {
    MutexLock lock(state_->mutex);
    const std::size_t room = state_->queue_limit - state_->queue.size();
    const std::size_t taken = state_->closing ? 0 : std::min(room, events.size());
    was_empty = state_->queue.empty();
    state_->queue.insert(state_->queue.end(), events.begin(),
                         events.begin() + static_cast<std::ptrdiff_t>(taken));
    state_->stats.dropped += events.size() - taken;
  }
  if (was_empty) state_->changed.notify_all();
}

void EventDispatcher::close(std::chrono::nanoseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  MutexLock lock(state_->mutex);
  if (state_->closing) return;
  state_->closing = true;
  state_->changed.notify_all();
  while (!state_->finished) {
    if (state_->changed.wait_until(state_->mutex, deadline) == std::cv_status::timeout) {
      state_->abandoned = true;
      break;
    }
  }
  state_->stats.dropped += state_->queue.size();
  state_->queue.clear();
}

EventStats EventDispatcher::stats() const {
  MutexLock lock(state_->mutex);
  return state_->stats;
}

Result<std::shared_ptr<EventDispatcher>> make_dispatcher(std::shared_ptr<EventManager> manager) {
  if (!manager || dynamic_cast<NullEventManager*>(manager.get())) {
    return std::shared_ptr<EventDispatcher>();
  }
  try {
    return std::make_shared<EventDispatcher>(std::move(manager));
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), 1, 0,
                 "the system gives no more threads"};
  }
}

void EventDispatcher::State::deliver() {
  for (;;) {
    std::vector<BlockEvent> batch;
    {
      MutexLock lock(mutex);
      while (queue.empty() && !closing) changed.wait(mutex);
      if (queue.empty()) {
        finished = true;
        changed.notify_all();
        return;
      }
      batch.swap(queue);
    }
    deliver(batch);
  }
}

void EventDispatcher::State::deliver(std::span<const BlockEvent> batch) {
  std::uint64_t told = 0;
  std::uint64_t exceptions = 0;
  for (; told < batch.size() && !abandoned; ++told) {
    exceptions += deliver_one(batch[told]) ? 0 : 1;
  }
  MutexLock lock(mutex);
  stats.delivered += told - exceptions;
  stats.exceptions += exceptions;
  stats.dropped += batch.size() - told;
}

bool EventDispatcher::State::deliver_one(const BlockEvent& event) noexcept {
  try {
    manager->on_event(event);
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace kvbm
