// KvBlockManager: the pools of one worker and the engine that moves blocks between them.
#pragma once

#include <chrono>
#include <memory>
#include <span>

#include "kvbm/completion.h"
#include "kvbm/config.h"
#include "kvbm/pool.h"
#include "kvbm/result.h"
#include "kvbm/tiers.h"

namespace kvbm {

namespace detail {
struct ManagerCore;
struct ManagerAccess;
}  // namespace detail

// Thread-safe but for moving and close(). Blocks registered in a tier are copied to the tier below
// in the background.
class KvBlockManager {
 public:
  // Allocates every tier. Errors: InvalidConfig naming the field; errors of the allocators.
  static Result<KvBlockManager> create(const KvBlockManagerConfig& config);
  KvBlockManager(KvBlockManager&&) noexcept;
  KvBlockManager& operator=(KvBlockManager&&) noexcept;
  ~KvBlockManager();  // close()

  std::size_t block_size() const noexcept;  // tokens
  WorkerID worker_id() const noexcept;
  // Null where the tier is not configured. Valid as long as the manager.
  BlockPool<DeviceStorage>* device() noexcept;
  BlockPool<PinnedStorage>* host() noexcept;
  BlockPool<DiskStorage>* disk() noexcept;

  // Cost: one hash probe per block and tier tried; takes no lock for longer than one tier's share.
  Lookup lookup(std::span<const SequenceHash> hashes);

  // Brings every block of the lookup into the device tier; blocks that are there stay. Returns at
  // once. Errors: NotEnoughBlocksAvailable{requested, available} if the device tier has too few
  // blocks; ProgressEngineShutdown after close().
  Result<Completion<OnboardResult>> onboard(Lookup lookup, OnboardOptions options = {});

  // Waits until nothing is queued or moving; false if that took longer than `timeout`.
  bool drain(std::chrono::nanoseconds timeout);

  TransferStats transfer_stats() const;

  // Ends every request with Cancelled, drops queued offloads, waits for running copies. Handles
  // stay valid. Idempotent.
  void close();

 private:
  friend struct detail::ManagerAccess;
  explicit KvBlockManager(std::unique_ptr<detail::ManagerCore> core);
  std::unique_ptr<detail::ManagerCore> core_;
};

}  // namespace kvbm
