// Where block events go.
#pragma once

#include <span>

#include "kvbm/events.h"

namespace kvbm {

// Takes in what happened to blocks. Called under a pool's mutex: it must not block or call back.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void put(std::span<const BlockEvent> events) noexcept = 0;
};

}  // namespace kvbm
