// What makes the disk tier's blocks survive: a store beside the pool. Block i of the pool lies in
// slot i of the store.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "kvbm/metrics.h"
#include "kvbm/store.h"
#include "physical/memory/memory.h"
#include "physical/transfer/block_journal.h"
#include "store/disk_store.h"
#include "store/health.h"
#include "store/keeper.h"
#include "tiers/recent_slots.h"
#include "tiers/restored_holds.h"
#include "tiers/tier_pool.h"

namespace kvbm::detail {

// A record is written after the bytes of its block and before the block is registered, so whoever
// is told of a registration finds the block again. Thread-safe.
class DiskTier final : public BlockJournal {
 public:
  // Takes lines for people, one per change that matters. Called on any thread.
  using Log = std::function<void(const std::string&)>;
  // Tells the time.
  using Now = store::Keeper::Now;

  // Errors: those of store::open_disk_store().
  static Result<std::shared_ptr<DiskTier>> open(const DiskStoreConfig& config,
                                                const store::StoreShape& shape, Log log);
  // The same on files that are open. With a clock of the caller's there are no threads: tend() does
  // the work of the background, and the eviction order of what survived is there at once.
  static Result<std::shared_ptr<DiskTier>> open(const DiskStoreConfig& config,
                                                const store::StoreShape& shape,
                                                store::StoreFiles files, Log log, Now now = {});
  ~DiskTier() override;  // close()

  // Where the blocks lie.
  std::shared_ptr<Memory> memory() const;

  // Gives the pool, which must be empty, all blocks that survived, and begins work in the
  // background. The pool calls close() before it goes. Errors: those of DiskStore::load().
  Result<void> attach(TierPool& pool);
  // Where tokens are kept: they come from this set with the blocks that are written, and go to it
  // with those that are read.
  void keep_tokens_of(std::shared_ptr<BlockSet> host) { host_ = std::move(host); }
  // Makes everything durable. No block may be moving. Idempotent.
  void close();

  bool is_writable(TimePoint now) noexcept { return health_at(now) == DiskHealth::Healthy; }
  bool is_readable(TimePoint now) noexcept { return health_at(now) != DiskHealth::Off; }

  // Before and after the pool forgets its blocks. Errors of the first: OperationFailed with errno;
  // what is forgotten may be found again by the next owner.
  Result<void> forget(std::optional<NamespaceId> name_space);
  void forgotten(std::optional<NamespaceId> name_space) noexcept;

  // Calls `then` with the result of a transfer to this tier when its blocks may be registered: at
  // once, or in a durable store after the next sync.
  void acknowledge(TransferResult result, TransferExecutor::Done then);

  DiskStats stats() const;
  // Brings these metrics up to date whenever the registry is read. Counters begin with this
  // process.
  void publish_to(Registry& registry);
  // Does what the background has to do now. Only where there are no threads.
  void tend() { keeper_->tend(); }
  // Waits until the eviction order is complete.
  void wait_until_restored() const;

  // --- BlockJournal --------------------------------------------------------------------------
  Result<void> before_write(const BlockCopy& copy) override;
  Result<void> after_write(const BlockCopy& copy, std::uint64_t payload_sum) override;
  void write_failed(const BlockCopy& copy, const Error& error) noexcept override;
  void before_read(const BlockCopy& copy) noexcept override;
  void after_read(const BlockCopy& copy, const Result<std::uint64_t>& sum) noexcept override;

 private:
  DiskTier(const DiskStoreConfig& config, std::unique_ptr<store::DiskStore> store, Log log,
           Now now);
  TimePoint time() const { return now_ ? now_() : store::Clock::now(); }
  DiskHealth health_at(TimePoint now) noexcept;
  void say(const std::string& line) const {
    if (log_) log_(line);
  }
  void say_damaged(store::Slot slot);
  void quarantine(store::Slot slot, const store::SlotRecord& record);
  std::span<const Token> tokens_to_write(const BlockCopy& copy, std::size_t count) const;
  void read_tokens(const BlockCopy& copy);

  const DiskStoreConfig config_;
  const Log log_;
  const Now now_;  // null: the real clock, and threads
  const std::unique_ptr<store::DiskStore> store_;
  store::Health health_;
  TierPool* pool_ = nullptr;        // set by attach()
  std::shared_ptr<BlockSet> host_;  // with tokens, or null
  store::LoadCounts loaded_;
  RecentSlots recent_;
  std::atomic<std::uint64_t> damaged_blocks_{0};
  std::shared_ptr<void> collector_;
  std::unique_ptr<RestoredHolds> restored_;
  std::unique_ptr<store::Keeper> keeper_;  // ends before the others
};

}  // namespace kvbm::detail
