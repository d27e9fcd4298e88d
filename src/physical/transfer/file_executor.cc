#include "physical/transfer/file_executor.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <future>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "platform/os/pages.h"

namespace kvbm {
namespace {

using Clock = std::chrono::steady_clock;

Error cancelled() { return Error{ErrorCode::Cancelled, 0, 0, 0, {}}; }

// Not answered yet. Blocks that are never begun keep the result that they are made with.
struct Transfer {
  Transfer(TransferRequest of_request, TransferExecutor::Done to_call)
      : request(std::move(of_request)), done(std::move(to_call)) {
    result.blocks.reserve(request.blocks.size());
    for (std::size_t i = 0; i < request.blocks.size(); ++i) {
      result.blocks.push_back(cancelled());
    }
  }

  bool is_cancelled() const {
    return request.cancelled && request.cancelled->load(std::memory_order_relaxed);
  }

  TransferRequest request;
  TransferExecutor::Done done;
  TransferResult result;
  Clock::time_point began;
  std::size_t begun = 0;  // blocks, likewise
  std::size_t ended = 0;
};

// Neighbours in a transfer and in its file that are one request in the queue.
struct Move {
  std::shared_ptr<Transfer> transfer;
  std::size_t first = 0;  // of the transfer's blocks
  std::size_t count = 0;
  IoRequest request = {};
  std::size_t bytes = 0;

  void add(const FileBlock& block) {
    if (count++ == 0) {
      request.file = block.file;
      request.offset = block.offset;
    }
    request.memory.push_back(block.memory);
    bytes += block.memory.size();
  }
  // Whether the block lies behind the others and is small enough to go with them.
  bool joins(const FileBlock& block) const {
    return block.file == request.file && block.offset == request.offset + bytes &&
           bytes + block.memory.size() <= FileExecutor::kJoinedBytes &&
           count < FileExecutor::kJoinedBlocks;
  }
};

// Errors: why the block cannot be moved so.
Result<FileBlock> place_of(const TransferRequest& transfer, std::size_t block) {
  using Side = CopyPlan::Side;
  const CopyPlan& plan = *transfer.plan;
  const bool writes = plan.source_side() == Side::Memory && plan.target_side() == Side::File;
  const bool reads = plan.source_side() == Side::File && plan.target_side() == Side::Memory;
  if (transfer.step == TransferStep::Verify) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0, "blocks are verified where they lie in memory"};
  }
  if (!writes && !reads) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0,
                 "one side must be a file, the other memory that the CPU can address"};
  }
  KVBM_CHECK_OK(plan.check(transfer.blocks[block]));
  return file_block(plan, transfer.blocks[block]);
}

}  // namespace

// What the thread alone sees.
class FileExecutor::Worker {
 public:
  Worker(FileExecutor& executor, IoQueue& queue) : executor_(executor), queue_(queue) {}

  void run() {
    std::vector<IoDone> done;
    for (;;) {
      auto [jobs, stopping] = executor_.take_jobs();
      if (stopping && jobs.empty() && open_ == 0) return;
      accept(std::move(jobs));
      refill();
      if (stopping && open_ == 0) continue;  // nobody will wake the queue any more
      // What has landed is looked at after the queue was refilled, so that the disk never waits for
      // a sum.
      const bool settles = !landed_.empty();
      done.clear();
      queue_.poll(settles ? IoQueue::Wait::No : IoQueue::Wait::ForOne, done);
      for (const IoDone& each : done) land(each);
      if (settles) settle();
    }
  }

 private:
  // A block that was in the queue, and is to be verified.
  struct Landed {
    std::shared_ptr<Transfer> transfer;
    std::size_t block;
    Result<void> moved;
  };

  void accept(std::vector<Job> jobs) {
    for (Job& job : jobs) {
      auto transfer = std::make_shared<Transfer>(std::move(job.request), std::move(job.done));
      ++open_;
      if (transfer->request.blocks.empty()) {
        answer(*transfer);
      } else if (transfer->request.priority == TransferPriority::Onboard) {
        onboards_.push_back(std::move(transfer));
      } else {
        offloads_.push_back(std::move(transfer));
      }
    }
  }

  void refill() {
    while (queue_.in_flight() < queue_.depth() && bytes_ < kMaxBytesInFlight) {
      if (!alone_.empty()) {
        push(std::move(alone_.front()));
        alone_.pop_front();
        continue;
      }
      auto& waiting = onboards_.empty() ? offloads_ : onboards_;
      if (waiting.empty()) return;
      Move move = begin(waiting.front());
      if (waiting.front()->begun == waiting.front()->request.blocks.size()) waiting.pop_front();
      if (move.count > 0) push(std::move(move));
    }
  }

  // The next block of a transfer with those that may go with it; none where it is answered instead.
  Move begin(const std::shared_ptr<Transfer>& transfer) {
    const TransferRequest& request = transfer->request;
    if (transfer->begun == 0) transfer->began = Clock::now();
    Move move{transfer, transfer->begun};
    while (transfer->begun < request.blocks.size()) {
      const std::size_t block = transfer->begun;
      auto place =
          transfer->is_cancelled() ? Result<FileBlock>(cancelled()) : place_of(request, block);
      if (move.count > 0 && !(place && move.joins(*place))) break;
      ++transfer->begun;
      if (place) {
        if (auto told = journal_begin(request, request.blocks[block]); !told) place = told.error();
      }
      if (!place) {
        transfer->result.blocks[block] = place.error();
        ended(*transfer);
        break;
      }
      move.add(*place);
    }
    return move;
  }

  void push(Move move) {
    const bool writes = move.transfer->request.plan->target_side() == CopyPlan::Side::File;
    move.request.op = writes ? IoRequest::Op::Write : IoRequest::Op::Read;
    move.request.tag = next_tag_++;
    bytes_ += move.bytes;
    queue_.push(move.request);
    moving_.emplace(move.request.tag, std::move(move));
  }

  void land(const IoDone& done) {
    const auto found = moving_.find(done.tag);
    const Move move = std::move(found->second);
    moving_.erase(found);
    bytes_ -= move.bytes;
    const bool apart = !done.result && move.count > 1;  // nobody knows which of them it concerns
    for (std::size_t i = 0; i < move.count; ++i) {
      if (apart) {
        Move& alone = alone_.emplace_back(Move{move.transfer, move.first + i});
        alone.add(*place_of(move.transfer->request, alone.first));
      } else {
        landed_.push_back({move.transfer, move.first + i, done.result});
      }
    }
  }

  void settle() {
    const Landed landed = std::move(landed_.front());
    landed_.pop_front();
    Transfer& transfer = *landed.transfer;
    transfer.result.blocks[landed.block] = finish(transfer.request, landed.block, landed.moved);
    ended(transfer);
  }

  static Result<TransferToken> finish(const TransferRequest& request, std::size_t block,
                                      const Result<void>& moved) {
    const BlockCopy& copy = request.blocks[block];
    KVBM_TRY(const std::uint64_t sum,
             journal_end(request, copy, finish_file_block(*request.plan, copy, moved)));
    return token(*request.plan, copy.target, sum);
  }

  void ended(Transfer& transfer) {
    if (++transfer.ended < transfer.request.blocks.size()) return;
    transfer.result.busy = Clock::now() - transfer.began;
    answer(transfer);
  }

  void answer(Transfer& transfer) {
    transfer.done(std::move(transfer.result));
    --open_;
  }

  FileExecutor& executor_;
  IoQueue& queue_;
  std::deque<std::shared_ptr<Transfer>> onboards_;  // with blocks to begin
  std::deque<std::shared_ptr<Transfer>> offloads_;
  std::deque<Move> alone_;                          // of requests that failed
  std::unordered_map<std::uint64_t, Move> moving_;  // by the tag of their request
  std::deque<Landed> landed_;
  std::size_t bytes_ = 0;  // that are moving
  std::size_t open_ = 0;   // transfers without an answer
  std::uint64_t next_tag_ = 0;
};

Result<std::unique_ptr<FileExecutor>> FileExecutor::create(const MakeQueue& make_queue) {
  std::unique_ptr<FileExecutor> executor(new FileExecutor);
  // Shared, because the thread may still be inside set_value() when the answer has arrived here.
  const auto started = std::make_shared<std::promise<Result<void>>>();
  const auto work = [raw = executor.get(), &make_queue, started] {
    auto queue = make_queue();
    if (!queue) return started->set_value(std::move(queue).error());
    raw->queue_ = queue->get();
    raw->description_ = (*queue)->description();
    started->set_value({});
    Worker(*raw, **queue).run();
  };
  try {
    executor->thread_ = std::jthread(work);
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), 1, 0,
                 "the system gives no more threads"};
  }
  KVBM_CHECK_OK(started->get_future().get());
  return executor;
}

FileExecutor::~FileExecutor() {
  MutexLock lock(mutex_);
  stopping_ = true;
  if (queue_) queue_->wake();
}

void FileExecutor::submit(TransferRequest request, Done done) {
  MutexLock lock(mutex_);
  jobs_.push_back({std::move(request), std::move(done)});
  if (jobs_.size() == 1) queue_->wake();  // it takes all of them at once
}

std::pair<std::vector<FileExecutor::Job>, bool> FileExecutor::take_jobs() {
  MutexLock lock(mutex_);
  return {std::exchange(jobs_, {}), stopping_};
}

Result<std::unique_ptr<IoQueue>> create_probed_uring_queue(std::size_t depth, File& file) {
  KVBM_TRY(auto queue, create_uring_queue(depth));
  const std::size_t bytes =
      static_cast<std::size_t>(std::min<std::uint64_t>(file.io_alignment(), file.size()));
  KVBM_TRY(const auto page, Pages::map(bytes, Pages::Kind::Plain));
  queue->push({.file = &file, .memory = {{page->data(), bytes}}});
  std::vector<IoDone> done;
  while (done.empty()) queue->poll(IoQueue::Wait::ForOne, done);
  KVBM_CHECK_OK(std::move(done.front().result));
  return queue;
}

}  // namespace kvbm
