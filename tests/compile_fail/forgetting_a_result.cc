// A refusal cannot be overlooked: a Result that nobody looks at is a warning.
#include "kvbm/block.h"

void forgetting_a_result(kvbm::MutableBlock<kvbm::DeviceStorage>& block) {
#ifdef SHOULD_FAIL
  block.commit();
#else
  block.commit().value();
#endif
}
