// The storage type names the tier, so a host block cannot be registered in a device pool.
#include "kvbm/pool.h"

void host_block_in_device_pool(kvbm::BlockPool<kvbm::DeviceStorage>& pool) {
#ifdef SHOULD_FAIL
  kvbm::MutableBlocks<kvbm::PinnedStorage> blocks;
#else
  kvbm::MutableBlocks<kvbm::DeviceStorage> blocks;
#endif
  pool.register_blocks_blocking(std::move(blocks)).value();
}
