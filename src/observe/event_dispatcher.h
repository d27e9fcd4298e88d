// Carries events from the pools to an EventManager, on a thread of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "kvbm/result.h"
#include "observe/event_sink.h"

namespace kvbm {

struct EventStats {
  std::uint64_t delivered = 0;
  std::uint64_t dropped = 0;     // the queue was full, or the manager too slow when it was closed
  std::uint64_t exceptions = 0;  // thrown by the manager, and caught
};

// Thread-safe. put() costs a mutex and a copy; a manager that is slow, stuck or throwing changes
// nothing for the pools.
class EventDispatcher final : public EventSink {
 public:
  // Requires: manager is not null; queue_limit >= 1, in events. Throws std::system_error if there
  // is no thread to be had; make_dispatcher() makes an error of it.
  explicit EventDispatcher(std::shared_ptr<EventManager> manager, std::size_t queue_limit = 65536);
  ~EventDispatcher() override;  // close() with one second

  void put(std::span<const BlockEvent> events) noexcept override;

  // Delivers what is queued, for at most `patience`, and drops the rest. A manager that is stuck in
  // a callback is left alone with its thread. A second call returns at once.
  void close(std::chrono::nanoseconds patience);
  EventStats stats() const;

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the thread, which may outlive this
};

// The dispatcher for a manager; null for none and for the NullEventManager, so that nobody makes
// events that nobody hears. Errors: OperationFailed with errno if the system gives no thread.
Result<std::shared_ptr<EventDispatcher>> make_dispatcher(std::shared_ptr<EventManager> manager);

}  // namespace kvbm
