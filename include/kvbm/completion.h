// The answer to a request that may still be running. Poll it, wait for it, co_await it, or cancel
// it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <coroutine>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <variant>

namespace kvbm {

namespace detail {

// Waits busily for a moment, at most until `deadline`: what small blocks take, and less than it may
// take to be given the CPU again after sleeping beside busy threads. Returns whether it is done.
bool is_done_soon(const std::atomic<bool>& done,
                  std::chrono::steady_clock::time_point deadline) noexcept;

// Shared by the Completion and whoever finishes it. Thread-safe.
template <class T>
class CompletionState {
 public:
  // Requires: called once.
  void finish(T value) {
    std::coroutine_handle<> waiter;
    {
      std::lock_guard lock(mutex_);
      value_.emplace(std::move(value));
      done_.store(true, std::memory_order_release);
      waiter = std::exchange(waiter_, nullptr);
    }
    finished_.notify_all();
    if (waiter) waiter.resume();
  }
  // False if it is done already; otherwise finish() resumes the coroutine, on its own thread.
  bool suspend(std::coroutine_handle<> waiter) {
    std::lock_guard lock(mutex_);
    if (value_) return false;
    waiter_ = waiter;
    return true;
  }
  // One load: engines ask once per step.
  bool done() const noexcept { return done_.load(std::memory_order_acquire); }
  void wait() const {
    if (is_done_soon(done_, std::chrono::steady_clock::time_point::max())) return;
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [this] { return value_.has_value(); });
  }
  bool wait_until(std::chrono::steady_clock::time_point deadline) const {
    if (is_done_soon(done_, deadline)) return true;
    std::unique_lock lock(mutex_);
    return finished_.wait_until(lock, deadline, [this] { return value_.has_value(); });
  }
  T take() {
    wait();
    std::lock_guard lock(mutex_);
    return std::move(*value_);
  }

  // Set before the Completion is handed out. `cancel` asks for an early end; `attachment` lives as
  // long as this.
  std::function<void()> cancel;
  std::shared_ptr<void> attachment;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable finished_;
  std::optional<T> value_;
  std::atomic<bool> done_{false};
  std::coroutine_handle<> waiter_;
};

}  // namespace detail

// Move-only. Destroying it neither cancels the request nor frees memory under a running copy: the
// request keeps its blocks until the copy has ended. Every request ends, at the latest at its
// deadline.
template <class T>
class [[nodiscard]] Completion {
 public:
  // Finished already; allocates nothing.
  explicit Completion(T value) : state_(std::move(value)) {}
  explicit Completion(std::shared_ptr<detail::CompletionState<T>> state)
      : state_(std::move(state)) {}

  Completion(Completion&&) = default;
  Completion& operator=(Completion&&) = default;

  // Never blocks: one atomic load.
  bool done() const noexcept { return is_ready() || running().done(); }
  void wait() const {
    if (!is_ready()) running().wait();
  }
  // Whether it is done after at most `duration`, or at `deadline`.
  bool wait_for(std::chrono::nanoseconds duration) const {
    if (done()) return true;
    const auto now = std::chrono::steady_clock::now();
    // A duration that no clock can hold means for ever.
    constexpr auto kEver = std::chrono::steady_clock::time_point::max();
    return wait_until(duration < kEver - now ? now + duration : kEver);
  }
  bool wait_until(std::chrono::steady_clock::time_point deadline) const {
    if (done()) return true;
    if (deadline != std::chrono::steady_clock::time_point::max()) {
      return running().wait_until(deadline);
    }
    wait();
    return true;
  }
  // Best effort: what has not ended by then ends with Cancelled.
  void cancel() {
    if (!is_ready() && running().cancel) running().cancel();
  }
  // Waits and gives the answer away; call it once.
  T get() && {
    if (is_ready()) return std::move(std::get<T>(state_));
    return running().take();
  }

  // For co_await. A coroutine that had to wait goes on where the request ended, on a thread of the
  // library: it must not block there. Keep the Completion alive meanwhile; as a temporary of the
  // co_await expression it is.
  bool await_ready() const { return done(); }
  bool await_suspend(std::coroutine_handle<> waiter) { return running().suspend(waiter); }
  T await_resume() { return std::move(*this).get(); }

 private:
  bool is_ready() const noexcept { return std::holds_alternative<T>(state_); }
  detail::CompletionState<T>& running() const {
    return *std::get<std::shared_ptr<detail::CompletionState<T>>>(state_);
  }

  std::variant<T, std::shared_ptr<detail::CompletionState<T>>> state_;
};

}  // namespace kvbm
