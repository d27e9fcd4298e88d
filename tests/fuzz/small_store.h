// The store that fuzzing starts from: as small as can be, and always the same.
#pragma once

#include <array>
#include <cstring>
#include <vector>

#include "store/superblock.h"
#include "store/test_store.h"

namespace kvbm::fuzz {

inline constexpr std::uint32_t kSlots = 8;
inline constexpr std::size_t kBlockBytes = 24;
inline constexpr std::size_t kTokenEntryBytes = 12;

inline store::StoreShape small_shape() {
  return {.model = "m",
          .layout = "l",
          .layout_digest = 5,
          .region_bytes = {16, 8},
          .page_size = 2,
          .hash_profile = "kvbm",
          .key_fingerprint = 0,
          .num_slots = kSlots,
          .keeps_tokens = true};
}

inline store::Superblock small_superblock(std::uint64_t sequence) {
  store::Superblock superblock{.shape = small_shape(),
                               .store_id = 77,
                               .sequence = sequence,
                               .created = 1'000'000'000,
                               .owner = 1,
                               .epochs = {},
                               .counters = {}};
  superblock.epochs[1] = 1;
  return superblock;
}

// An empty one.
inline store::MemoryFiles small_store() {
  store::MemoryFiles files;
  const store::StoreShape shape = small_shape();
  files.manifest->resize(store::kManifestBytes).value();
  files.index->resize(kSlots * store::kRecordBytes).value();
  files.tokens->resize(kSlots * kTokenEntryBytes).value();
  files.blocks->resize(shape.payload_bytes()).value();
  for (const std::uint64_t place : {0u, 1u}) {
    files.manifest->write(encode(small_superblock(place + 1)), place * store::kSuperblockBytes)
        .value();
  }
  return files;
}

}  // namespace kvbm::fuzz
