// What a pool knows of each block, as parallel arrays: a match reads names only, 16 bytes a block,
// and a chain whose blocks lie side by side streams through the cache. 56 bytes a block in all;
// with the hash index 64.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/large_array.h"
#include "kvbm/types.h"

namespace kvbm {

enum class BlockStage : std::uint8_t {
  Absent,      // not in the pool yet
  Free,        // without content
  Mutable,     // being filled by its one owner
  Complete,    // named by its one owner
  Registered,  // can be matched while its epoch is its namespace's
  Detached,    // never matched again; keeps its ties and its holds
  Duplicate,   // another block carries its name: held, never matched, free after its last hold
};

// The epoch of names that are never matched; no namespace is ever in it.
inline constexpr std::uint16_t kNoEpoch = UINT16_MAX;

// Stage, namespace, epoch and parent in one word, so that a match compares all of them at once.
struct BlockTag {
  BlockId parent = kNoBlock;  // of a Duplicate: the registered block that it holds, if it does
  std::uint16_t epoch = 0;    // of its namespace, when it was named
  NamespaceId name_space = 0;
  BlockStage stage = BlockStage::Absent;

  std::uint64_t pack() const noexcept {
    return std::uint64_t{parent} << 32 | std::uint64_t{epoch} << 16 |
           std::uint64_t{name_space} << 8 | static_cast<std::uint64_t>(stage);
  }
  static BlockTag unpack(std::uint64_t word) noexcept {
    return {static_cast<BlockId>(word >> 32), static_cast<std::uint16_t>(word >> 16),
            static_cast<NamespaceId>(word >> 8), static_cast<BlockStage>(word & 0xff)};
  }
};

// Atomic because a match looks at blocks whose owners are naming them. The owner writes the hash,
// then, under the mutex that every match holds, the tag that makes it count.
struct BlockName {
  std::atomic<std::uint64_t> hash;
  std::atomic<std::uint64_t> tag;
};

struct BlockTies {
  std::atomic<std::uint32_t> holds;  // moves between 0 and 1 under the pool's mutex only
  std::uint32_t pinned_children;     // of `children`, those with a hold or a pinned child
  std::uint32_t children : 31;       // registered here with this block as parent
  std::uint32_t listed : 1;          // the eviction order has it
  std::uint32_t returned_tick;       // BasicMetadata; the low half
};

// Links in the free list or in the eviction order. A held block is in neither and may keep the name
// of its parent here instead: see BlockTable::parent_hash().
struct BlockPlace {
  BlockId prev;
  BlockId next;
};

struct BlockRest {
  std::uint64_t digest;  // keyed, of the whole prefix; 0 without a key
  std::uint32_t position;
  std::uint16_t token_count;
  std::uint8_t priority;
  std::uint8_t flags;
};

// Bits of BlockRest::flags.
namespace block_flags {
inline constexpr std::uint8_t kHint = 0x07;       // of the caller, 0 .. 7
inline constexpr std::uint8_t kPlaced = 0x40;     // the order's own: it was in the order before
inline constexpr std::uint8_t kBorrowed = 0x20;   // held, if by nobody else, for no use of it
inline constexpr std::uint8_t kProtected = 0x80;  // evicted last, until it is used
}  // namespace block_flags

// Access to the rows. A copy in a local variable keeps the arrays' addresses in registers across
// the atomic stores of a loop, behind which a compiler would load them again.
class BlockRows {
 public:
  BlockName& name(BlockId id) const noexcept { return names_[id]; }
  BlockTies& ties(BlockId id) const noexcept { return ties_[id]; }
  BlockPlace& place(BlockId id) const noexcept { return places_[id]; }
  BlockRest& rest(BlockId id) const noexcept { return rests_[id]; }

  SequenceHash hash(BlockId id) const noexcept {
    return SequenceHash(names_[id].hash.load(std::memory_order_relaxed));
  }
  std::uint64_t tag_word(BlockId id) const noexcept {
    return names_[id].tag.load(std::memory_order_relaxed);
  }
  BlockTag tag(BlockId id) const noexcept { return BlockTag::unpack(tag_word(id)); }
  void set_tag(BlockId id, const BlockTag& tag) const noexcept {
    names_[id].tag.store(tag.pack(), std::memory_order_relaxed);
  }
  BlockStage stage(BlockId id) const noexcept {
    return static_cast<BlockStage>(tag_word(id) & 0xff);
  }
  void set_stage(BlockId id, BlockStage stage) const noexcept {
    names_[id].tag.store((tag_word(id) & ~std::uint64_t{0xff}) | static_cast<std::uint64_t>(stage),
                         std::memory_order_relaxed);
  }
  BlockId parent(BlockId id) const noexcept { return static_cast<BlockId>(tag_word(id) >> 32); }
  void set_parent(BlockId id, BlockId parent) const noexcept {
    names_[id].tag.store((tag_word(id) & 0xffffffffu) | std::uint64_t{parent} << 32,
                         std::memory_order_relaxed);
  }

  // The name of a Complete block counts for nothing, unless its owner gives it another just now.
  void forget_name(BlockId id) const noexcept {
    std::uint64_t word = tag_word(id);
    BlockTag tag = BlockTag::unpack(word);
    if (tag.stage != BlockStage::Complete) return;
    tag.epoch = kNoEpoch;
    names_[id].tag.compare_exchange_strong(word, tag.pack(), std::memory_order_relaxed);
  }

  std::uint32_t priority(BlockId id) const noexcept { return rests_[id].priority; }

  // A block with a hold, or with a pinned child, keeps all blocks before it in its chain.
  bool is_pinned(BlockId id) const noexcept {
    return ties_[id].holds.load(std::memory_order_relaxed) > 0 || ties_[id].pinned_children > 0;
  }

  // The parent's name of a Complete or Duplicate block. A registered block has a parent here, or is
  // an orphan and has it in the Orphans.
  SequenceHash parent_hash(BlockId id) const noexcept {
    return SequenceHash(std::uint64_t{places_[id].prev} << 32 | places_[id].next);
  }
  void set_parent_hash(BlockId id, SequenceHash hash) const noexcept {
    places_[id] = {static_cast<BlockId>(hash.value() >> 32), static_cast<BlockId>(hash.value())};
  }

 protected:
  BlockName* names_ = nullptr;
  BlockTies* ties_ = nullptr;
  BlockPlace* places_ = nullptr;
  BlockRest* rests_ = nullptr;
};

class BlockTable : public BlockRows {
 public:
  // `extra_places`: further list links, for the heads of lists, at kNoBlock > id >= capacity.
  BlockTable(std::size_t capacity, std::size_t extra_places)
      : name_memory_(capacity, 0),
        ties_memory_(capacity, 1),
        place_memory_(capacity + extra_places, 2),
        rest_memory_(capacity, 3) {
    names_ = &name_memory_[0];
    ties_ = &ties_memory_[0];
    places_ = &place_memory_[0];
    rests_ = &rest_memory_[0];
  }
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  std::size_t capacity() const noexcept { return name_memory_.size(); }
  std::size_t bytes() const noexcept {
    return name_memory_.bytes() + ties_memory_.bytes() + place_memory_.bytes() +
           rest_memory_.bytes();
  }

 private:
  LargeArray<BlockName> name_memory_;
  LargeArray<BlockTies> ties_memory_;
  LargeArray<BlockPlace> place_memory_;
  LargeArray<BlockRest> rest_memory_;
};

}  // namespace kvbm
