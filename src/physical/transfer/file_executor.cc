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

// Not answered yet. Blocks that are never begun keep the result that they are made with.
struct Transfer {
  Transfer(TransferRequest of_request, TransferExecutor::Done to_call)
      : request(std::move(of_request)), done(std::move(to_call)) {
    result.blocks.reserve(request.blocks.size());
    for (std::size_t i = 0; i < request.blocks.size(); ++i) {
      result.blocks.push_back(Error{ErrorCode::Cancelled, 0, 0, 0, {}});
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

// A block that is in the queue, or was and is to be verified.
struct Move {
  std::shared_ptr<Transfer> transfer;
  std::size_t block = 0;  // of the transfer
  std::size_t bytes = 0;
};

// Once it has been made, the block's move has begun.
Result<IoRequest> request_of(const TransferRequest& transfer, const BlockCopy& copy) {
  using Side = CopyPlan::Side;
  const CopyPlan& plan = *transfer.plan;
  const bool writes = plan.source_side() == Side::Memory && plan.target_side() == Side::File;
  const bool reads = plan.source_side() == Side::File && plan.target_side() == Side::Memory;
  if (!writes && !reads) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0,
                 "one side must be a file, the other memory that the CPU can address"};
  }
  KVBM_CHECK_OK(plan.check(copy));
  KVBM_TRY(const FileBlock block, file_block(plan, copy));
  KVBM_CHECK_OK(journal_begin(transfer, copy));
  return IoRequest{.op = writes ? IoRequest::Op::Write : IoRequest::Op::Read,
                   .file = block.file,
                   .bytes = block.memory,
                   .offset = block.offset};
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
      for (IoDone& each : done) land(each);
      if (settles) settle();
    }
  }

 private:
  struct Landed {
    Move move;
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
      auto& waiting = onboards_.empty() ? offloads_ : onboards_;
      if (waiting.empty()) return;
      Move move{waiting.front(), waiting.front()->begun++};
      if (move.transfer->begun == move.transfer->request.blocks.size()) waiting.pop_front();
      begin(std::move(move));
    }
  }

  void begin(Move move) {
    Transfer& transfer = *move.transfer;
    if (move.block == 0) transfer.began = Clock::now();
    if (transfer.is_cancelled()) return ended(transfer);
    auto request = request_of(transfer.request, transfer.request.blocks[move.block]);
    if (!request) {
      transfer.result.blocks[move.block] = std::move(request).error();
      return ended(transfer);
    }
    request->tag = next_tag_++;
    move.bytes = request->bytes.size();
    bytes_ += move.bytes;
    queue_.push(*request);
    moving_.emplace(request->tag, std::move(move));
  }

  void land(IoDone& done) {
    const auto found = moving_.find(done.tag);
    bytes_ -= found->second.bytes;
    landed_.push_back({std::move(found->second), std::move(done.result)});
    moving_.erase(found);
  }

  void settle() {
    const Landed landed = std::move(landed_.front());
    landed_.pop_front();
    Transfer& transfer = *landed.move.transfer;
    const std::size_t block = landed.move.block;
    transfer.result.blocks[block] = finish(transfer.request, block, landed.moved);
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
  queue->push({.file = &file, .bytes = {page->data(), bytes}});
  std::vector<IoDone> done;
  while (done.empty()) queue->poll(IoQueue::Wait::ForOne, done);
  KVBM_CHECK_OK(std::move(done.front().result));
  return queue;
}

}  // namespace kvbm
