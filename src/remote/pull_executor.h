// Brings blocks of peers into host memory, by the cheapest path that works.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "physical/transfer/transfer.h"
#include "remote/cma.h"
#include "remote/peers.h"

namespace kvbm::remote {

// A peer's plan, as the tier engine holds it: block i of it is its block i.
class PeerBlocks final : public RemoteBlocks {
 public:
  // Requires: a plan of at least one block.
  explicit PeerBlocks(PeerPlan plan) : plan_(std::move(plan)) {}
  const PeerPlan& plan() const noexcept { return plan_; }

 private:
  const PeerPlan plan_;
};

struct PullOptions {
  std::size_t threads = 2;  // at least 1; each has one transfer at a time
  // How long a transfer may take, and a peer may send nothing in the middle of a block.
  std::chrono::milliseconds patience{10'000};
  std::chrono::milliseconds silence{2'000};
};

// Every block is summed as it comes and compared with what its owner says. When all of a transfer
// have come, the owner is asked whether its plan still lasts and nothing was reset: a copy that
// raced with a reset is no copy. Whatever the peer does, a transfer ends within the patience, and
// then nothing writes into its targets.
class PullExecutor final : public TransferExecutor {
 public:
  // Into blocks of this layout, whose memory the CPU can address. The peers must outlive it.
  // Errors: OperationFailed with errno if the system gives no thread or descriptor.
  static Result<std::unique_ptr<PullExecutor>> create(Peers& peers,
                                                      std::shared_ptr<const Layout> target,
                                                      PullOptions options);
  // What has not begun ends with Cancelled. Waits for what has: Peers::stop() ends it at once.
  ~PullExecutor() override;

  // Requires: request.remote is a PeerBlocks of these peers; at most kMaxIndexes blocks.
  void submit(TransferRequest request, Done done) override;

 private:
  struct Job {
    TransferRequest request;
    Done done;
  };
  using Time = std::chrono::steady_clock::time_point;
  using Sums = std::vector<Result<std::uint64_t>>;

  PullExecutor(Peers& peers, std::shared_ptr<const Layout> target, PullOptions options);
  void run();
  TransferResult pull(const TransferRequest& request, Staging& staging);
  Sums pull_blocks(const TransferRequest& request, const PeerPlan& plan, Staging& staging);
  Sums by_cma(const TransferRequest& request, const BlockChoice& choice, PeerConnection& connection,
              const CmaReader& reader, Staging& staging, const Until& until);
  Sums by_stream(const TransferRequest& request, const BlockChoice& choice,
                 PeerConnection& connection, Staging& staging, const Until& until);
  std::shared_ptr<const CmaReader> reader_of(const PeerSession& session) KVBM_EXCLUDES(mutex_);

  Peers& peers_;
  const std::shared_ptr<const Layout> target_;
  const PullOptions options_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<Job> jobs_ KVBM_GUARDED_BY(mutex_);
  bool stopping_ KVBM_GUARDED_BY(mutex_) = false;
  // By peer: of which generation, and null where its memory cannot be read.
  std::map<std::size_t, std::pair<std::uint64_t, std::shared_ptr<const CmaReader>>> readers_
      KVBM_GUARDED_BY(mutex_);
  std::vector<std::jthread> threads_;
};

}  // namespace kvbm::remote
