// A rate that may be exceeded for a while.
#pragma once

#include <algorithm>
#include <chrono>

namespace kvbm::detail {

// Begins full. Not thread-safe; time comes in with every call and does not go back.
class TokenBucket {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  TokenBucket(double per_second, double capacity)
      : per_second_(per_second), capacity_(capacity), left_(capacity) {}

  // What may be taken now.
  double left(TimePoint now) noexcept {
    if (begun_ && now > filled_) {
      const double seconds = std::chrono::duration<double>(now - filled_).count();
      left_ = std::min(left_ + seconds * per_second_, capacity_);
    }
    if (!begun_ || now > filled_) filled_ = now;
    begun_ = true;
    return left_;
  }
  void take(double amount) noexcept { left_ -= amount; }

  double left() const noexcept { return left_; }  // when it was asked last
  double capacity() const noexcept { return capacity_; }

 private:
  const double per_second_;
  const double capacity_;
  double left_;
  TimePoint filled_{};  // when `left_` was right
  bool begun_ = false;
};

}  // namespace kvbm::detail
