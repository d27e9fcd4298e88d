// The pool's memory holds objects of its own metadata type, so a block of another one is refused.
#include "kvbm/pool.h"

struct MyMetadata {
  void on_acquired(std::uint64_t) {}
  void on_returned(std::uint64_t) {}
  void reset_metadata() {}
  std::optional<std::uint64_t> offload_priority() const { return std::nullopt; }
};

using Mine = kvbm::BlockPool<kvbm::DeviceStorage, kvbm::locality::Local, MyMetadata>;

void block_of_other_metadata(Mine& pool) {
#ifdef SHOULD_FAIL
  kvbm::MutableBlocks<kvbm::DeviceStorage> blocks;
#else
  kvbm::MutableBlocks<kvbm::DeviceStorage, kvbm::locality::Local, MyMetadata> blocks;
#endif
  pool.register_blocks_blocking(std::move(blocks)).value();
}
