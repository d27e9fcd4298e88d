// Random operations on block stores, each of them compared with an oracle.
//
// A history is a list of records drawn from a seed. Operations are total: they name handles, stores
// and blocks by a number modulo what is there, and do nothing where nothing is there. So any part
// of a history is a history, and one that fails can be shortened.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "block_store_oracle.h"

namespace kvbm::model {

struct HistoryOptions {
  std::uint64_t seed = 0;
  std::size_t operations = 1000;
  std::size_t stores = 2;
  std::size_t blocks = 16;          // of the largest store
  std::uint32_t conversations = 4;  // chains of names; later ones branch off the first
  std::uint32_t length = 7;         // of each
  EvictionPolicy policy = EvictionPolicy::Lru;
  // Without resets, protection and what ends with time: eviction is plain Lru then.
  bool is_calm = false;
  std::size_t check_every = 1;  // operations per check_invariants()
  Mistake mistake = Mistake::None;
};

struct Operation {
  std::uint8_t kind = 0;
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
};

std::vector<Operation> draw_operations(const HistoryOptions& options);

// What the first operation whose results differ from the oracle's did, or nothing. A line per
// operation goes to `spelling`, if given. A broken invariant aborts.
std::optional<std::string> run_history(const HistoryOptions& options,
                                       std::span<const Operation> operations,
                                       std::ostream* spelling = nullptr);

}  // namespace kvbm::model
