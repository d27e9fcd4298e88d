// Runs transfers between files and memory with many requests of the kernel in flight.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "physical/transfer/transfer.h"
#include "platform/uring/io_queue.h"

namespace kvbm {

// One thread keeps an IoQueue full, across the blocks of a transfer and across transfers. Blocks of
// onboarding transfers are begun before those of offloading ones, also of such as have begun.
// A transfer's busy time runs from its first block to its last.
class FileExecutor final : public TransferExecutor {
 public:
  // Enough to keep a fast disk busy, few enough that an onboarding block behind writes waits for
  // milliseconds only.
  static constexpr std::size_t kDepth = 32;
  static constexpr std::size_t kMaxBytesInFlight = std::size_t{48} << 20;
  // Blocks that follow each other in a transfer and in its file are one request, up to so many.
  static constexpr std::size_t kJoinedBytes = std::size_t{1} << 20;
  static constexpr std::size_t kJoinedBlocks = 64;

  using MakeQueue = std::function<Result<std::unique_ptr<IoQueue>>()>;

  // Calls `make_queue` on the new thread. Errors: those of `make_queue`; OperationFailed with errno
  // if the system gives no thread.
  static Result<std::unique_ptr<FileExecutor>> create(const MakeQueue& make_queue);
  // Finishes what was submitted, then joins.
  ~FileExecutor() override;

  // Blocks that do not lie in a file on one side and in memory on the other are answered with
  // NotAccessible.
  void submit(TransferRequest request, Done done) override;

  // For people: how the files are read and written.
  const std::string& description() const noexcept { return description_; }

 private:
  class Worker;
  struct Job {
    TransferRequest request;
    Done done;
  };

  FileExecutor() = default;
  // What was submitted since the last call, and whether the end has come.
  std::pair<std::vector<Job>, bool> take_jobs() KVBM_EXCLUDES(mutex_);

  Mutex mutex_;  // held while waking the queue, so that the queue is still there
  std::vector<Job> jobs_ KVBM_GUARDED_BY(mutex_);
  bool stopping_ KVBM_GUARDED_BY(mutex_) = false;
  IoQueue* queue_ = nullptr;  // the thread's; set before create() returns
  std::string description_;
  std::jthread thread_;
};

// An IoQueue over io_uring that has read the first unit of `file` once, which shows that this file
// system serves it. Errors: those of create_uring_queue() and of the read; AllocationFailed.
Result<std::unique_ptr<IoQueue>> create_probed_uring_queue(std::size_t depth, File& file);

}  // namespace kvbm
