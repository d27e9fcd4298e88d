// The tier engine decides which block moves where and when. It moves nothing itself: events go in,
// commands come out, and there is no thread, clock, file or lock of its own in here. A driver runs
// it with threads; a simulator runs the same object under a virtual clock.
//
// Offload: a block registered in a tier is offered to the tier below. Offers wait in a bounded
// queue as bare names and hold nothing, so a full queue can forget the
// least wanted, and a block may be evicted before its turn. Higher priority goes first, then who
// came first.
//
// Onboard: a request names blocks of the host and disk tiers and a device block for each. Disk
// blocks are read into host blocks, which stay there, and go on to the device from there. Every
// item ends once: registered in the device tier, or with an error; then the request is answered.
// Requests end at their deadline, at the latest.
//
// A transfer holds its source and target until it has really ended. What it brought is registered
// only with the token of a copy that succeeded, and only while its request still waits for it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <variant>
#include <vector>

#include "kvbm/tiers.h"
#include "tiers/tier_pool.h"
#include "tiers/write_budget.h"

namespace kvbm::detail {

using RequestId = std::uint64_t;
using TransferId = std::uint64_t;

// The pools of one manager; host and disk may be absent, and a disk needs a host.
struct TierPools {
  TierPool* device = nullptr;
  TierPool* host = nullptr;
  TierPool* disk = nullptr;
};

struct EngineOptions {
  std::size_t blocks_per_transfer = 16;
  std::size_t onboards_in_flight = 8;  // transfers per onboarding path
  std::size_t offloads_in_flight = 4;  // transfers per offloading path
  std::size_t offload_queue_blocks = 65536;
  std::uint64_t disk_bytes_per_day = 0;  // that may be written to the disk tier; 0: any number
};

// --- events ----------------------------------------------------------------------------------

struct BlocksRegistered {
  Tier tier;
  std::vector<OffloadOffer> offers;
};
struct OnboardItem {
  ImmutableHold source;
  Tier source_tier;  // Host or Disk
  MutableHold target;
};
struct OnboardRequested {
  RequestId id;  // never used before
  std::vector<OnboardItem> items;
  TimePoint deadline;
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
using Event = std::variant<BlocksRegistered, OnboardRequested, RequestCancelled, TransferEnded,
                           ClockTicked, CloseRequested>;

// --- commands --------------------------------------------------------------------------------

struct StartTransfer {
  TransferId id;
  Edge edge;
  std::vector<BlockCopy> blocks;
  std::shared_ptr<const std::atomic<bool>> cancelled;
};
struct FinishRequest {
  RequestId id;
  std::vector<Result<ImmutableHold>> blocks;  // one per item, in order
};
using Command = std::variant<StartTransfer, FinishRequest>;

class TierEngine {
 public:
  TierEngine(TierPools pools, EngineOptions options);

  // Takes in what happened and says what to do. Commands may be carried out in any order.
  // Not thread-safe. Cost: O(blocks in the events and commands).
  std::vector<Command> step(TimePoint now, std::vector<Event> events);

  // When step() must be called at the latest, if nothing happens before.
  std::optional<TimePoint> next_deadline() const;
  // Nothing queued, moving or waited for.
  bool idle() const noexcept;
  bool closed() const noexcept { return closed_; }
  const TransferStats& stats() const noexcept { return stats_; }

  // Aborts with a message if the books do not balance. O(everything).
  void check_invariants() const;

 private:
  struct ItemRef {
    RequestId request;
    std::size_t index;
  };
  struct Request {
    TimePoint deadline;
    std::vector<OnboardItem> items;
    std::vector<std::optional<Result<ImmutableHold>>> outcomes;
    std::size_t open = 0;  // items without an outcome
  };
  struct Move {
    ImmutableHold source;
    CompleteHold target;  // named as its source when the move began: a reset in between counts
    std::optional<ItemRef> item;  // what waits for it; nothing for an offload
  };
  struct Transfer {
    Edge edge;
    std::vector<Move> moves;
    std::shared_ptr<std::atomic<bool>> cancelled;
  };

  void on(BlocksRegistered& event);
  void on(OnboardRequested& event);
  void on(RequestCancelled& event);
  void on(TransferEnded& event);
  void on(ClockTicked&) {}
  void on(CloseRequested&);

  // Waiting offers, the next one first.
  using Offers = std::map<std::pair<std::uint64_t, std::uint64_t>, BlockKey>;

  void offer(Tier tier, OffloadOffer offer);
  void end_request(RequestId id, ErrorCode code);
  void cancel_unwanted_transfers();
  OnboardItem* find(ItemRef item);
  void settle(ItemRef item, Result<ImmutableHold> outcome);

  void land(Edge edge, Move& move, ImmutableHold arrived);
  Move make_move(TierPool& pool, ImmutableHold source, MutableHold target,
                 std::optional<ItemRef> item);
  void fail(Edge edge, Move& move, Error error);

  void pump();
  void pump_edge(Edge edge, std::size_t limit);
  std::optional<Move> next_move(Edge edge);
  std::optional<Move> next_load();
  std::optional<Move> next_stage();
  std::optional<Move> next_offload(Edge edge, Offers& offers);
  bool may_write(Edge edge, const BlockKey& key);
  void start(Edge edge, std::vector<Move> moves);

  TierPool& source_pool(Edge edge) const;
  TierPool& target_pool(Edge edge) const;
  std::size_t& in_flight(Edge edge) { return in_flight_[static_cast<std::size_t>(edge)]; }
  EdgeStats& edge_stats(Edge edge) { return stats_.edges[static_cast<std::size_t>(edge)]; }

  const TierPools pools_;
  const EngineOptions options_;
  std::optional<WriteBudget> disk_budget_;
  TimePoint now_{};  // of this step

  std::map<RequestId, Request> requests_;
  std::set<std::pair<TimePoint, RequestId>> deadlines_;
  std::deque<ItemRef> loads_;   // items whose source is in the host tier
  std::deque<ItemRef> stages_;  // items whose source is on disk
  Offers device_offers_;        // registered there, to be offloaded to the tier below
  Offers host_offers_;
  std::uint64_t next_offer_ = 0;
  std::map<TransferId, Transfer> transfers_;
  std::array<std::size_t, kEdgeCount> in_flight_{};
  TransferId next_transfer_ = 1;
  bool closed_ = false;
  TransferStats stats_;
  std::vector<Command> commands_;
};

}  // namespace kvbm::detail
