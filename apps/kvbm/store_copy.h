// Blocks of stores to and from files.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "kvbm/result.h"
#include "store/export_blocks.h"
#include "store/import_blocks.h"

namespace kvbm::app {

// "-" is standard output. The file has its name only when it is whole. Errors: those of
// open_to_look(), export_blocks() and NewFile.
Result<store::ExportReport> export_store(const std::string& directory, const std::string& file,
                                         const store::ExportOptions& options);
std::string to_table(const store::ExportReport& report);

// "-" is standard input. `progress` is told of blocks, done and at most. Errors: those of
// open_to_look(), import_blocks() and DiskStore::open(), with how many blocks were imported before.
Result<store::ImportReport> import_store(
    const std::string& file, const std::string& directory,
    const std::function<void(std::uint64_t done, std::uint64_t total)>& progress);
std::string to_table(const store::ImportReport& report);

}  // namespace kvbm::app
