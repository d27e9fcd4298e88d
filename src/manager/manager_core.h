// What a KvBlockManager owns, in the order in which it is built; it is taken down in reverse.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "kvbm/manager.h"
#include "leader/rank_server.h"
#include "manager/host_filler.h"
#include "manager/nixl_runtime.h"
#include "manager/own_worker.h"
#include "manager/tier_plan_service.h"
#include "manager/tier_sharing.h"
#include "observe/event_dispatcher.h"
#include "remote/peer_server.h"
#include "remote/peers.h"
#include "tiers/driver.h"

namespace kvbm::detail {

struct ManagerCore {
  KvManagerRuntimeConfig runtime;
  std::size_t block_size = 0;    // tokens
  bool external = false;         // the engine hands out the device tier's blocks
  bool host_is_transit = false;  // it is only the way to the disk, and nobody sees it
  AdmissionRule device_rule = AdmissionRule::All;
  AdmissionRule host_rule = AdmissionRule::All;
  AdmissionRule offload_rule(Tier tier) const noexcept {
    return tier == Tier::Device ? device_rule : host_rule;
  }
  std::vector<std::string> transfer_paths;
  std::shared_ptr<EventDispatcher> events;
  std::shared_ptr<TierPool> device;
  std::shared_ptr<TierPool> host;
  std::shared_ptr<TierPool> disk;
  std::unique_ptr<NixlRuntime> nixl;        // null unless it was asked for
  std::unique_ptr<HostFiller> host_filler;  // null where the host tier is whole from the start
  std::unique_ptr<OwnWorker> own_worker;    // null unless blocks are shared
  std::unique_ptr<remote::Peers> peers;     // null where there are none; the driver pulls from them
  // Shared, because a Completion that outlives the manager may still ask to cancel. After close()
  // the driver touches no pool.
  std::shared_ptr<TierDriver> driver;
  std::unique_ptr<TierPlanService> plan_service;  // null unless leaders are answered
  std::unique_ptr<leader::RankServer> rank_server;
  std::unique_ptr<TierSharing> sharing;  // null unless peers are answered
  std::unique_ptr<remote::PeerServer> peer_server;
  std::optional<std::stop_callback<std::function<void()>>> closer;

  // Leaders and peers first, who would get plans of a manager that is going; then pools, so that
  // nobody registers for its driver; then requests and copies; then the events of all that.
  void close();
  ~ManagerCore();
};

// How the engine of such a manager works, whose blocks have so many bytes: for the manager, and for
// whoever simulates it. Requires: a valid configuration.
EngineOptions engine_options(const KvBlockManagerConfig& config, std::size_t block_bytes,
                             bool has_cuda_device);

// Replaces the executor that the manager would use: tests inject faults through it.
using WrapExecutor =
    std::function<std::unique_ptr<TransferExecutor>(std::unique_ptr<TransferExecutor>)>;

Result<ManagerCorePtr> build_manager(const KvBlockManagerConfig& config,
                                     const MetadataTable* metadata, const WrapExecutor& wrap);

// The way of tests into a manager.
struct ManagerAccess {
  static Result<ReferenceBlockManager> create(const KvBlockManagerConfig& config,
                                              const WrapExecutor& wrap) {
    KVBM_TRY(auto core, build_manager(config, nullptr, wrap));
    return ReferenceBlockManager(std::move(core));
  }
  template <class M>
  static ManagerCore& core(KvBlockManager<M>& manager) {
    return *manager.core_;
  }
};

}  // namespace kvbm::detail
