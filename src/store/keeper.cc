#include "store/keeper.h"

#include <algorithm>
#include <iterator>
#include <system_error>
#include <utility>

namespace kvbm::store {
namespace {

constexpr std::chrono::milliseconds kLongestSleep{1000};
// How much scrubbing may catch up on, so that it never comes in bursts.
constexpr double kLongestScrubSeconds = 1;

}  // namespace

Keeper::Keeper(DiskStore& store, Health& health, const DiskStoreConfig& config, Damaged damaged,
               Now now)
    : store_(store),
      health_(health),
      interval_(config.sync_interval),
      scrub_rate_(config.scrub_bytes_per_second),
      damaged_(std::move(damaged)),
      now_(std::move(now)),
      reader_(*store.blocks(), store.shape()),
      last_sync_(now_()),
      last_scrub_(last_sync_) {}

Result<std::unique_ptr<Keeper>> Keeper::start(DiskStore& store, Health& health,
                                              const DiskStoreConfig& config, Damaged damaged,
                                              Now now) {
  const bool has_thread = !now;
  if (has_thread) now = [] { return Clock::now(); };
  std::unique_ptr<Keeper> keeper(
      new Keeper(store, health, config, std::move(damaged), std::move(now)));
  if (!has_thread) return keeper;
  try {
    keeper->thread_ = std::jthread([raw = keeper.get()] { raw->run(); });
  } catch (const std::system_error& error) {
    return Error{ErrorCode::OperationFailed, error.code().value(), 1, 0,
                 "the system gives no more threads"};
  }
  return keeper;
}

void Keeper::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  MutexLock lock(stopping_mutex_);
  if (thread_.joinable()) thread_.join();
}

void Keeper::after_sync(Waiter then) {
  MutexLock lock(mutex_);
  waiting_.push_back(std::move(then));
  changed_.notify_all();
}

void Keeper::run() {
  for (bool stopping = false; !stopping;) {
    {
      MutexLock lock(mutex_);
      const auto wake = Clock::now() + std::min(interval_, kLongestSleep);
      while (waiting_.empty() && !stopping_) {
        if (changed_.wait_until(mutex_, wake) == std::cv_status::timeout) break;
      }
      stopping = stopping_;
    }
    tend(take_waiting(), stopping);
  }
}

std::vector<Keeper::Waiter> Keeper::take_waiting() {
  MutexLock lock(mutex_);
  return std::exchange(waiting_, {});
}

void Keeper::tend(std::vector<Waiter> waiters, bool stopping) {
  const auto now = now_();
  if (!waiters.empty() || stopping || now - last_sync_ >= interval_) {
    sync(std::move(waiters));
    last_sync_ = now;
  }
  if (stopping) return leave();
  health_.check(now, store_.is_removed());
  if (health_.wants_probe(now)) probe();
  scrub(now - std::exchange(last_scrub_, now));
}

void Keeper::sync(std::vector<Waiter> waiters) {
  Result<void> synced;
  if (store_.needs_sync()) {
    health_.began(now_());
    synced = store_.sync();
    health_.ended(Health::Op::Write, synced, now_());
  }
  if (!synced) {
    // The kernel forgets what it could not write: the next sync may succeed and prove nothing about
    // what was put before this one failed.
    MutexLock lock(mutex_);
    std::ranges::move(waiting_, std::back_inserter(waiters));
    waiting_.clear();
  }
  for (const Waiter& waiter : waiters) waiter(synced);
}

// The counters of what was served; nobody can be told of an error any more.
void Keeper::leave() {
  if (health_.state() == DiskHealth::Off) return;
  if (!store_.write_manifest()) return;
}

void Keeper::probe() {
  const auto read = reader_.sum(0);
  const Result<void> readable = read ? Result<void>() : Result<void>(read.error());
  const Result<void> writable = store_.write_manifest();
  health_.probed(readable, writable, now_());
}

// --- reading again ---------------------------------------------------------------------------

void Keeper::scrub(std::chrono::nanoseconds elapsed) {
  if (scrub_rate_ == 0 || health_.state() == DiskHealth::Off) return;
  const auto rate = static_cast<double>(scrub_rate_);
  const double seconds = std::chrono::duration<double>(elapsed).count();
  scrub_credit_ = std::min(scrub_credit_ + seconds * rate, kLongestScrubSeconds * rate);
  const auto block = static_cast<double>(store_.shape().block_bytes());
  // Once round and no farther: a store of a few blocks is not read over and over.
  for (std::uint32_t i = 0; i < store_.shape().num_slots && scrub_credit_ >= 0; ++i) {
    const Slot slot = next_scrub_;
    next_scrub_ = (slot + 1) % store_.shape().num_slots;
    if (scrub_one(slot)) scrub_credit_ -= block;
  }
}

// False if there was nothing to read. Nobody holds the block: if its record is another one after
// the bytes were read, somebody wrote meanwhile and they prove nothing.
bool Keeper::scrub_one(Slot slot) {
  SlotRecord record;
  const auto found = store_.read(slot, record);
  if (!found || *found != RecordState::Valid) return false;
  if (record.epoch != store_.epoch(record.name_space)) return false;
  health_.began(now_());
  const auto sum = reader_.sum(slot);
  health_.ended(Health::Op::Read, sum ? Result<void>() : Result<void>(sum.error()), now_());
  ++scrubbed_;
  if (!sum || verifies(*sum, record, slot, store_.shape())) return true;
  SlotRecord after;
  const auto again = store_.read(slot, after);
  if (!again || *again != RecordState::Valid || after.put_sequence != record.put_sequence) {
    return true;
  }
  ++scrub_mismatches_;
  if (damaged_) damaged_(slot, record);
  return true;
}

}  // namespace kvbm::store
