#include "store/survey.h"

#include "store/token_entry.h"

namespace kvbm::store {
namespace {

// More is what a process left that died while it changed the size.
Result<void> check_size(const File* file, const char* name, std::uint64_t bytes) {
  const std::uint64_t found = file ? file->size() : 0;
  if (file && found >= bytes) return {};
  return Error{ErrorCode::OperationFailed, 0, 0, 0,
               std::string("the store is incomplete: ") + name +
                   (file ? " has " + std::to_string(found) + " bytes" : " is missing") +
                   "; its manifest asks for " + std::to_string(bytes) + " bytes"};
}

}  // namespace

Result<Manifest> survey_manifest(const StoreFiles& files) {
  KVBM_TRY(auto manifest, read_manifest(*files.manifest));
  // Its owner may have been writing one of the superblocks just now.
  for (int i = 0; i < 3 && manifest && !manifest->damage.empty(); ++i) {
    KVBM_TRY(manifest, read_manifest(*files.manifest));
  }
  if (!manifest) {
    return Error{ErrorCode::OperationFailed, 0, 0, 0,
                 "this is no store: the manifest is empty, so its making was never finished"};
  }
  const StoreShape& shape = manifest->superblock.shape;
  const std::uint64_t slots = shape.num_slots;
  KVBM_CHECK_OK(check_size(files.index.get(), kIndexName, slots * kRecordBytes));
  KVBM_CHECK_OK(check_size(files.blocks.get(), kBlocksName, shape.payload_bytes()));
  if (shape.keeps_tokens) {
    KVBM_CHECK_OK(check_size(files.tokens.get(), kTokensName, slots * token_entry_bytes(shape)));
  }
  return *std::move(manifest);
}

}  // namespace kvbm::store
