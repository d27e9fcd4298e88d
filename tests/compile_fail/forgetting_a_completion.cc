// Nor can the answer of an asynchronous call.
#include "kvbm/pool.h"

void forgetting_a_completion(kvbm::BlockPool<kvbm::DeviceStorage>& pool) {
#ifdef SHOULD_FAIL
  pool.allocate_blocks(1);
#else
  pool.allocate_blocks(1).get().value();
#endif
}
