// Random lives of one store, whose power goes at any instant.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "recording_file.h"
#include "store/disk_store.h"
#include "store/health.h"
#include "store/keeper.h"

namespace kvbm::power_loss {

// The four files of a store.
class Disk {
 public:
  Disk();
  // As another process finds it after this one was killed, or after a loss of power.
  Disk after_kill() const;
  Disk after(const Damage& damage) const;
  store::StoreFiles files() const;
  void set_hook(const std::function<void()>& hook) const;

 private:
  // Manifest, index, tokens, blocks.
  std::array<std::shared_ptr<RecordingFile>, 4> files_;
};

// One put, known by the number that its payload begins with.
struct Put {
  store::Slot slot;
  SequenceHash hash;
  NamespaceId name_space;
  std::uint32_t epoch;
};

// Numbers of puts by the slots that they are in.
using Slots = std::map<store::Slot, std::uint64_t>;

// What whoever uses the store knows of it.
struct Known {
  std::map<std::uint64_t, Put> puts;               // all that may be found
  Slots in_slots;                                  // what a process that starts now must find
  Slots durable;                                   // what must be found after a loss of power
  std::set<std::uint64_t> without_tokens;          // puts whose tokens were lost
  std::array<std::uint32_t, 256> oldest_epochs{};  // what is older was reset, for good
};

// Everything that happens is decided by the seed.
class History {
 public:
  explicit History(std::uint64_t seed);
  // Goes on until the power was lost `losses` times more; what is left each time is opened and
  // compared with what is known. False once something was wrong.
  bool run(std::uint64_t losses);
  // The first thing that was wrong.
  const std::string& failure() const noexcept { return failure_; }

  // Blocks that were offered after losses of power, and how many of them had not their bytes.
  std::uint64_t offered() const noexcept { return offered_; }
  std::uint64_t spoiled() const noexcept { return spoiled_; }

 private:
  // A future that begins now: another one than the one that goes on.
  struct Fork {
    Disk disk;
    Known known;
  };

  bool happens(double probability) { return std::bernoulli_distribution(probability)(random_); }
  std::uint32_t below(std::uint32_t bound) {
    return std::uniform_int_distribution<std::uint32_t>(0, bound - 1)(random_);
  }
  void fail(const std::string& what);
  bool is_over() const noexcept { return !failure_.empty() || losses_ == 0 || fork_.has_value(); }

  void live();
  void work(store::DiskStore& store, store::Keeper& keeper);
  void put(store::DiskStore& store);
  void clear(store::DiskStore& store);
  void reset(store::DiskStore& store);
  void sync(store::Keeper& keeper);
  // Between any two changes of any file.
  void instant();
  void lose_power();
  Damage any_damage();
  struct Found {
    Slots in_slots;
    std::set<std::uint64_t> without_tokens;
  };
  // Whether the store, which was just opened, has what is due and nothing that is wrong.
  Found compare(store::DiskStore& store, const Disk& disk, const Slots& due);
  // The number of the put that a block is of, which verifies.
  std::optional<std::uint64_t> compare_block(store::DiskStore& store, store::Slot slot,
                                             const store::SlotRecord& record);

  std::mt19937_64 random_;
  const double syncs_;  // the share of operations that are followed by one
  std::uint64_t losses_ = 0;
  std::string failure_;
  std::uint64_t offered_ = 0;
  std::uint64_t spoiled_ = 0;

  Disk disk_;
  Known known_;
  std::uint32_t slots_ = 0;       // of the last life
  std::uint32_t next_slots_ = 0;  // of this one
  bool is_open_ = false;
  std::uint64_t next_number_ = 1;
  std::optional<Fork> fork_;
};

}  // namespace kvbm::power_loss
