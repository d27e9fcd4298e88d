// The blocksets of other workers that this one knows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "remote/blockset.h"

namespace kvbm::remote {

// What all workers whose blocks are shared must have in common, and who we are.
struct OwnBlocks {
  WorkerID worker_id = 0;
  std::string model = {};
  std::string hash_profile = {};
  std::uint64_t key_fingerprint = 0;
  std::uint64_t content_digest = 0;
  std::uint32_t block_size = 0;
};

// A worker's blockset, and which of its imports this is: never the same twice in a table.
struct ImportedBlocks {
  Blockset blockset;
  std::uint64_t generation = 0;
};

// Thread-safe. Cost of a call: logarithmic in the workers; an import copies nothing but its bytes.
class BlocksetTable {
 public:
  static constexpr std::size_t kMaxWorkers = 4096;

  explicit BlocksetTable(OwnBlocks own) : own_(std::move(own)) {}

  // Takes a worker's blockset, and returns what is known of that worker then. The same one again
  // changes nothing; one of a process that began later replaces the one before, and handles of that
  // are refused from then on.
  // Errors: InvalidConfig naming both values for another model, hash profile, block size, key
  // fingerprint or content digest; for our own worker id; for a process that began no later than
  // the one that is known {its time, the known time}; for two blocksets of one process; for too
  // many workers.
  Result<std::shared_ptr<const ImportedBlocks>> import_blockset(Blockset blockset)
      KVBM_EXCLUDES(mutex_);

  // What is known of a worker. Errors: SourceGone{worker id, 0} if there is nothing.
  Result<std::shared_ptr<const ImportedBlocks>> find(WorkerID worker) const KVBM_EXCLUDES(mutex_);
  // The same for a handle that was made at an import. Errors: SourceGone{generation of the handle,
  // the one of now} if the worker was imported anew meanwhile.
  Result<std::shared_ptr<const ImportedBlocks>> find(WorkerID worker,
                                                     std::uint64_t generation) const
      KVBM_EXCLUDES(mutex_);

  // Whether there was something to forget.
  bool forget(WorkerID worker) KVBM_EXCLUDES(mutex_);
  // In the order of their ids.
  std::vector<WorkerID> workers() const KVBM_EXCLUDES(mutex_);

  // For tests; aborts where something is wrong.
  void check_invariants() const KVBM_EXCLUDES(mutex_);

 private:
  Result<void> check_alike(const Blockset& blockset) const;

  const OwnBlocks own_;
  mutable Mutex mutex_;
  std::map<WorkerID, std::shared_ptr<const ImportedBlocks>> known_ KVBM_GUARDED_BY(mutex_);
  std::uint64_t last_generation_ KVBM_GUARDED_BY(mutex_) = 0;
};

}  // namespace kvbm::remote
