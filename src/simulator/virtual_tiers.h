// Three tiers, the engine between them and a clock that jumps: what a manager does, without a
// thread. Blocks are small and real: they are copied, summed and verified as everywhere else.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "observe/event_sink.h"
#include "platform/os/fake_file.h"
#include "simulator/faults.h"
#include "simulator/virtual_peer.h"
#include "tiers/disk_tier.h"
#include "tiers/engine.h"
#include "tiers/lookup.h"

namespace kvbm::simulator {

// The files of a disk tier that survives.
struct DiskFiles {
  std::shared_ptr<FakeFile> manifest = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> index = std::make_shared<FakeFile>(0);
  std::shared_ptr<FakeFile> blocks = std::make_shared<FakeFile>(0);
};

// How long a copy takes.
struct EdgeSpeed {
  std::chrono::nanoseconds latency{0};
  double bytes_per_second = 0;  // 0: infinitely many
};

inline constexpr std::size_t kPageSize = 4;  // tokens of a block
inline constexpr std::size_t kOuterDim = 2;  // regions of a block and layer

struct VirtualConfig {
  std::size_t device_blocks = 0;
  bool external_device = false;  // the engine hands its blocks out
  std::size_t host_blocks = 0;   // 0: there is none, and no disk
  std::size_t disk_blocks = 0;   // 0: there is none
  std::size_t layers = 1;
  std::size_t region_bytes = 8;
  EvictionPolicy device_policy = EvictionPolicy::Lru;
  EvictionPolicy host_policy = EvictionPolicy::Lru;
  EvictionPolicy disk_policy = EvictionPolicy::Lru;
  detail::EngineOptions engine = {};
  std::array<EdgeSpeed, kEdgeCount> speeds = {};  // by Edge
  double bytes_per_block = 0;                     // for the speeds; 0: those that the blocks have
  // Set: the disk tier survives in them; otherwise it is a file that nobody keeps.
  std::optional<DiskFiles> files = std::nullopt;
  std::shared_ptr<VirtualPeer> peer = nullptr;  // another worker; null: there is none
  std::shared_ptr<EventSink> events = nullptr;
  TimePoint start = TimePoint(std::chrono::seconds(1));
};

// The blocks of a tier, or of a peer's host tier.
LayoutConfig shape_of(const VirtualConfig& config, Tier tier, std::size_t blocks);

// What becomes of one block's copy; nothing bad by default.
struct BlockFault {
  std::optional<FaultKind> kind = std::nullopt;  // Error, Short or WrongBytes
  std::uint64_t random = 0;                      // where
};
// What becomes of a transfer.
struct TransferFault {
  std::chrono::nanoseconds delay{0};
  bool never = false;                   // it ends when end_hanging() says so
  std::vector<BlockFault> blocks = {};  // one per block, or none
};

// Not thread-safe. Whoever registers blocks in a pool has them offered to the tier below.
class VirtualTiers {
 public:
  using Finished = std::function<void(std::vector<Result<detail::ImmutableHold>>)>;
  using LayersArrived = std::function<void(std::size_t layers)>;
  using MakeFault = std::function<TransferFault(const detail::StartTransfer&)>;

  // Errors: those of the pools and of DiskTier::open().
  static Result<std::unique_ptr<VirtualTiers>> create(const VirtualConfig& config);
  // As a process that dies: requests get no answer, and the blocks of a running write to the disk
  // may hold anything.
  ~VirtualTiers();

  // Asked at the beginning of every transfer.
  void set_faults(MakeFault make_fault) { make_fault_ = std::move(make_fault); }

  TimePoint now() const noexcept { return now_; }
  detail::TierPool* pool(Tier tier) const noexcept;  // null if there is none
  const detail::TierEngine& engine() const noexcept { return *engine_; }
  detail::PlanTable& plans() noexcept { return *plans_; }
  const std::shared_ptr<detail::PlanTable>& shared_plans() const noexcept { return plans_; }
  detail::TierPools pools() const noexcept { return pools_; }
  std::size_t layers() const noexcept { return config_.layers; }

  // `finished` is called once, from one of the calls below or from this one.
  detail::RequestId start(detail::RequestStarted request, Finished finished,
                          LayersArrived layers_arrived = {});
  void cancel(detail::RequestId id) { step(detail::RequestCancelled{id}); }
  void close() { step(detail::CloseRequested{}); }
  void offered(Tier tier, std::vector<detail::OffloadOffer> offers) {
    step(detail::BlocksOffered{tier, std::move(offers)});
  }

  // Goes to the next thing that happens, if it is not after `until`; false if there is none, and
  // then it is `until`.
  bool advance(TimePoint until);
  // Until nothing is queued or moving.
  void drain();
  // Ends the transfers that hang; how many there were.
  std::size_t end_hanging();

  // The edges on which something moves now.
  std::set<Edge> moving() const;
  void check_invariants() const;

 private:
  struct Running {
    detail::StartTransfer command;
    TransferFault fault;
  };
  struct Waiting {
    Finished finished;
    LayersArrived layers_arrived;
    TimePoint deadline;
  };

  explicit VirtualTiers(const VirtualConfig& config);
  Result<void> build();
  Result<std::shared_ptr<detail::TierPool>> build_pool(Tier tier, std::size_t blocks,
                                                       EvictionPolicy policy);
  Result<std::shared_ptr<detail::TierPool>> build_store();
  void step(detail::Event event);
  void carry_out(std::vector<detail::Command> commands);
  void begin(detail::StartTransfer command);
  void end(Running running);
  Result<TransferToken> move(const Running& running, std::size_t block,
                             const TransferRequest& request);
  void damage(const Running& running, std::size_t block, bool source);
  std::optional<TimePoint> next_time() const;
  void require_later(const std::optional<TimePoint>& time, const char* what) const;

  const VirtualConfig config_;
  TimePoint now_;
  std::shared_ptr<detail::TierPool> device_, host_, disk_;
  detail::TierPools pools_;
  std::shared_ptr<detail::PlanTable> plans_ = std::make_shared<detail::PlanTable>();
  std::unique_ptr<detail::TierEngine> engine_;
  std::array<std::shared_ptr<const CopyPlan>, kEdgeCount> whole_;
  std::vector<std::shared_ptr<const CopyPlan>> by_layer_;
  MakeFault make_fault_;
  std::multimap<TimePoint, Running> running_;
  std::array<TimePoint, kEdgeCount> edge_free_{};  // when the bytes before have gone over it
  std::vector<Running> hanging_;
  std::map<detail::RequestId, Waiting> waiting_;
  detail::RequestId next_request_ = 1;
};

}  // namespace kvbm::simulator
