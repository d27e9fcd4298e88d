// Real transfers that go wrong: another executor with the faults of the simulator, drawn from a
// seed. For tests, and for replays that want to see them.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "physical/transfer/transfer.h"
#include "simulator/faults.h"

namespace kvbm::simulator {

struct InjectedFault {
  FaultKind kind;
  std::uint64_t random;  // where
};

// Decides what goes wrong, and counts it. The faults of a block's copy depend on the seed, the
// edge, the target and how often that was a target before, not on the order of threads.
// Thread-safe.
class FaultInjector {
 public:
  struct Options {
    std::uint64_t seed = 0;
    double rate = 0;  // of the blocks of every transfer
    // How much later a Late transfer is answered, and when one that would Never end does: unless it
    // is cancelled before, so that a request with a shorter deadline has missed it.
    std::chrono::nanoseconds late = std::chrono::milliseconds(1);
    std::chrono::nanoseconds never = std::chrono::milliseconds(20);
  };
  explicit FaultInjector(const Options& options) : options_(options) {}

  const Options& options() const noexcept { return options_; }
  std::optional<InjectedFault> draw(Edge edge, BlockId target) KVBM_EXCLUDES(mutex_);
  void count(FaultKind kind, Edge edge) KVBM_EXCLUDES(mutex_);
  FaultCounts counts() const KVBM_EXCLUDES(mutex_);
  std::uint64_t total() const KVBM_EXCLUDES(mutex_);

 private:
  const Options options_;
  mutable Mutex mutex_;
  std::unordered_map<std::uint64_t, std::uint64_t> uses_ KVBM_GUARDED_BY(mutex_);  // of targets
  FaultCounts counts_ KVBM_GUARDED_BY(mutex_){};
};

// What becomes of a block:
//   Error, DiskFull  it fails and has moved nothing
//   Short            it fails with a half of the target overwritten
//   Late, Never      its whole transfer waits: with its bytes moved, or before they are
//   WrongBytes       a byte of what was written turns, or of the file before it is read. Host
//                    blocks that are loaded may be read by others who have verified them already,
//                    so there the sum that they are compared with turns instead
// Layers of a verified block cannot be verified again: their bytes are never wrong. Blocks that the
// CPU cannot address are not damaged.
class FaultyExecutor final : public TransferExecutor {
 public:
  FaultyExecutor(std::unique_ptr<TransferExecutor> inner, std::shared_ptr<FaultInjector> faults);
  // Finishes what was submitted, without further delay.
  ~FaultyExecutor() override;

  void submit(TransferRequest request, Done done) override;

 private:
  struct Job;
  struct Delayed {
    std::shared_ptr<Job> job;
    bool ends_when_cancelled;
  };

  void wait(std::chrono::nanoseconds delay, Delayed delayed) KVBM_EXCLUDES(mutex_);
  void run_delayed() KVBM_EXCLUDES(mutex_);
  std::shared_ptr<Job> next_job() KVBM_REQUIRES(mutex_);
  void begin(const std::shared_ptr<Job>& job);
  void moved(const std::shared_ptr<Job>& job, TransferResult result);
  void answer(const std::shared_ptr<Job>& job) KVBM_EXCLUDES(mutex_);
  Error fail(const Job& job, std::size_t block, FaultKind kind) const;

  const std::shared_ptr<FaultInjector> faults_;
  Mutex mutex_;
  CondVar changed_;
  std::multimap<std::chrono::steady_clock::time_point, Delayed> delayed_ KVBM_GUARDED_BY(mutex_);
  std::size_t open_ KVBM_GUARDED_BY(mutex_) = 0;  // faulty transfers without an answer
  bool stopping_ KVBM_GUARDED_BY(mutex_) = false;
  std::unique_ptr<TransferExecutor> inner_;
  std::jthread thread_;
};

}  // namespace kvbm::simulator
