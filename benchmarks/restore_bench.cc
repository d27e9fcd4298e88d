#include "benchmarks/restore_bench.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <utility>

#include "logical/pool/block_store.h"
#include "logical/registry/hash_index.h"
#include "tiers/restored_holds.h"

namespace kvbm::bench {
namespace {

constexpr std::size_t kBlocks = 1'000'000;
constexpr std::size_t kLength = 1000;  // of each chain
constexpr std::size_t kChunk = 1024;   // blocks, as a reader of records would give them
constexpr std::size_t kRounds = 9;

// What a disk tier would know of a full pool, in the order of the places.
struct Survivors {
  Survivors(std::uint64_t seed, bool with_guesses) : blocks(kBlocks), holds(kBlocks) {
    std::mt19937_64 random(seed);
    std::vector<BlockId> places(kBlocks);
    std::iota(places.begin(), places.end(), BlockId{0});
    std::shuffle(places.begin(), places.end(), random);
    SequenceHash parent;
    for (std::size_t i = 0; i < kBlocks; ++i) {
      const auto position = static_cast<std::uint32_t>(i % kLength);
      RestoredBlock& block = blocks[places[i]];
      block.id = places[i];
      block.identity = {SequenceHash(random()), parent, position, 16, random()};
      if (position > 0 && with_guesses) block.parent_guess = places[i - 1];
      parent = block.identity.sequence_hash;
      holds[places[i]] = {i, places[i]};
    }
  }
  std::vector<RestoredBlock> blocks;
  std::vector<RestoredHold> holds;
};

// A store that takes them in, again and again.
class Restart {
 public:
  explicit Restart(const Survivors& survivors) : survivors_(survivors), holds_(survivors.holds) {}
  ~Restart() { end(); }
  Restart(const Restart&) = delete;
  Restart& operator=(const Restart&) = delete;

  void begin() {
    store_ = BlockStore::create({.capacity = kBlocks, .start_empty = true}).value();
    const std::span<const RestoredBlock> blocks = survivors_.blocks;
    for (std::size_t i = 0; i < kBlocks; i += kChunk) {
      store_->restore(blocks.subspan(i, std::min(kChunk, kBlocks - i)));
    }
    keep(store_->finish_restore());
  }
  void give_back() { RestoredHolds(*store_, std::exchange(holds_, {})).wait(); }
  void end() {
    if (store_ && !holds_.empty()) give_back();
    store_.reset();
    holds_ = survivors_.holds;
  }

 private:
  const Survivors& survivors_;
  BlockStore::Owner store_;
  std::vector<RestoredHold> holds_;
};

// The same rows and cells, written by somebody who knows that every guess is right and no name is
// there twice.
class PlainRows {
 public:
  explicit PlainRows(const Survivors& survivors) : survivors_(survivors) {}

  void begin() {
    constexpr std::size_t kLead = 32;
    rows_ = std::make_unique<Rows>();
    BlockTable& table = rows_->table;
    const std::vector<RestoredBlock>& blocks = survivors_.blocks;
    for (std::size_t i = 0; i < kBlocks; ++i) {
      if (i + kLead < kBlocks) {
        const RestoredBlock& soon = blocks[i + kLead];
        rows_->index.prefetch_cell(soon.identity.sequence_hash);
        if (soon.parent_guess < kBlocks) __builtin_prefetch(&table.ties(soon.parent_guess), 1);
      }
      write(table, blocks[i]);
      rows_->index.insert(blocks[i].id);
      if (blocks[i].parent_guess < kBlocks) ++table.ties(blocks[i].parent_guess).pinned_children;
    }
    keep(rows_.get());
  }
  void end() { rows_.reset(); }

 private:
  struct Rows {
    BlockTable table{kBlocks, 0};
    HashIndex index{table};
  };
  static void write(BlockTable& table, const RestoredBlock& block) {
    const BlockIdentity& identity = block.identity;
    table.name(block.id).hash.store(identity.sequence_hash.value(), std::memory_order_relaxed);
    table.set_tag(block.id, {.parent = block.parent_guess, .stage = BlockStage::Registered});
    table.set_parent_hash(block.id, identity.parent_hash);
    table.rest(block.id) = {identity.digest, identity.position,
                            static_cast<std::uint16_t>(identity.token_count),
                            static_cast<std::uint8_t>(block.priority), 0};
    table.ties(block.id).holds.store(1, std::memory_order_relaxed);
  }

  const Survivors& survivors_;
  std::unique_ptr<Rows> rows_;
};

// Sorts the puts and links the blocks in that order.
class PlainOrder {
 public:
  explicit PlainOrder(const Survivors& survivors) : survivors_(survivors), places_(kBlocks + 1) {}
  void begin() { holds_ = survivors_.holds; }
  void link() {
    std::sort(holds_.begin(), holds_.end(), [](const RestoredHold& a, const RestoredHold& b) {
      return a.put_sequence < b.put_sequence;
    });
    BlockId last = kBlocks;
    for (const RestoredHold& hold : holds_) {
      places_[last].next = hold.id;
      places_[hold.id].prev = last;
      last = hold.id;
    }
    keep(places_.data());
  }

 private:
  const Survivors& survivors_;
  std::vector<RestoredHold> holds_;
  std::vector<BlockPlace> places_;
};

// Nanoseconds for one of a million are milliseconds for all.
Row in_ms(Row row) {
  row.unit = "ms";
  return row;
}

Row restore_row(const char* name, const char* aim, const Survivors& survivors,
                const Survivors& with_guesses) {
  Restart restart(survivors);
  PlainRows plain(with_guesses);
  return in_ms(
      measure({name, [&](std::uint64_t) { restart.begin(); }, [&] { restart.end(); }, kBlocks},
              {{"the same rows and cells, unchecked", [&](std::uint64_t) { plain.begin(); },
                [&] { plain.end(); }, kBlocks}},
              aim, {.count = kRounds}));
}

Row order_row(const Survivors& survivors) {
  Restart restart(survivors);
  PlainOrder plain(survivors);
  return in_ms(measure(
      {"restore_order", [&](std::uint64_t) { restart.give_back(); },
       [&] {
         restart.end();
         restart.begin();
       },
       kBlocks},
      {{"sort and link", [&](std::uint64_t) { plain.link(); }, [&] { plain.begin(); }, kBlocks}},
      "<= 300", {.count = kRounds}));
}

}  // namespace

Result<std::vector<Row>> restore_rows(const Options& options) {
  const Survivors guessed(options.seed, true);
  const Survivors unguessed(options.seed, false);
  return std::vector<Row>{restore_row("restore", "<= 35", guessed, guessed),
                          restore_row("restore_without_guesses", "", unguessed, guessed),
                          order_row(guessed)};
}

}  // namespace kvbm::bench
