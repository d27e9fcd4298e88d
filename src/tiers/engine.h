// The tier engine decides which block moves where and when. It moves nothing itself: events go in,
// commands come out, and there is no thread, clock, file or lock of its own in here. A driver runs
// it with threads; a simulator runs the same object under a virtual clock.
//
// Offers. A block that was used in a tier is offered to the tier below. Offers wait in a bounded
// queue as bare names and hold nothing, so a full queue can forget the least wanted, and a block
// may be evicted before its turn. Higher priority goes first, then who came first.
//
// Requests name blocks, where each is and where it is to go. Disk blocks go through host blocks,
// which stay there. Every item ends once: with a hold on the block where it was wanted, or with an
// error; when all have, the request is answered. It ends at its deadline at the latest.
//
// Moves. A copy holds its source and target until it has really ended; until then they are in
// quarantine, whatever has become of the request. Who wants the same copy of the same source waits
// for the one that runs. What a copy brought is registered only with its token, and only while
// somebody still waits for it.
//
// Governor. Loading that would take longer than computing the same tokens is not begun, or ends
// early: see governor.h.
//
// Order. Requests go before offers, stages before loads, and while anything is being onboarded, or
// was a moment ago, offers get only a share of the transfers.
#pragma once

#include <array>
#include <atomic>
#include <boost/container/small_vector.hpp>
#include <boost/unordered/unordered_flat_map.hpp>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "kvbm/offload.h"
#include "tiers/admission.h"
#include "tiers/engine_io.h"
#include "tiers/governor.h"
#include "tiers/transitions.h"
#include "tiers/write_budget.h"

namespace kvbm::detail {

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
  // Of those, while anything is onboarding or was a moment ago; never less than one.
  double offload_share = 0.25;
  std::size_t offload_queue_blocks = 65536;   // per offloading path
  std::size_t request_queue_blocks = 262144;  // that open requests may wait for, all together
  OffloadPolicy device_offload = {};
  OffloadPolicy host_offload = {};
  std::uint64_t disk_bytes_per_day = 0;  // that may be written to the disk tier; 0: any number
  // The host tier is nothing but the way to the disk: the device offloads no faster than the disk
  // takes it.
  bool host_is_transit = false;
  // Copies end, for the engine, in the order in which they began. Then what it does depends on the
  // order of the other events alone, and on time only through deadlines and budgets.
  bool deterministic = false;
};

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
  // Whether an external block is, or is about to be, read or written by a copy.
  bool is_external_busy(BlockId id) const { return externals_.contains(id); }
  const TransferStats& stats() const noexcept { return stats_; }
  const TransitionCounts& reached() const noexcept { return reached_; }

  // Aborts with a message if the books do not balance. O(everything).
  void check_invariants() const;

 private:
  struct ItemRef {
    RequestId request;
    std::size_t index;
  };
  // A copy of one block. It is wanted by items, by the tier below (an offer), or, after its
  // requests have ended, by nobody.
  struct Move {
    ImmutableHold source;  // or none: a peer's or an external block
    BlockId source_id = kNoBlock;
    // Named as its source when the move began: a reset in between counts. Or none: an external
    // block.
    CompleteHold target;
    BlockId target_id = kNoBlock;
    std::shared_ptr<RemoteBlocks> remote;  // a peer's, of which the source is one
    boost::container::small_vector<ItemRef, 1> wanted_by;
    bool is_offer = false;
    bool is_borrowed = false;  // the source is
    StreamOrder order = {};
  };
  // Blocks of one request that go to the device layer by layer: each is verified, then its layers
  // are copied one after the other. They do so in groups, those that are furthest behind first.
  struct LayerRun {
    struct Group {
      std::size_t first;
      std::size_t count;
      std::size_t steps = 0;  // that have ended: the verification and `steps - 1` layers
      bool moving = false;
    };
    std::vector<Move> moves;
    std::vector<std::optional<Result<TransferToken>>> proofs;  // one per move
    std::vector<Group> groups;
    std::size_t told = 0;  // layers
    TimePoint since{};     // when the first copy began
  };
  // A load that must not take longer than computing would.
  struct Watch {
    double prefill_tokens_per_second;
    Governor::Decision decision;
    Governor::LoadStep rest;             // what has not arrived
    std::array<std::uint64_t, 3> ahead;  // items queued before: of stages_, pulls_, loads_
    TimePoint last_arrival;
    TimePoint next_check = TimePoint::max();
  };
  struct Request {
    RequestKind kind;
    TimePoint deadline;
    bool layerwise;
    bool admission;
    StreamOrder order;
    std::vector<RequestItem> items;
    std::vector<std::optional<Result<ImmutableHold>>> outcomes;
    std::size_t open = 0;  // items without an outcome
    bool all_queued = false;
    bool layers_begun = false;
    std::uint64_t failed = 0;
    std::optional<Watch> watch;
  };
  struct Transfer {
    Edge edge;
    std::shared_ptr<std::atomic<bool>> cancelled;
    std::vector<Move> moves;             // of whole blocks; or those of
    std::optional<RequestId> run;        // this run's
    std::size_t group = 0;               // this group, of which
    std::vector<std::size_t> positions;  // these are being moved
  };
  // What a move reads, to find one that somebody else may wait for.
  struct SourceKey {
    Edge edge;
    bool external;
    NamespaceId name_space;
    std::uint64_t what;    // block, or the hash of what an external block holds
    std::uint64_t digest;  // likewise
    friend bool operator==(const SourceKey&, const SourceKey&) = default;
  };
  struct SourceKeyHash {
    std::size_t operator()(const SourceKey& key) const noexcept;
  };
  struct MovePlace {
    TransferId transfer;
    std::size_t index;
  };
  struct ExternalUse {
    std::size_t readers = 0;
    bool is_target = false;
  };
  // Items that wait for a path, in order.
  struct Queue {
    std::deque<ItemRef> items;
    std::uint64_t pushed = 0;  // ever

    bool empty() const noexcept { return items.empty(); }
    const ItemRef& front() const noexcept { return items.front(); }
    void pop() { items.pop_front(); }
    void push(ItemRef ref) {
      items.push_back(ref);
      ++pushed;
    }
    // Of those that were pushed before the `position`-th one, how many wait.
    std::uint64_t waiting_before(std::uint64_t position) const noexcept {
      const std::uint64_t popped = pushed - items.size();
      return position > popped ? position - popped : 0;
    }
  };
  // What is going over a path, and how fast: the bytes that arrive while as many transfers end as
  // are under way.
  struct PathMeter {
    std::size_t transfers = 0;
    std::size_t blocks = 0;  // of them, but not of those that go by layers
    TimePoint since{};
    std::uint64_t bytes = 0;
    std::size_t ends = 0;  // until the next measurement
    std::optional<TimePoint> last_end;
  };
  // Waiting offers, the next one first.
  using Offers = std::map<std::pair<std::uint64_t, std::uint64_t>, BlockKey>;
  // An offloading path: who waits for it and what may take it.
  struct OffloadPath {
    OffloadPolicy policy;
    std::optional<Admission> admission;
    Offers offers;
    std::uint64_t scanned_at = 0;  // allocations of the source pool when it was last looked through
  };

  // engine.cc: what happened.
  void on(BlocksOffered& event);
  void on(RequestStarted& event);
  void on(RequestCancelled& event);
  void on(TransferEnded& event);
  void on(ClockTicked&) {}
  void on(CloseRequested&);
  void end_transfer(TransferId id, TransferResult result);
  void end_moves(Transfer transfer, TransferResult result);
  void land(Edge edge, Move& move, ImmutableHold arrived);
  void fail(Edge edge, Move& move, const Error& error);

  // engine_requests.cc
  void refuse_request(RequestId id, ErrorCode code, Transition how);
  void queue_item(ItemRef ref);
  bool claim_external(const Request& request, const RequestItem& item);
  void release_external(BlockId id);
  void end_request(RequestId id, ErrorCode code, Transition how);
  void cancel_unwanted_transfers();
  bool is_wanted(const Move& move) const;
  RequestItem* find(ItemRef item);
  void settle(ItemRef item, Result<ImmutableHold> outcome);
  void arrived_in_host(ItemRef item, ImmutableHold hold);

  // engine_offers.cc
  OffloadPath& path(Edge edge) { return edge == Edge::DeviceToHost ? from_device_ : from_host_; }
  const OffloadPath& path(Edge edge) const {
    return edge == Edge::DeviceToHost ? from_device_ : from_host_;
  }
  void offer(Edge edge, const OffloadOffer& offer);
  void offer_coldest(Edge edge);
  std::optional<Move> next_offer(Edge edge);
  std::optional<Move> move_of_offer(Edge edge, const BlockKey& key, ImmutableHold& source);
  bool may_offload(Edge edge, const BlockKey& key, std::uint32_t priority);

  // engine_governor.cc: whether to load or to compute.
  std::size_t blocks_to_load(RequestId id, double prefill_tokens_per_second);
  void leave_to_compute(ItemRef ref);
  void note_arrival(RequestId id, const Governor::LoadStep& arrived);
  Governor::LoadStep step_of(const RequestItem& item) const;
  void check_loads();
  void check_load(RequestId id);
  void path_begins(Edge edge, std::size_t blocks);
  void path_ends(Edge edge, std::size_t blocks, std::uint64_t bytes_arrived);

  // engine_moves.cc: new transfers.
  void pump();
  void pump_edge(Edge edge);
  bool is_onboarding(Edge edge);
  std::size_t transfers_allowed(Edge edge);
  std::optional<Move> next_move(Edge edge);
  std::optional<Move> next_load();
  std::optional<Move> next_to_host(Edge edge, Queue& queue);
  std::optional<Move> next_requested_offload();
  bool is_settled_without_copy(Edge edge, ItemRef ref, const RequestItem& item);
  ImmutableHold find_same(TierPool& pool, const RequestItem& item) const;
  SourceKey source_key(Edge edge, const Move& move) const;
  SourceKey source_key(Edge edge, const RequestItem& item) const;
  bool join(const SourceKey& key, std::optional<ItemRef> item);
  Move make_move(Edge edge, RequestItem& item, MutableHold target);
  TransferId open_transfer(Edge edge);
  void add_move(TransferId id, Move move);
  void send(TransferId id);

  // engine_layers.cc
  void begin_layers_if_staged(RequestId id);
  void begin_layers(RequestId id);
  std::size_t blocks_per_group(std::size_t blocks) const;
  void pump_layers();
  void start_layers(RequestId id, LayerRun& run, LayerRun::Group& group);
  void end_layers(Transfer transfer, TransferResult result);
  void finish_layers(LayerRun run);
  void tell_layers(RequestId id, LayerRun& run);
  bool drop_if_over(RequestId id, const LayerRun& run);
  std::size_t num_layers() const;

  void check_items() const;
  void check_moves() const;
  void check_externals() const;

  TierPool& source_pool(Edge edge) const;
  TierPool& target_pool(Edge edge) const;
  std::uint64_t block_bytes() const;
  PathMeter& meter(Edge edge) { return meters_[static_cast<std::size_t>(edge)]; }
  std::size_t in_flight(Edge edge) const {
    return meters_[static_cast<std::size_t>(edge)].transfers;
  }
  EdgeStats& edge_stats(Edge edge) { return stats_.edges[static_cast<std::size_t>(edge)]; }
  void count(Transition transition) noexcept { ++reached_[static_cast<std::size_t>(transition)]; }

  const TierPools pools_;
  const EngineOptions options_;
  std::optional<WriteBudget> disk_budget_;
  TimePoint now_{};  // of this step

  std::map<RequestId, Request> requests_;
  std::set<std::pair<TimePoint, RequestId>> deadlines_;
  std::size_t open_items_ = 0;
  Queue loads_;     // items in the host tier
  Queue stages_;    // items on disk
  Queue pulls_;     // items that peers have
  Queue offloads_;  // items in the device tier
  Governor governor_;
  std::set<std::pair<TimePoint, RequestId>> checks_;  // of requests that are watched
  std::vector<RequestId> arrived_;                    // blocks of them, in this step
  OffloadPath from_device_;
  OffloadPath from_host_;
  std::uint64_t next_offer_ = 0;
  std::map<TransferId, Transfer> transfers_;
  std::map<TransferId, TransferResult> held_back_;  // that ended before their turn
  std::map<RequestId, LayerRun> runs_;              // may outlive their requests
  boost::unordered_flat_map<SourceKey, MovePlace, SourceKeyHash> moving_;
  std::map<BlockId, ExternalUse> externals_;
  std::array<PathMeter, kEdgeCount> meters_;
  TransferId next_transfer_ = 1;
  bool closed_ = false;
  TransferStats stats_;
  TransitionCounts reached_{};
  std::vector<Command> commands_;
};

}  // namespace kvbm::detail
