#include "tiers/restored_holds.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <span>
#include <system_error>

namespace kvbm {
namespace {

// About 50 us under the store's mutex, and then as long without it: a mutex that is taken again at
// once may starve those who sleep for it.
constexpr std::size_t kAtATime = 1024;
constexpr std::chrono::microseconds kPause{50};

}  // namespace

RestoredHolds::RestoredHolds(BlockStore& store, std::vector<RestoredHold> holds)
    : store_(store), holds_(std::move(holds)) {
  try {
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  } catch (const std::system_error&) {
    run({});
  }
}

// The last release may delete the store, which is not touched after it.
void RestoredHolds::run(const std::stop_token& stop) noexcept {
  if (!stop.stop_requested()) {
    std::sort(holds_.begin(), holds_.end(), [](const RestoredHold& a, const RestoredHold& b) {
      return a.put_sequence < b.put_sequence;
    });
  }
  std::array<BlockId, kAtATime> ids;
  for (std::size_t done = 0; done < holds_.size();) {
    const std::size_t count = std::min(ids.size(), holds_.size() - done);
    for (std::size_t i = 0; i < count; ++i) ids[i] = holds_[done + i].id;
    done += count;
    const auto chunk = std::span<const BlockId>(ids).first(count);
    if (!stop.stop_requested()) store_.announce(chunk);
    store_.release(chunk);
    if (!stop.stop_requested()) std::this_thread::sleep_for(kPause);
  }
  std::vector<RestoredHold>().swap(holds_);
  has_ended_.store(true, std::memory_order_release);
  has_ended_.notify_all();
}

}  // namespace kvbm
