// For tests: an executor that keeps transfers back while it is shut.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <utility>

#include "manager/manager_core.h"

namespace kvbm::detail {

// Thread-safe. Must be open when its manager goes.
class TestGate {
 public:
  // A manager whose transfers go through here.
  ReferenceBlockManager manager(const KvBlockManagerConfig& config) {
    return ManagerAccess::create(config,
                                 [this](auto inner) {
                                   inner_ = inner.get();
                                   return std::make_unique<Gated>(*this, std::move(inner));
                                 })
        .value();
  }
  void shut() {
    const std::lock_guard lock(mutex_);
    is_open_ = false;
  }
  void open() {
    std::deque<std::pair<TransferRequest, TransferExecutor::Done>> released;
    {
      const std::lock_guard lock(mutex_);
      is_open_ = true;
      released.swap(waiting_);
    }
    for (auto& [request, done] : released) inner_->submit(std::move(request), std::move(done));
  }
  std::size_t waiting() {
    const std::lock_guard lock(mutex_);
    return waiting_.size();
  }

 private:
  class Gated final : public TransferExecutor {
   public:
    Gated(TestGate& gate, std::unique_ptr<TransferExecutor> inner)
        : gate_(gate), inner_(std::move(inner)) {}
    void submit(TransferRequest request, Done done) override {
      {
        const std::lock_guard lock(gate_.mutex_);
        if (!gate_.is_open_) {
          gate_.waiting_.emplace_back(std::move(request), std::move(done));
          return;
        }
      }
      inner_->submit(std::move(request), std::move(done));
    }

   private:
    TestGate& gate_;
    std::unique_ptr<TransferExecutor> inner_;
  };

  std::mutex mutex_;
  bool is_open_ = true;
  std::deque<std::pair<TransferRequest, TransferExecutor::Done>> waiting_;
  TransferExecutor* inner_ = nullptr;
};

}  // namespace kvbm::detail
