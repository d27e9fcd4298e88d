#include "store/store_files.h"

#include <cerrno>
#include <filesystem>
#include <system_error>

namespace kvbm::store {
namespace {

namespace fs = std::filesystem;

Result<std::shared_ptr<File>> open_tokens(const std::string& path, OpenOptions options) {
  auto tokens = open_file(path, options);
  if (!tokens && tokens.error().native == ENOENT) return std::shared_ptr<File>();
  return tokens;
}

// In this order, so that whoever comes second changes nothing.
Result<void> open_in(const std::string& directory, bool keep_tokens, StoreFiles& files) {
  const std::string prefix = directory + "/";
  KVBM_TRY(files.blocks, open_file(prefix + kBlocksName, {.create = true, .locked = true}));
  // Small records anywhere: the page cache gathers them.
  KVBM_TRY(files.manifest, open_file(prefix + kManifestName, {.create = true, .direct = false}));
  KVBM_TRY(files.index, open_file(prefix + kIndexName, {.create = true, .direct = false}));
  KVBM_TRY(files.tokens,
           open_tokens(prefix + kTokensName, {.create = keep_tokens, .direct = false}));
  return {};
}

}  // namespace

Result<StoreFiles> open_store_files(const std::string& directory, bool keep_tokens) {
  std::error_code failed;
  // If it is something else than a directory, opening files in it says so.
  const bool is_new = !fs::exists(directory, failed) && !failed;
  if (is_new) fs::create_directory(directory, failed);
  if (failed) {
    return Error{ErrorCode::OperationFailed, failed.value(), 0, 0,
                 "cannot use or make the store's directory " + directory};
  }
  StoreFiles files;
  if (auto opened = open_in(directory, keep_tokens, files); !opened) {
    if (files.blocks) remove_empty_files(directory);
    if (is_new) fs::remove(directory, failed);
    return std::move(opened).error();
  }
  return files;
}

void remove_empty_files(const std::string& directory) {
  std::error_code ignored;
  for (const char* name : {kManifestName, kIndexName, kTokensName, kBlocksName}) {
    const std::string path = directory + "/" + name;
    if (fs::file_size(path, ignored) == 0) fs::remove(path, ignored);
  }
}

Result<StoreFiles> open_store_files_to_read(const std::string& directory) {
  const std::string prefix = directory + "/";
  OpenOptions options{.access = OpenOptions::Access::ReadOnly};
  StoreFiles files;
  KVBM_TRY(files.blocks, open_file(prefix + kBlocksName, options));
  options.direct = false;
  KVBM_TRY(files.manifest, open_file(prefix + kManifestName, options));
  KVBM_TRY(files.index, open_file(prefix + kIndexName, options));
  KVBM_TRY(files.tokens, open_tokens(prefix + kTokensName, options));
  return files;
}

}  // namespace kvbm::store
