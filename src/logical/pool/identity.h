// What a block is, apart from its bytes.
#pragma once

#include <cstdint>

#include "kvbm/types.h"

namespace kvbm {

struct BlockIdentity {
  SequenceHash sequence_hash;
  SequenceHash parent_hash;       // of the block before it; meaningless at position 0
  std::uint32_t position = 0;     // blocks before it in its sequence
  std::uint32_t token_count = 0;  // at most MAX_PAGE_SIZE
  std::uint64_t digest = 0;       // keyed, of the whole prefix; 0 without a key
  NamespaceId name_space = 0;
  // Of its namespace in its store when it was named; and whether that is over. A block that takes
  // over the identity of a forgotten one is forgotten from the start.
  std::uint16_t epoch = 0;
  bool forgotten = false;
};

}  // namespace kvbm
