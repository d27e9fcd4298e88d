// Blocks of other workers: what they are called and how they are described. They are not moved yet:
// every call that would need it answers NixlError and changes nothing.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm {

// A worker's exported blocksets, to be sent to others as bytes.
struct SerializedNixlBlockSet {
  std::vector<std::byte> bytes;
};

// Which blocks of which worker; all of one tier.
struct BlockDescriptorList {
  WorkerID worker_id;
  Tier block_set;
  std::vector<BlockId> block_indices;
};

struct IsImmutable {};
struct IsMutable {};

// A block of another worker, to be read (IsImmutable) or also written (IsMutable). Made only by a
// manager that has imported the worker's blocksets.
template <class Mutability>
class RemoteBlock {
 public:
  RemoteBlock(RemoteBlock&&) noexcept = default;
  RemoteBlock& operator=(RemoteBlock&&) noexcept = default;
  WorkerID worker_id() const noexcept { return worker_id_; }
  Tier block_set() const noexcept { return block_set_; }
  BlockId block_id() const noexcept { return block_id_; }

 private:
  RemoteBlock(WorkerID worker_id, Tier block_set, BlockId block_id)
      : worker_id_(worker_id), block_set_(block_set), block_id_(block_id) {}
  WorkerID worker_id_;
  Tier block_set_;
  BlockId block_id_;
};

}  // namespace kvbm
