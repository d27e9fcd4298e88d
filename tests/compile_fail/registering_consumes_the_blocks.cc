// Registration takes the handles, and its caller must say so: nobody keeps one to write with.
#include "kvbm/pool.h"

void registering_consumes_the_blocks(kvbm::BlockPool<kvbm::DeviceStorage>& pool,
                                     kvbm::MutableBlocks<kvbm::DeviceStorage>& blocks) {
#ifdef SHOULD_FAIL
  pool.register_blocks_blocking(blocks).value();
#else
  pool.register_blocks_blocking(std::move(blocks)).value();
#endif
}
