#include "remote/blockset_table.h"

#include <cstdio>
#include <cstdlib>
#include <set>
#include <utility>

namespace kvbm::remote {
namespace {

using Imported = std::shared_ptr<const ImportedBlocks>;

Error refused(std::string why, std::uint64_t requested, std::uint64_t available) {
  return Error{ErrorCode::InvalidConfig, 0, requested, available, std::move(why)};
}

std::string name_of(WorkerID worker) { return "worker " + std::to_string(worker); }

Error unlike(WorkerID worker, const char* what, const std::string& theirs,
             const std::string& ours) {
  return refused(name_of(worker) + " has the " + what + " " + theirs + ", this worker has " + ours,
                 0, 0);
}

Error unlike(WorkerID worker, const char* what, std::uint64_t theirs, std::uint64_t ours) {
  Error error = unlike(worker, what, std::to_string(theirs), std::to_string(ours));
  error.requested = theirs;
  error.available = ours;
  return error;
}

}  // namespace

Result<void> BlocksetTable::check_alike(const Blockset& theirs) const {
  const WorkerID worker = theirs.worker_id;
  if (worker == own_.worker_id) {
    return refused("a blockset of " + name_of(worker) + ", which is this worker itself", worker,
                   worker);
  }
  if (theirs.model != own_.model) return unlike(worker, "model", theirs.model, own_.model);
  if (theirs.hash_profile != own_.hash_profile) {
    return unlike(worker, "hash profile", theirs.hash_profile, own_.hash_profile);
  }
  if (theirs.block_size != own_.block_size) {
    return unlike(worker, "block size", theirs.block_size, own_.block_size);
  }
  if (theirs.key_fingerprint != own_.key_fingerprint) {
    return unlike(worker, "key fingerprint", theirs.key_fingerprint, own_.key_fingerprint);
  }
  if (theirs.content_digest != own_.content_digest) {
    return unlike(worker, "content digest", theirs.content_digest, own_.content_digest);
  }
  return {};
}

Result<Imported> BlocksetTable::import_blockset(Blockset blockset) {
  KVBM_CHECK_OK(blockset.validate());
  KVBM_CHECK_OK(check_alike(blockset));
  const WorkerID worker = blockset.worker_id;
  MutexLock lock(mutex_);
  const auto known = known_.find(worker);
  if (known != known_.end()) {
    const Blockset& before = known->second->blockset;
    if (before == blockset) return known->second;
    if (before.incarnation == blockset.incarnation) {
      return refused(name_of(worker) + " has sent two blocksets of one process",
                     blockset.incarnation, before.incarnation);
    }
    if (blockset.started_at_ns <= before.started_at_ns) {
      return refused("a blockset of a process of " + name_of(worker) + " that began at " +
                         std::to_string(blockset.started_at_ns) + " ns; the known one began at " +
                         std::to_string(before.started_at_ns),
                     blockset.started_at_ns, before.started_at_ns);
    }
  } else if (known_.size() == kMaxWorkers) {
    return refused("too many workers have been imported", known_.size() + 1, kMaxWorkers);
  }
  auto imported = std::make_shared<const ImportedBlocks>(
      ImportedBlocks{std::move(blockset), last_generation_ + 1});
  known_.insert_or_assign(worker, imported);
  ++last_generation_;
  return Imported(std::move(imported));
}

Result<Imported> BlocksetTable::find(WorkerID worker) const {
  MutexLock lock(mutex_);
  const auto known = known_.find(worker);
  if (known != known_.end()) return known->second;
  return Error{ErrorCode::SourceGone, 0, worker, 0,
               "no blockset of " + name_of(worker) + " has been imported"};
}

Result<Imported> BlocksetTable::find(WorkerID worker, std::uint64_t generation) const {
  KVBM_TRY(Imported imported, find(worker));
  if (imported->generation == generation) return imported;
  return Error{ErrorCode::SourceGone, 0, generation, imported->generation,
               name_of(worker) + " was imported anew since the handle was made"};
}

bool BlocksetTable::forget(WorkerID worker) {
  MutexLock lock(mutex_);
  return known_.erase(worker) == 1;
}

std::vector<WorkerID> BlocksetTable::workers() const {
  MutexLock lock(mutex_);
  std::vector<WorkerID> workers;
  for (const auto& [worker, imported] : known_) workers.push_back(worker);
  return workers;
}

void BlocksetTable::check_invariants() const {
  MutexLock lock(mutex_);
  std::set<std::uint64_t> generations;
  for (const auto& [worker, imported] : known_) {
    const bool is_good = imported->blockset.worker_id == worker && imported->generation != 0 &&
                         imported->generation <= last_generation_ &&
                         generations.insert(imported->generation).second &&
                         check_alike(imported->blockset) && imported->blockset.validate();
    if (is_good) continue;
    std::fprintf(stderr, "blockset table: worker %llu is wrong\n",
                 static_cast<unsigned long long>(worker));
    std::abort();
  }
  if (known_.size() > kMaxWorkers) std::abort();
}

}  // namespace kvbm::remote
