// Takes exported blocks into a store.
#pragma once

#include <cstdint>
#include <functional>

#include "kvbm/result.h"
#include "store/disk_store.h"
#include "store/export_file.h"

namespace kvbm::store {

struct ImportReport {
  std::uint64_t blocks = 0;  // in the file, as far as it was read
  std::uint64_t imported = 0;
  std::uint64_t present = 0;      // left out: the store has a block of this name in this namespace
  std::uint64_t did_not_fit = 0;  // left out: no slot was free
  std::uint64_t damaged = 0;      // left out: the bytes differ from what was exported
};

// Errors: InvalidConfig, naming what differs with both values, unless blocks of the file and of the
// store are of one kind. How many there are, and whether tokens are kept, may differ.
Result<void> check_importable(const StoreShape& file, const StoreShape& store);

// Reads all blocks of the file. Those that are whole and new go to slots that hold nothing, as long
// as there are any, in the present epoch of their namespace, and durably: first the payloads, then
// the records. `report` is true to what happened also after an error. Requires: a store whose
// records were not loaded. Errors: those of check_importable(), of the reader and of File. Cost:
// memory of one block, and of some 50 bytes per block that the store has.
Result<void> import_blocks(DiskStore& store, ExportReader& reader, ImportReport& report,
                           const std::function<void(std::uint64_t blocks)>& progress = {});

}  // namespace kvbm::store
