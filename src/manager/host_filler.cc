#include "manager/host_filler.h"

#include <algorithm>

namespace kvbm::detail {

Result<std::unique_ptr<HostFiller>> HostFiller::start(TierPool& pool, std::size_t unit_bytes,
                                                      Prepare prepare) {
  std::unique_ptr<HostFiller> filler(new HostFiller(pool));
  const Memory& memory = pool.layout()->memory(0);
  KVBM_TRY(
      filler->filler_,
      PageFiller::start({memory.data(), memory.bytes()},
                        {.unit_bytes = unit_bytes,
                         .prepare = std::move(prepare),
                         .ready = [raw = filler.get()](std::size_t bytes) { raw->grow(bytes); }}));
  filler->grow(filler->filler_->ready_bytes());
  return filler;
}

void HostFiller::grow(std::size_t ready_bytes) {
  const Layout& layout = *pool_.layout();
  const Region first = layout.extent(0);
  const std::size_t end_of_first = first.offset + first.bytes;
  if (ready_bytes < end_of_first) return;
  const std::size_t whole = 1 + (ready_bytes - end_of_first) / layout.block_stride();
  const std::size_t ready = std::min(whole, layout.config().num_blocks);
  MutexLock lock(mutex_);
  if (ready <= ready_blocks_) return;
  pool_.store().make_ready(ready - ready_blocks_);
  ready_blocks_ = ready;
}

}  // namespace kvbm::detail
