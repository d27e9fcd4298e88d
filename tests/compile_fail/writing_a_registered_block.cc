// A registered block is shared, so nothing shows its bytes for writing.
#include "kvbm/block.h"

void writing_a_registered_block(kvbm::ImmutableBlock<kvbm::DeviceStorage>& block) {
#ifdef SHOULD_FAIL
  block.layer_view_mut(0, 0).value();
#else
  block.layer_view(0, 0).value();
#endif
}
