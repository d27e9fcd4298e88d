// For tests: workers without blocks that share the first names of one prefix.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "leader/test_service.h"
#include "platform/os/tcp.h"
#include "remote/sharing_service.h"

namespace kvbm::remote {

using std::chrono::milliseconds;
inline constexpr milliseconds kLong{60'000};  // for what must come by itself
inline constexpr milliseconds kShort{20};     // for what never comes

inline Until within(milliseconds time, const StopSignal* stop = nullptr) {
  return {.deadline = std::chrono::steady_clock::now() + time, .stop = stop};
}

inline WorkerInfo test_info(WorkerID id, std::uint64_t incarnation = 1) {
  return {.rank = {.worker_id = id,
                   .epoch = incarnation,
                   .key_fingerprint = 9,
                   .block_size = 16,
                   .model = "a model",
                   .hash_profile = "kvbm"},
          .content_digest = 0xD1};
}

// A worker as handshakes need it. Its blockset is the text of its id and incarnation.
class TestWorker final : public LocalWorker {
 public:
  explicit TestWorker(WorkerInfo info) : info_(std::move(info)) {}

  WorkerInfo info() override { return info_; }
  std::vector<std::byte> blockset() override { return blockset_of(info_); }
  Result<void> accept(const WorkerInfo& peer, std::span<const std::byte> blockset) override {
    MutexLock lock(mutex_);
    if (refusal_) return *refusal_;
    const auto expected = blockset_of(peer);
    if (!std::equal(blockset.begin(), blockset.end(), expected.begin(), expected.end())) {
      return Error{ErrorCode::InvalidConfig, 0, 0, 0, "another worker's blockset"};
    }
    accepted_.push_back(peer);
    return {};
  }

  // Before it is used.
  WorkerInfo& mutable_info() { return info_; }
  void set_refusal(std::optional<Error> error) {
    MutexLock lock(mutex_);
    refusal_ = std::move(error);
  }
  std::vector<WorkerInfo> accepted() const {
    MutexLock lock(mutex_);
    return accepted_;
  }

 private:
  static std::vector<std::byte> blockset_of(const WorkerInfo& info) {
    const std::string text =
        std::to_string(info.rank.worker_id) + "/" + std::to_string(info.rank.epoch);
    std::vector<std::byte> bytes;
    for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
    return bytes;
  }

  WorkerInfo info_;
  mutable Mutex mutex_;
  std::optional<Error> refusal_ KVBM_GUARDED_BY(mutex_);
  std::vector<WorkerInfo> accepted_ KVBM_GUARDED_BY(mutex_);
};

inline constexpr std::size_t kTestBlockBytes = 200'000;
// What block `index` of any plan consists of, and "sums" to.
inline std::vector<std::byte> test_bytes(std::uint32_t index) {
  std::vector<std::byte> bytes(kTestBlockBytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte((i >> 3) * 31 + index);
  return bytes;
}
inline std::uint64_t test_sum(std::uint32_t index) { return 5000 + index; }

// Thread-safe.
class TestSharing final : public SharingService {
 public:
  // Has the first `blocks` names. Ids of plans begin at incarnation * 1000.
  explicit TestSharing(std::uint32_t blocks, WorkerID id = 7, std::uint64_t incarnation = 1)
      : plans_(blocks, incarnation), worker_(test_info(id, incarnation)) {}

  WorkerInfo info() override { return worker_.info(); }
  std::vector<std::byte> blockset() override { return worker_.blockset(); }
  Result<void> accept(const WorkerInfo& peer, std::span<const std::byte> blockset) override {
    return worker_.accept(peer, blockset);
  }
  Result<PlanAnswer> lookup(std::span<const SequenceHash> hashes,
                            std::span<const std::uint64_t> digests, NamespaceId name_space,
                            milliseconds lease) override {
    return plans_.lookup(hashes, digests, name_space, lease);
  }
  Result<PlanAnswer> trim(std::uint64_t plan, std::uint32_t blocks) override {
    return plans_.trim(plan, blocks);
  }
  void release(std::uint64_t plan) override { plans_.release(plan); }

  std::vector<Result<SharedBlock>> fetch(std::uint64_t plan, std::span<const std::uint32_t> indexes,
                                         std::chrono::steady_clock::time_point deadline,
                                         std::stop_token stop) override {
    std::optional<Error> failed;
    {
      MutexLock lock(mutex_);
      ++fetches_;
      changed_.notify_all();
      while (is_held_ && !failed) {
        const bool woken =
            changed_.wait_until(mutex_, stop, deadline, [this] { return !is_held_; });
        if (woken) break;
        failed = stop.stop_requested() ? Error{ErrorCode::Cancelled, 0, 0, 0, ""}
                                       : Error{ErrorCode::TimedOut, 0, 0, 0, ""};
      }
    }
    const auto plans = plans_.plans();
    const auto found = plans.find(plan);
    std::vector<Result<SharedBlock>> blocks;
    for (const std::uint32_t index : indexes) {
      if (failed) {
        blocks.emplace_back(*failed);
      } else if (found == plans.end()) {
        blocks.emplace_back(Error{ErrorCode::PlanExpired, 0, plan, 0, "no such plan"});
      } else if (index >= found->second.hashes.size()) {
        blocks.emplace_back(
            Error{ErrorCode::InvalidBlockIndex, 0, index, found->second.hashes.size(), ""});
      } else {
        const auto bytes = std::make_shared<const std::vector<std::byte>>(test_bytes(index));
        blocks.emplace_back(SharedBlock{.block = 100 + index,
                                        .payload_sum = test_sum(index),
                                        .bytes = *bytes,
                                        .hold = hold_of(bytes)});
      }
    }
    return blocks;
  }
  bool is_current(std::uint64_t plan) override {
    return !is_reset_ && plans_.plans().contains(plan);
  }

  leader::TestService& plans() { return plans_; }
  TestWorker& worker() { return worker_; }
  // Its namespaces are reset: no plan is current.
  void reset() { is_reset_ = true; }
  // Fetches do not return meanwhile.
  void hold_fetches(bool held) {
    MutexLock lock(mutex_);
    is_held_ = held;
    changed_.notify_all();
  }
  void wait_for_fetches(std::uint64_t count) {
    MutexLock lock(mutex_);
    while (fetches_ < count) changed_.wait(mutex_);
  }
  // Blocks that are held for who asked for them.
  std::size_t holds() const { return holds_->load(); }
  // Waits until there are so many.
  void wait_for_holds(std::size_t count) const {
    for (std::size_t now = *holds_; now != count; now = *holds_) holds_->wait(now);
  }

 private:
  std::shared_ptr<const void> hold_of(std::shared_ptr<const std::vector<std::byte>> bytes) {
    ++*holds_;
    return std::shared_ptr<const void>(bytes.get(), [bytes, holds = holds_](const void*) {
      --*holds;
      holds->notify_all();
    });
  }

  leader::TestService plans_;
  TestWorker worker_;
  std::atomic<bool> is_reset_{false};
  const std::shared_ptr<std::atomic<std::size_t>> holds_ =
      std::make_shared<std::atomic<std::size_t>>(0);
  Mutex mutex_;
  CondVar changed_;
  bool is_held_ KVBM_GUARDED_BY(mutex_) = false;
  std::uint64_t fetches_ KVBM_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvbm::remote
