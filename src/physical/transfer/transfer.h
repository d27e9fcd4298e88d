// Asynchronous transfers of blocks between layouts.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "physical/transfer/block_journal.h"
#include "physical/transfer/copy_block.h"

namespace kvbm {

// Proof that a copy into one block ended well: the only key to registration for blocks that their
// owner did not fill. Only executors make one, and only for a copy that succeeded. Move-only.
class TransferToken {
 public:
  TransferToken(TransferToken&&) noexcept = default;
  TransferToken& operator=(TransferToken&&) noexcept = default;

  // Adds a proof of the layers that follow. Where the first one proves that the source was
  // verified, and the others that its layers were copied one after the other, they amount to a copy
  // of the whole block. Errors: FailedToRegisterBlock{first's target, next's target} unless both
  // are of one block; the same {layers of the first, first layer of the next} if layers are missing
  // or come twice.
  static Result<TransferToken> join(TransferToken first, TransferToken next);

  const Layout* target_layout() const noexcept { return target_layout_; }
  // Whether all layers were copied, of a source whose whole sum is known.
  bool is_whole() const noexcept { return is_summed_ && layers_.count == num_layers(); }
  BlockId target() const noexcept { return target_; }
  // Of the whole block, or of the layers of a copy of some.
  std::uint64_t payload_sum() const noexcept { return payload_sum_; }
  // What was copied; none if the source was only verified.
  LayerRange layers() const noexcept { return layers_; }

 private:
  friend class TransferExecutor;
  TransferToken(const CopyPlan& plan, BlockId target, std::uint64_t payload_sum, bool was_copied)
      : target_layout_(&plan.target()),
        layers_(was_copied ? plan.layers() : LayerRange{0, 0}),
        is_summed_(plan.is_whole()),
        target_(target),
        payload_sum_(payload_sum) {}
  std::size_t num_layers() const noexcept { return target_layout_->content()->num_layers(); }

  const Layout* target_layout_;
  LayerRange layers_;
  bool is_summed_;
  BlockId target_;
  std::uint64_t payload_sum_;
};

// What is done with each block of a transfer.
enum class TransferStep : std::uint8_t {
  Copy,
  // Nothing moves: the source, in memory that the CPU can address, is summed and compared with what
  // it must sum to. Blocks that will be copied layer by layer are verified so.
  Verify,
};

enum class TransferPriority : std::uint8_t {
  Onboard,  // somebody waits for it
  Offload,  // background
};

// When copies of device memory run. Both are handles of the CUDA driver, and null means none.
struct StreamOrder {
  void* stream = nullptr;       // they run in this one, instead of the executor's own
  void* after_event = nullptr;  // they begin when this has happened; no CPU waits for it
};

// Blocks that another worker keeps for us, for a while. Whoever drops the last reference gives them
// back.
class RemoteBlocks {
 public:
  virtual ~RemoteBlocks() = default;
};

struct TransferRequest {
  // Where `remote` is set: of blocks of the target's layout, which is that of the other worker's
  // memory in all but its addresses.
  std::shared_ptr<const CopyPlan> plan;
  std::vector<BlockCopy> blocks;
  TransferPriority priority = TransferPriority::Offload;
  // When set, blocks that have not begun are answered with Cancelled.
  std::shared_ptr<const std::atomic<bool>> cancelled = nullptr;
  StreamOrder order = {};
  // Told of moves to or from a file. Must live until the request has been answered.
  BlockJournal* journal = nullptr;
  TransferStep step = TransferStep::Copy;
  // Set: the sources are blocks of these, by their places in them. Their sums are the owner's to
  // tell, so none is given.
  std::shared_ptr<RemoteBlocks> remote = nullptr;
};

// What executors call around the move of one block, after the copy was found to be allowed and
// before its first byte moves. Does nothing without a journal or a file. Errors: before_write()'s;
// the block must not be moved then.
Result<void> journal_begin(const TransferRequest& request, const BlockCopy& copy);
// The other end of journal_begin(), once it has succeeded: given the sum of the moved and verified
// bytes, or why there is none, returns the block's answer. Errors: `sum`'s; after_write()'s.
Result<std::uint64_t> journal_end(const TransferRequest& request, const BlockCopy& copy,
                                  Result<std::uint64_t> sum);

struct TransferResult {
  std::vector<Result<TransferToken>> blocks;  // one per block of the request, in order
  std::chrono::nanoseconds busy{0};           // time spent moving bytes
};

// Runs transfers. The caller holds every block of a request until `done` is called.
class TransferExecutor {
 public:
  using Done = std::function<void(TransferResult)>;

  virtual ~TransferExecutor() = default;
  // Calls `done` exactly once, after the last byte has stopped moving, on a thread of the executor.
  // Never blocks. Errors are per block.
  virtual void submit(TransferRequest request, Done done) = 0;

 protected:
  // One block, now, on this thread.
  static Result<TransferToken> run(const TransferRequest& request, const BlockCopy& copy);
  // The proof of a copy that has succeeded.
  static TransferToken token(const CopyPlan& plan, BlockId target, std::uint64_t payload_sum) {
    return TransferToken(plan, target, payload_sum, true);
  }
};

}  // namespace kvbm
