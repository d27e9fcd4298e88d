// Looks a store over for damage, and takes out of it what is damaged.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kvbm/result.h"
#include "store/record.h"
#include "store/store_files.h"

namespace kvbm::store {

struct CheckOptions {
  bool deep = false;    // reads every valid block, and its tokens, and compares sums
  bool repair = false;  // see check()
  // Called now and then with how many of all slots were looked at, and with both equal at the end.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};

struct CheckReport {
  // --- damage --------------------------------------------------------------------------------
  std::string damaged_superblock;      // what is wrong with one of the two; empty if nothing
  std::vector<Slot> damaged_records;   // ascending, as the next one
  std::vector<Slot> damaged_payloads;  // the bytes differ from what was put, or cannot be read
  std::vector<Slot> repeated_puts;     // their put sequence is an earlier slot's, too
  std::uint64_t repaired = 0;          // of all these

  // --- no damage -----------------------------------------------------------------------------
  std::uint64_t slots = 0;
  std::uint64_t valid = 0;
  std::uint64_t empty = 0;
  std::uint64_t forgotten = 0;       // of before a reset
  std::uint64_t stale = 0;           // a later put has the same name in the same namespace
  std::uint64_t orphans = 0;         // their parent is not there
  std::uint64_t without_tokens = 0;  // deep: not kept though the store keeps tokens, or not whole
  std::uint64_t checked_payload_bytes = 0;
  std::uint64_t last_put = 0;  // the highest put sequence

  // Things that are damaged.
  std::uint64_t damage() const noexcept {
    return (damaged_superblock.empty() ? 0 : 1) + damaged_records.size() + damaged_payloads.size() +
           repeated_puts.size();
  }
};

// Checks the superblocks, the sizes of the files and every record; see CheckOptions for more. With
// `repair` a damaged superblock is replaced by the whole one, and records that are damaged, that
// repeat a put, or whose block is damaged are overwritten with zeros, durably: their slots hold
// nothing then. Nothing else is written.
// Requires: nobody else writes the store, and with `repair` files that can be written. Errors:
// those of File, but for blocks and tokens, where an error is damage; OperationFailed if this is no
// store, no superblock is whole, or a file is shorter than the manifest asks for. Cost:
// memory of 48 bytes per valid record.
Result<CheckReport> check(const StoreFiles& files, const CheckOptions& options);

}  // namespace kvbm::store
