// Gives the host tier its blocks as the pages of its memory come.
#pragma once

#include <functional>
#include <memory>

#include "base/mutex.h"
#include "platform/os/page_filler.h"
#include "tiers/tier_pool.h"

namespace kvbm::detail {

// Thread-safe. End it before its pool.
class HostFiller {
 public:
  using Prepare = std::function<Result<void>(std::span<std::byte>)>;

  // The first blocks can be allocated on return, the others follow. `prepare` may be empty; see
  // PageFiller for it and for `unit_bytes`. Requires: a pool of contiguous blocks in memory, none
  // of them ready. Errors: those of PageFiller::start().
  static Result<std::unique_ptr<HostFiller>> start(TierPool& pool, std::size_t unit_bytes,
                                                   Prepare prepare);

  // No more blocks come, once the piece at hand is there.
  void stop() noexcept { filler_->stop(); }
  // Waits until every block is there. Errors: those of PageFiller::wait().
  Result<void> wait(std::chrono::nanoseconds timeout) const { return filler_->wait(timeout); }

 private:
  explicit HostFiller(TierPool& pool) : pool_(pool) {}
  void grow(std::size_t ready_bytes) KVBM_EXCLUDES(mutex_);

  TierPool& pool_;
  Mutex mutex_;
  std::size_t ready_blocks_ KVBM_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<PageFiller> filler_;
};

}  // namespace kvbm::detail
