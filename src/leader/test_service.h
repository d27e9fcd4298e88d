// For tests: a rank without blocks that knows the first names of one prefix, on a clock of its own.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "leader/plan_service.h"

namespace kvbm::leader {

// The names of a prefix: 1, 2, 3, ...
inline std::vector<SequenceHash> prefix(std::size_t blocks) {
  std::vector<SequenceHash> hashes;
  for (std::size_t i = 1; i <= blocks; ++i) hashes.emplace_back(i);
  return hashes;
}

// Thread-safe.
class TestService final : public PlanService {
 public:
  struct Plan {
    std::vector<SequenceHash> hashes = {};
    NamespaceId name_space = 0;
    std::chrono::milliseconds expires{0};
  };

  // Has `blocks` names, every third of them on disk. Ids of plans begin at epoch * 1000.
  explicit TestService(std::uint32_t blocks, std::uint64_t epoch = 1) : blocks_(blocks) {
    info_ = {.worker_id = 7,
             .epoch = epoch,
             .key_fingerprint = 9,
             .block_size = 16,
             .model = "a model",
             .hash_profile = "kvbm"};
    last_plan_ = epoch * 1000;
  }

  Result<PlanAnswer> lookup(std::span<const SequenceHash> hashes,
                            std::span<const std::uint64_t> digests, NamespaceId name_space,
                            std::chrono::milliseconds lease) override {
    MutexLock lock(mutex_);
    ++lookups_;
    last_digests_.assign(digests.begin(), digests.end());
    changed_.notify_all();
    while (is_held_) changed_.wait(mutex_);
    if (fails_) return Error{ErrorCode::OperationFailed, 5, 0, 0, "the rank is out of sorts"};
    std::size_t found = 0;
    while (found < std::min<std::size_t>(hashes.size(), blocks_) &&
           hashes[found] == SequenceHash(found + 1)) {
      ++found;
    }
    if (found == 0) return PlanAnswer();
    plans_[++last_plan_] = {.hashes = {hashes.begin(), hashes.begin() + std::ptrdiff_t(found)},
                            .name_space = name_space,
                            .expires = now_ + lease};
    changed_.notify_all();
    return answer(last_plan_, found);
  }
  Result<PlanAnswer> trim(std::uint64_t plan, std::uint32_t blocks) override {
    MutexLock lock(mutex_);
    const auto found = plans_.find(plan);
    if (found == plans_.end() || fails_trims_) {
      return Error{ErrorCode::HandleNotFound, 0, plan, 0, "the plan is used, released or expired"};
    }
    auto& hashes = found->second.hashes;
    hashes.resize(std::min<std::size_t>(hashes.size(), blocks));
    return answer(plan, hashes.size());
  }
  void release(std::uint64_t plan) override {
    MutexLock lock(mutex_);
    ++releases_;
    plans_.erase(plan);
    changed_.notify_all();
  }
  RankInfo info() override { return info_; }

  // Before a server has it.
  RankInfo& mutable_info() { return info_; }

  void set_blocks(std::uint32_t blocks) {
    MutexLock lock(mutex_);
    blocks_ = blocks;
  }
  // Whether lookups and trims, or trims alone, answer with errors.
  void set_fails(bool lookups, bool trims) {
    MutexLock lock(mutex_);
    fails_ = lookups;
    fails_trims_ = trims;
  }
  // Lookups do not return meanwhile.
  void hold(bool held) {
    MutexLock lock(mutex_);
    is_held_ = held;
    changed_.notify_all();
  }
  // Time passes; leases end.
  void advance(std::chrono::milliseconds time) {
    MutexLock lock(mutex_);
    now_ += time;
    std::erase_if(plans_, [this](const auto& plan) { return plan.second.expires <= now_; });
    changed_.notify_all();
  }

  std::map<std::uint64_t, Plan> plans() const {
    MutexLock lock(mutex_);
    return plans_;
  }
  std::vector<std::uint64_t> last_digests() const {
    MutexLock lock(mutex_);
    return last_digests_;
  }
  std::uint64_t lookups() const {
    MutexLock lock(mutex_);
    return lookups_;
  }
  void wait_for_plans(std::size_t count) const {
    MutexLock lock(mutex_);
    while (plans_.size() != count) changed_.wait(mutex_);
  }
  void wait_for_lookups(std::uint64_t count) const {
    MutexLock lock(mutex_);
    while (lookups_ < count) changed_.wait(mutex_);
  }
  void wait_for_releases(std::uint64_t count) const {
    MutexLock lock(mutex_);
    while (releases_ < count) changed_.wait(mutex_);
  }

 private:
  static PlanAnswer answer(std::uint64_t plan, std::size_t blocks) {
    const auto count = static_cast<std::uint32_t>(blocks);
    return {.plan = plan, .blocks = count, .by_tier = {0, count - count / 3, count / 3}};
  }

  RankInfo info_;
  mutable Mutex mutex_;
  mutable CondVar changed_;
  std::uint32_t blocks_;
  bool fails_ = false;
  bool fails_trims_ = false;
  bool is_held_ = false;
  std::chrono::milliseconds now_{0};
  std::uint64_t last_plan_ = 0;
  std::uint64_t lookups_ = 0;
  std::uint64_t releases_ = 0;
  std::vector<std::uint64_t> last_digests_;
  std::map<std::uint64_t, Plan> plans_;
};

}  // namespace kvbm::leader
