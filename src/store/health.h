// Whether a disk can be used, judged by what becomes of the operations on it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/mutex.h"
#include "kvbm/result.h"
#include "kvbm/store.h"

namespace kvbm::store {

using Clock = std::chrono::steady_clock;

// Errors in a row make the disk read-only (writes) or off (reads); a full or read-only file system
// does at once. While operations are under way and none ends, the disk hangs and is off. Whoever
// runs the store probes it from time to time: a probe that succeeds makes it healthy again.
//
// Thread-safe; state(), seems_to_hang() and began() are lock-free. The clock comes in with every
// call.
class Health {
 public:
  enum class Op : std::uint8_t { Read, Write };
  static constexpr std::size_t kWriteErrorsInARow = 3;
  static constexpr std::size_t kReadErrorsInARow = 8;
  static constexpr std::chrono::seconds kFirstProbe{1};  // then twice as long each time
  static constexpr std::chrono::seconds kLongestPause{60};
  // Operations in a row that succeed before probes may begin at kFirstProbe again: a disk that
  // passes its probes and then fails is not taken back every second.
  static constexpr std::size_t kGoodInARow = 64;

  // Called with no lock held when the state changes.
  using Changed = std::function<void(DiskHealth, const std::string& reason)>;
  Health(std::chrono::milliseconds stall_timeout, Changed changed)
      : stall_timeout_(stall_timeout), changed_(std::move(changed)) {}

  // As it was found last.
  DiskHealth state() const noexcept { return state_.load(std::memory_order_relaxed); }
  // Whether operations are under way and none has ended for too long: check() will say so.
  bool seems_to_hang(Clock::time_point now) const noexcept;
  std::string reason() const;

  // Around every operation.
  void began(Clock::time_point now) noexcept;
  void ended(Op op, const Result<void>& result, Clock::time_point now);

  // Now and then: whether the disk hangs, and whether the store's files are gone.
  void check(Clock::time_point now, bool is_removed);
  // Whether it is time for a probe, and how it ended: whether a read and a write succeeded.
  bool wants_probe(Clock::time_point now) const;
  void probed(const Result<void>& read, const Result<void>& write, Clock::time_point now);

  std::uint64_t errors(Op op) const noexcept {
    return errors_[static_cast<std::size_t>(op)].load(std::memory_order_relaxed);
  }

 private:
  struct Fault {
    std::size_t in_a_row = 0;
    std::string reason = {};  // empty: none
  };
  Fault& fault(Op op) KVBM_REQUIRES(mutex_) { return faults_[static_cast<std::size_t>(op)]; }
  const Fault& fault(Op op) const KVBM_REQUIRES(mutex_) {
    return faults_[static_cast<std::size_t>(op)];
  }
  std::string reason_locked() const KVBM_REQUIRES(mutex_);
  // Brings the state up to date; tells it if it has changed.
  void update() KVBM_EXCLUDES(mutex_);

  const std::chrono::milliseconds stall_timeout_;
  const Changed changed_;
  std::atomic<DiskHealth> state_{DiskHealth::Healthy};
  std::atomic<std::uint64_t> under_way_{0};
  std::atomic<Clock::rep> last_progress_{0};  // when one began while none was, or ended
  std::array<std::atomic<std::uint64_t>, 2> errors_{};

  mutable Mutex mutex_;
  std::array<Fault, 2> faults_ KVBM_GUARDED_BY(mutex_);
  bool stalled_ KVBM_GUARDED_BY(mutex_) = false;
  bool removed_ KVBM_GUARDED_BY(mutex_) = false;
  std::optional<Clock::time_point> next_probe_ KVBM_GUARDED_BY(mutex_);
  std::chrono::seconds pause_ KVBM_GUARDED_BY(mutex_) = kFirstProbe;  // before the next probe
  std::size_t good_in_a_row_ KVBM_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvbm::store
