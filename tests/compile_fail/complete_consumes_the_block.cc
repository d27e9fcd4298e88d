// complete() gives the block away, and its caller must say so: no use of the block afterwards looks
// like a use of a block.
#include "kvbm/block.h"

void complete_consumes_the_block(kvbm::MutableBlock<kvbm::DeviceStorage>& block,
                                 const kvbm::TokenBlock& tokens) {
#ifdef SHOULD_FAIL
  auto complete = block.complete(tokens);
#else
  auto complete = std::move(block).complete(tokens);
#endif
  complete.value();
}
