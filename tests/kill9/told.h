// What a process says of the blocks in its disk tier, in memory that outlives it, and what follows
// from it for the next process.
#pragma once

#include <array>
#include <atomic>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "kvbm/types.h"

namespace kvbm::kill9 {

struct Name {
  NamespaceId name_space;
  std::uint64_t hash;
  friend auto operator<=>(const Name&, const Name&) = default;
};

struct Entry {
  enum class Kind : std::uint8_t {
    Writes,    // is about to write this block into this slot
    Has,       // the write with this number has ended: the block can be matched in this slot
    Resets,    // is about to forget the blocks of the namespace
    HasReset,  // and did
  };
  Kind kind = Kind::Writes;
  Name name = {};
  BlockId slot = 0;
  std::uint64_t write = 0;  // numbers of writes never come again
};

// Shared by a process and its children. Any thread of any of them appends; what an append that has
// returned said is there whatever becomes of the process.
class Log {
 public:
  static Log& create();  // lives as long as the process
  void append(const Entry& entry);
  std::uint64_t next_write() noexcept { return writes_.fetch_add(1) + 1; }

  // Calls visit(entry) for each, in order, and forgets them. Requires: nobody appends.
  template <class Visit>
  void take_all(Visit visit) {
    const std::size_t count = std::min(kCapacity, appended_.load());
    for (std::size_t i = 0; i < count; ++i) {
      if (lines_[i].is_whole.exchange(false)) visit(lines_[i].entry);
    }
    appended_ = 0;
  }

  // The first thing that a child found wrong, which ends it.
  [[noreturn]] void fail(const std::string& what);
  std::string failure() const;

 private:
  static constexpr std::size_t kCapacity = 1 << 18;
  struct Line {
    Entry entry;
    std::atomic<bool> is_whole;
  };

  std::atomic<std::size_t> appended_;
  std::atomic<std::uint64_t> writes_;
  std::array<Line, kCapacity> lines_;
  std::atomic<bool> has_failed_;
  std::array<char, 1024> failure_;
};

// What the process that comes next must find, and what it may find.
class Told {
 public:
  // Takes in what was said; resets that had not ended may have been, or not.
  void take_in(Log& log);

  // Names of blocks that could be matched and whose slots were not written to since.
  std::map<BlockId, Name> due() const;
  // Whether it was ever put and not reset since.
  bool may_be_there(const Name& name) const { return put_.contains(name); }

 private:
  struct Held {
    Name name;
    std::uint64_t write;
    bool can_be_matched;
  };
  void take_in(const Entry& entry, std::uint64_t number);
  void forget_slots_of(NamespaceId name_space);

  std::map<BlockId, Held> slots_;
  std::map<Name, std::uint64_t> put_;               // and the number of the entry that said so last
  std::map<NamespaceId, std::uint64_t> resetting_;  // and the number of the entry that said so
  std::uint64_t entries_ = 0;
};

}  // namespace kvbm::kill9
