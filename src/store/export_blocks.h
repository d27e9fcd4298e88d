// Takes blocks out of a store, into a file of exported blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "kvbm/result.h"
#include "store/export_file.h"
#include "store/store_files.h"

namespace kvbm::store {

struct ExportOptions {
  std::optional<NamespaceId> name_space = {};  // blocks of this one only
  // Only the chains that end in blocks of these names, each from its first block on; empty: all.
  std::vector<SequenceHash> ends = {};
  // Called after each block.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};

struct ExportReport {
  std::uint64_t blocks = 0;   // that are in the file
  std::uint64_t bytes = 0;    // of their payloads
  std::uint64_t damaged = 0;  // left out: the bytes differ from what was put, or cannot be read
  std::uint64_t gone = 0;  // left out: the store's owner gave the slot to another block meanwhile
};

// Of blocks that a store has twice the one that was put last counts. Parents come before their
// children. The store is only read, and its owner may be at work. Errors: those of File and of the
// sink; those of survey_manifest(); InvalidConfig naming a hash that no block has, or whose chain
// is not whole. Cost: memory of 80 bytes a block, and one block.
Result<ExportReport> export_blocks(const StoreFiles& files, const ExportOptions& options,
                                   ExportWriter::Sink sink);

}  // namespace kvbm::store
