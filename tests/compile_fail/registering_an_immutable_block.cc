// What is registered cannot be registered again.
#include "kvbm/pool.h"

void registering_an_immutable_block(kvbm::BlockPool<kvbm::DeviceStorage>& pool) {
#ifdef SHOULD_FAIL
  kvbm::ImmutableBlocks<kvbm::DeviceStorage> blocks;
#else
  std::vector<kvbm::CompleteBlock<kvbm::DeviceStorage> > blocks;
#endif
  pool.register_blocks_blocking(std::move(blocks)).value();
}
