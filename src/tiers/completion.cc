#include "kvbm/completion.h"

#include <algorithm>

#include "base/relax.h"

namespace kvbm::detail {

bool is_done_soon(const std::atomic<bool>& done,
                  std::chrono::steady_clock::time_point deadline) noexcept {
  constexpr std::chrono::microseconds kMoment{50};
  if (!has_other_cores()) return done.load(std::memory_order_acquire);
  const auto until = std::min(deadline, std::chrono::steady_clock::now() + kMoment);
  return relax_until([&done] { return done.load(std::memory_order_acquire); }, until);
}

}  // namespace kvbm::detail
