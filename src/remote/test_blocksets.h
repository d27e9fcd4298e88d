// A blockset with something in every field.
#pragma once

#include "remote/blockset.h"

namespace kvbm::remote {

// Its memory is nobody's: the same bytes each time.
inline Blockset test_blockset(WorkerID worker = 5) {
  Blockset set{.kvbm_version = "0.2.0",
               .nixl_version = "1.0",
               .address = "127.0.0.1:7000",
               .model = "llama",
               .hash_profile = "kvbm",
               .worker_id = worker,
               .incarnation = 0x1122334455667788,
               .started_at_ns = 1'000'000,
               .key_fingerprint = 9,
               .content_digest = 77,
               .block_size = 16};
  set.process = ProcessIdentity{
      .boot_id = {1, 2, 3}, .pid_namespace = 4, .start_ticks = 5, .pid = 6, .user = 7};
  set.nixl_metadata = {std::byte{1}, std::byte{0}, std::byte{255}};
  set.tiers.push_back({.tier = Tier::Device,
                       .storage = {StorageType::Kind::Device, 1},
                       .num_blocks = 4,
                       .memories = {{0x10000, 400}, {0x20000, 400}},
                       .fragments_of_region = {1, 2},
                       .fragments = {{0, 0, 100, 100}, {1, 0, 30, 100}, {1, 50, 50, 100}}});
  set.tiers.push_back({.tier = Tier::Host,
                       .storage = {StorageType::Kind::Pinned, 0},
                       .num_blocks = 10,
                       .memories = {{0x7000'0000'0000, 1 << 20}},
                       .fragments_of_region = {1, 1},
                       .fragments = {{0, 64, 100, 256}, {0, 164, 80, 256}}});
  return set;
}

}  // namespace kvbm::remote
