// Makes the kernel find, zero and lock the pages of a mapping while their owner uses the first of
// them already.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>

#include "base/mutex.h"
#include "kvbm/result.h"

namespace kvbm {

// Thread-safe.
class PageFiller {
 public:
  struct Options {
    // Pieces end at addresses that are multiples of it, or with the memory.
    std::size_t unit_bytes = 1;
    // Called for each piece after its pages are there, such as to register it with a driver. An
    // error ends the filling.
    std::function<Result<void>(std::span<std::byte>)> prepare = {};
    // Told the bytes that are ready, counted from the front; on the filler's thread.
    std::function<void(std::size_t)> ready = {};
  };
  // The first piece is ready on return: 4 MiB, and up to the end of a unit. `ready` is not called
  // for it. Errors: AllocationFailed{bytes, ready bytes} with errno if the kernel has no more
  // pages; OperationFailed if it gives no thread; those of `prepare`.
  static Result<std::unique_ptr<PageFiller>> start(std::span<std::byte> memory, Options options);
  ~PageFiller();  // stop(), and waits for it
  // Ends the filling after the piece at hand.
  void stop() noexcept { thread_.request_stop(); }

  std::size_t ready_bytes() const noexcept { return ready_bytes_.load(std::memory_order_acquire); }
  // Waits until all is ready. Errors: TimedOut or, after stop(), ProgressEngineShutdown {bytes,
  // ready bytes}; what ended the filling before.
  Result<void> wait(std::chrono::nanoseconds timeout) const KVBM_EXCLUDES(mutex_);

 private:
  PageFiller(std::span<std::byte> memory, Options options)
      : memory_(memory), options_(std::move(options)) {}
  Result<void> fill_piece(std::size_t bytes);
  void run(std::stop_token stop) KVBM_EXCLUDES(mutex_);

  const std::span<std::byte> memory_;
  const Options options_;
  std::atomic<std::size_t> ready_bytes_{0};
  mutable Mutex mutex_;
  mutable CondVar changed_;
  std::optional<Error> failure_ KVBM_GUARDED_BY(mutex_);
  bool ended_ KVBM_GUARDED_BY(mutex_) = false;
  std::jthread thread_;
};

}  // namespace kvbm
