#include <deque>
#include <utility>

#include "base/mutex.h"
#include "platform/uring/io_queue.h"

namespace kvbm {
namespace {

class BlockingQueue final : public IoQueue {
 public:
  explicit BlockingQueue(std::size_t depth) : IoQueue(depth, "blocking reads and writes") {}

  void push(IoRequest request) override {
    pushed_.push_back(std::move(request));
    ++in_flight_;
  }

  void poll(Wait wait, std::vector<IoDone>& done) override {
    if (!pushed_.empty()) {
      const IoRequest request = std::move(pushed_.front());
      pushed_.pop_front();
      done.push_back({request.tag, run(request)});
      --in_flight_;
    } else if (wait == Wait::ForOne) {
      MutexLock lock(mutex_);
      while (!woken_) changed_.wait(mutex_);
      woken_ = false;
    }
  }

  void wake() override {
    MutexLock lock(mutex_);
    woken_ = true;
    changed_.notify_one();
  }

 private:
  static Result<void> run(const IoRequest& request) {
    KVBM_CHECK_OK(check_request(request));
    std::size_t moved = 0;
    for (const auto& run : request.memory) {
      const std::uint64_t offset = request.offset + moved;
      auto done = request.op == IoRequest::Op::Read ? request.file->read(run, offset)
                                                    : request.file->write(run, offset);
      if (!done) {
        Error error = std::move(done).error();
        error.requested = request.bytes();
        error.available += moved;
        return error;
      }
      moved += run.size();
    }
    return {};
  }

  std::deque<IoRequest> pushed_;
  Mutex mutex_;
  CondVar changed_;
  bool woken_ KVBM_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<IoQueue> create_blocking_queue(std::size_t depth) {
  return std::make_unique<BlockingQueue>(depth);
}

}  // namespace kvbm
