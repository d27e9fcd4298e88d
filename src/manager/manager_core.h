// What a KvBlockManager owns, in the order in which it is built; it is taken down in reverse.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "kvbm/manager.h"
#include "tiers/driver.h"

namespace kvbm::detail {

struct ManagerCore {
  KvManagerRuntimeConfig runtime;
  std::size_t block_size = 0;  // tokens
  std::unique_ptr<TierPool> device_pool;
  std::unique_ptr<TierPool> host_pool;
  std::unique_ptr<TierPool> disk_pool;
  std::optional<BlockPool<DeviceStorage>> device;
  std::optional<BlockPool<PinnedStorage>> host;
  std::optional<BlockPool<DiskStorage>> disk;
  // Shared, because a Completion that outlives the manager may still ask to cancel. After close()
  // the driver touches no pool.
  std::shared_ptr<TierDriver> driver;

  ~ManagerCore() {
    if (driver) driver->close();
  }
};

// Replaces the executor that the manager would use: tests inject faults through it.
using WrapExecutor =
    std::function<std::unique_ptr<TransferExecutor>(std::unique_ptr<TransferExecutor>)>;

// The way of tests into a manager.
struct ManagerAccess {
  static Result<KvBlockManager> create(const KvBlockManagerConfig& config,
                                       const WrapExecutor& wrap);
  static ManagerCore& core(KvBlockManager& manager) { return *manager.core_; }
};

}  // namespace kvbm::detail
