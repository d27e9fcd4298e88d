#include "store/health.h"

#include <algorithm>
#include <cerrno>

namespace kvbm {

const char* to_string(DiskHealth health) noexcept {
  switch (health) {
    case DiskHealth::Healthy: return "healthy";
    case DiskHealth::ReadOnly: return "read-only";
    case DiskHealth::Off: return "off";
  }
  return "unknown";
}

namespace store {
namespace {

// Errors that no second attempt will do without.
bool is_final(const Error& error) {
  return error.native == ENOSPC || error.native == EROFS || error.native == EDQUOT;
}

Clock::rep count(Clock::time_point time) { return time.time_since_epoch().count(); }

}  // namespace

std::string Health::reason() const {
  MutexLock lock(mutex_);
  return reason_locked();
}

std::string Health::reason_locked() const {
  if (stalled_) {
    return "the disk has answered nothing for " + std::to_string(stall_timeout_.count()) + " ms";
  }
  if (!fault(Op::Read).reason.empty()) return fault(Op::Read).reason;
  if (!fault(Op::Write).reason.empty()) return fault(Op::Write).reason;
  return removed_ ? "the store's files were removed" : "";
}

void Health::began(Clock::time_point now) noexcept {
  if (under_way_.fetch_add(1, std::memory_order_relaxed) == 0) {
    last_progress_.store(count(now), std::memory_order_relaxed);
  }
}

void Health::ended(Op op, const Result<void>& result, Clock::time_point now) {
  under_way_.fetch_sub(1, std::memory_order_relaxed);
  last_progress_.store(count(now), std::memory_order_relaxed);
  {
    MutexLock lock(mutex_);
    stalled_ = false;
    Fault& its = fault(op);
    if (result) {
      its.in_a_row = 0;
      if (++good_in_a_row_ >= kGoodInARow) pause_ = kFirstProbe;
    } else {
      good_in_a_row_ = 0;
      errors_[static_cast<std::size_t>(op)].fetch_add(1, std::memory_order_relaxed);
      const std::size_t enough = op == Op::Write ? kWriteErrorsInARow : kReadErrorsInARow;
      if ((++its.in_a_row >= enough || is_final(result.error())) && its.reason.empty()) {
        its.reason = result.error().to_string();
        next_probe_ = now + pause_;
      }
    }
  }
  update();
}

bool Health::seems_to_hang(Clock::time_point now) const noexcept {
  if (under_way_.load(std::memory_order_relaxed) == 0) return false;
  const Clock::duration silent(count(now) - last_progress_.load(std::memory_order_relaxed));
  return silent >= stall_timeout_;
}

void Health::check(Clock::time_point now, bool is_removed) {
  {
    MutexLock lock(mutex_);
    stalled_ = seems_to_hang(now);
    removed_ = is_removed;
  }
  update();
}

bool Health::wants_probe(Clock::time_point now) const {
  MutexLock lock(mutex_);
  return next_probe_ && *next_probe_ <= now && !stalled_;
}

void Health::probed(const Result<void>& read, const Result<void>& write, Clock::time_point now) {
  {
    MutexLock lock(mutex_);
    if (read) fault(Op::Read) = {};
    if (write) fault(Op::Write) = {};
    pause_ = std::min(pause_ * 2, kLongestPause);  // for the next time
    if (read && write) {
      next_probe_.reset();
    } else {
      next_probe_ = now + pause_;
    }
  }
  update();
}

void Health::update() {
  std::string why;
  DiskHealth now = DiskHealth::Healthy;
  {
    MutexLock lock(mutex_);
    if (removed_ || !fault(Op::Write).reason.empty()) now = DiskHealth::ReadOnly;
    if (stalled_ || !fault(Op::Read).reason.empty()) now = DiskHealth::Off;
    if (state_.exchange(now, std::memory_order_relaxed) == now) return;
    why = reason_locked();
  }
  if (changed_) changed_(now, why);
}

}  // namespace store
}  // namespace kvbm
