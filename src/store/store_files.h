// The files of a store: what it is, what lies where, the blocks, and their tokens.
#pragma once

#include <memory>
#include <string>

#include "kvbm/result.h"
#include "platform/os/file.h"

namespace kvbm::store {

inline constexpr const char* kManifestName = "kvbm-manifest";
inline constexpr const char* kIndexName = "kvbm-index";
inline constexpr const char* kTokensName = "kvbm-tokens";
inline constexpr const char* kBlocksName = "kvbm-blocks";

struct StoreFiles {
  std::shared_ptr<File> manifest;
  std::shared_ptr<File> index;   // a record per slot
  std::shared_ptr<File> tokens;  // null where none are kept
  std::shared_ptr<File> blocks;  // an extent per slot; whoever has it open for writing is the owner
};

// Opens what is in the directory, or makes empty files, and becomes their owner. `keep_tokens`
// says whether a file of tokens is made where there is none. Errors: OperationFailed with errno,
// naming the path; also if there is another owner. What a failure made is removed.
Result<StoreFiles> open_store_files(const std::string& directory, bool keep_tokens);
// Those that were never used. Requires: the caller is the owner.
void remove_empty_files(const std::string& directory);
// Opens what is in the directory without owning it, to look at it while its owner works, too.
Result<StoreFiles> open_store_files_to_read(const std::string& directory);

}  // namespace kvbm::store
