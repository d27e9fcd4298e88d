// What happens to blocks, for those who want to know.
#pragma once

#include <cstdint>

#include "kvbm/types.h"

namespace kvbm {

// One change of one block. Allocated and Evicted blocks have no name of their own any more; an
// eviction tells the name that was lost. Cleared is about no single block: every name of the
// namespace, in this tier, is gone.
struct BlockEvent {
  enum class Kind : std::uint8_t { Allocated, Registered, Matched, Evicted, Cleared };
  Kind kind;
  Tier tier;
  BlockId block_id;
  SequenceHash sequence_hash;
  NamespaceId name_space = 0;
};

// Receives the events of every pool of a manager, in the order in which each pool's blocks changed,
// on a thread of its own. A slow receiver delays nobody: the events wait in a bounded queue, and
// when it is full the newest are dropped and counted. An exception is caught and counted.
class EventManager {
 public:
  virtual ~EventManager() = default;

  virtual void block_allocated(BlockId block_id) = 0;
  virtual void block_registered(BlockId block_id, SequenceHash sequence_hash) = 0;
  virtual void block_matched(BlockId block_id, SequenceHash sequence_hash) = 0;
  virtual void block_evicted(BlockId block_id) = 0;

  // All names of the namespace are gone from the tier, in which it had some: it was reset.
  virtual void blocks_cleared(Tier /*tier*/, NamespaceId /*name_space*/) {}

  // Override this one to learn the tier as well; by default it calls the five.
  virtual void on_event(const BlockEvent& event) {
    switch (event.kind) {
      case BlockEvent::Kind::Allocated: return block_allocated(event.block_id);
      case BlockEvent::Kind::Registered:
        return block_registered(event.block_id, event.sequence_hash);
      case BlockEvent::Kind::Matched: return block_matched(event.block_id, event.sequence_hash);
      case BlockEvent::Kind::Evicted: return block_evicted(event.block_id);
      case BlockEvent::Kind::Cleared: return blocks_cleared(event.tier, event.name_space);
    }
  }
};

// Hears nothing. Pools that have it, or none, do not make events at all.
class NullEventManager final : public EventManager {
 public:
  void block_allocated(BlockId) override {}
  void block_registered(BlockId, SequenceHash) override {}
  void block_matched(BlockId, SequenceHash) override {}
  void block_evicted(BlockId) override {}
};

}  // namespace kvbm
