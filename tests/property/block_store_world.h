// The stores of a history with their oracles, and all handles on their blocks.
#pragma once

#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "block_store_history.h"
#include "logical/pool/hold_ops.h"

namespace kvbm::model {

struct Slot {
  int number;
  BlockStore::Owner owner;  // null: closed
  BlockStore* store;        // lives while something refers to it
  Oracle oracle;
  std::weak_ptr<void> backing;  // expires with the store
  std::size_t weak = 0;
};

template <class HoldType>
struct Held {
  Slot* slot;
  HoldType hold;
  std::vector<BlockId> ids = {};  // of a run
};

// Names drawn by an operation, with the memory that they lie in.
struct DrawnNames {
  std::vector<SequenceHash> hashes;
  std::vector<std::uint64_t> digests;
  NamespaceId name_space = 0;
  Names names() const { return {hashes, digests, name_space}; }
};
std::ostream& operator<<(std::ostream& out, const DrawnNames& drawn);

class World {
 public:
  struct Kind {
    void (World::*apply)(const Operation&);
    std::uint32_t weight;
    bool is_calm;  // see HistoryOptions
  };
  static std::span<const Kind> kinds();

  // Operations are spelled to `spelling`, if given, while they run.
  World(const HistoryOptions& options, std::ostream* spelling);

  void apply(const Operation& operation);
  // Compares what can be seen from outside: the counters; and where `everything`, all names and
  // all handles.
  void audit(bool everything);
  void check_invariants() const;

  const std::optional<std::string>& failure() const { return failure_; }

 private:
  // --- operations; block_store_world.cc, block_store_world_use.cc
  void open(std::size_t at, std::uint32_t variant);
  void open(std::size_t at, const BlockStoreOptions& options);
  void retire(std::size_t at);
  void close(const Operation& op);
  void restart(const Operation& op);
  void add_blocks(const Operation& op);
  void allocate(const Operation& op);
  void complete(const Operation& op);
  void rename(const Operation& op);
  void uncomplete(const Operation& op);
  void register_some(const Operation& op);
  void register_wrong(const Operation& op);
  void grow(const Operation& op);
  void match(const Operation& op);
  void match_run(const Operation& op);
  void scan(const Operation& op);
  void borrow(const Operation& op);
  void give_back(const Operation& op);
  void touch(const Operation& op);
  void contains(const Operation& op);
  void share(const Operation& op);
  void split(const Operation& op);
  void downgrade(const Operation& op);
  void upgrade(const Operation& op);
  void forget_weak(const Operation& op);
  void release_one(const Operation& op);
  void release_run(const Operation& op);
  void release_many(const Operation& op);
  void release_unregistered(const Operation& op);
  void detach(const Operation& op);
  void reset(const Operation& op);
  void reset_namespace(const Operation& op);
  void retain(const Operation& op);
  void set_priority(const Operation& op);
  void protect(const Operation& op);
  void lease(const Operation& op);
  void release_lease(const Operation& op);
  void advance(const Operation& op);
  void copy_metadata(const Operation& op);

  // --- what they are made of
  BlockIdentity draw_identity(std::uint32_t conversation, std::uint32_t position,
                              std::uint32_t variant) const;
  DrawnNames draw_names(const Operation& op) const;
  SequenceHash name(std::uint32_t conversation, std::uint32_t position) const;
  Slot& slot(std::uint32_t which) { return *open_[which % open_.size()]; }
  void allocate(Slot& slot, std::size_t count, bool report);
  void name_block(Slot& slot, detail::MutableHold block, const BlockIdentity& identity);
  void register_blocks(Slot& slot, std::vector<detail::CompleteHold> blocks);
  // A held block of the stores that are open, unregistered ones too; kNoBlock if none was drawn.
  std::pair<Slot*, BlockId> draw_held(std::uint32_t which) const;
  void collect_closed();
  void audit_handles();
  void audit_names(Slot& slot);
  void audit_ticks(Slot& slot);
  void compare_identity(const Slot& slot, BlockId id);
  void compare_stats(Slot& slot);

  template <class... Parts>
  void say(const Parts&... parts) {
    if (spelling_) (*spelling_ << ... << parts);
  }
  // The first difference is kept.
  template <class A, class B>
  bool expect_equal(const char* what, const A& store, const B& oracle) {
    if (store == oracle || failure_) return store == oracle;
    std::ostringstream text;
    text << what << ": the store says " << store << ", the oracle " << oracle;
    failure_ = text.str();
    return false;
  }
  bool expect(bool condition, const char* what) {
    if (!condition && !failure_) failure_ = what;
    return condition;
  }

  const HistoryOptions options_;
  std::ostream* const spelling_;
  std::vector<std::unique_ptr<Slot>> open_;
  std::vector<std::unique_ptr<Slot>> closed_;  // those that handles refer to
  std::vector<Held<detail::MutableHold>> mutables_;
  std::vector<Held<detail::CompleteHold>> completes_;
  std::vector<Held<detail::ImmutableHold>> immutables_;
  std::vector<Held<detail::ImmutableHold>> borrowed_;
  std::vector<Held<detail::RunHold>> runs_;
  std::vector<Held<detail::WeakHold>> weaks_;
  std::vector<std::pair<Slot*, LeaseId>> leases_;  // also some that are over
  std::int64_t clock_ = 0;
  int next_number_ = 0;
  std::optional<std::string> failure_;
};

}  // namespace kvbm::model
