// What goes into the tier engine and what comes out of it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "kvbm/tiers.h"
#include "physical/transfer/transfer.h"
#include "tiers/tier_pool.h"

namespace kvbm::detail {

using RequestId = std::uint64_t;
using TransferId = std::uint64_t;

// --- events ----------------------------------------------------------------------------------

// Blocks that are in a tier and were used: registered there by their owner, or found by a lookup
// that is being onboarded.
struct BlocksOffered {
  Tier tier;
  std::vector<OffloadOffer> offers;
};

// Where the blocks of a request are to go.
enum class RequestKind : std::uint8_t {
  Onboard,  // to the device: from host, disk or a peer
  Stage,    // to the host tier: from disk or a peer
  Offload,  // to the host tier: from the device
};

// One block of a request. It is where `source` is held or, without one, with a peer or in the
// external device block `external`; then `identity` says what it is.
struct RequestItem {
  ImmutableHold source = {};
  Tier at = Tier::Host;                            // where the source is
  std::shared_ptr<RemoteBlocks> remote = nullptr;  // a peer's, of which this one is ...
  BlockId remote_block = kNoBlock;
  MutableHold target = {};      // an onboarding's block of the device pool, or else ...
  BlockId external = kNoBlock;  // ... the external device block that it goes to or comes from
  // Of an external source, or of a peer's block: then its epoch is that of the host tier when the
  // peer was asked.
  std::optional<BlockIdentity> identity = std::nullopt;
  // That need not be computed if it is loaded: its own, and those of blocks that follow it and are
  // in the device tier.
  std::uint32_t tokens = 0;
};
struct RequestStarted {
  RequestId id = 0;  // never used before
  RequestKind kind = RequestKind::Onboard;
  std::vector<RequestItem> items = {};
  TimePoint deadline = {};
  bool layerwise = false;  // an onboarding's bytes arrive layer by layer
  bool admission = false;  // an offload obeys the rule of its edge
  // Of an onboarding, whose items tell their tokens in prefix order: what would be computed sooner
  // is not loaded. 0: all is loaded.
  double prefill_tokens_per_second = 0;
  StreamOrder order = {};  // of copies from or to the device
};
struct RequestCancelled {
  RequestId id;
};
struct TransferEnded {
  TransferId id;
  TransferResult result;
};
struct ClockTicked {};     // nothing happened but time
struct CloseRequested {};  // no new work; end every request
using Event = std::variant<BlocksOffered, RequestStarted, RequestCancelled, TransferEnded,
                           ClockTicked, CloseRequested>;

// --- commands --------------------------------------------------------------------------------

// To be answered with a TransferEnded of this id, once its last byte has stopped moving.
struct StartTransfer {
  TransferId id;
  Edge edge;
  TransferStep step = TransferStep::Copy;
  std::optional<std::size_t> layer = std::nullopt;  // only this one of each block
  std::vector<BlockCopy> blocks;
  std::shared_ptr<RemoteBlocks> remote = nullptr;  // whose blocks are the sources
  StreamOrder order = {};
  std::shared_ptr<const std::atomic<bool>> cancelled;
};
// The first `layers` layers of all blocks that can still arrive are there.
struct LayersArrived {
  RequestId id;
  std::size_t layers;
};
struct FinishRequest {
  RequestId id;
  // One per item, in order. A block that went to an external one has no hold.
  std::vector<Result<ImmutableHold>> blocks;
};
using Command = std::variant<StartTransfer, LayersArrived, FinishRequest>;

}  // namespace kvbm::detail
