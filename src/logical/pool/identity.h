// What a block is, apart from its bytes.
#pragma once

#include <cstdint>

#include "kvbm/types.h"

namespace kvbm {

struct BlockIdentity {
  SequenceHash sequence_hash;
  SequenceHash parent_hash;    // of the block before it; meaningless at position 0
  std::uint32_t position = 0;  // blocks before it in its sequence
  std::uint32_t token_count = 0;
};

}  // namespace kvbm
