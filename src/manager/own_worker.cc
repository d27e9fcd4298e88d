#include "manager/own_worker.h"

#include <chrono>
#include <utility>

#include "base/random_bits.h"

namespace kvbm::detail {

Result<std::unique_ptr<OwnWorker>> OwnWorker::create(RankInfo rank,
                                                     std::span<TierPool* const> tiers) {
  rank.epoch = random_bits();
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::uint64_t digest = tiers.front()->layout()->content_digest();
  remote::Blockset blockset{.kvbm_version = KVBM_VERSION,
                            .model = rank.model,
                            .hash_profile = rank.hash_profile,
                            .worker_id = rank.worker_id,
                            .incarnation = rank.epoch,
                            .started_at_ns = static_cast<std::uint64_t>(
                                std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()),
                            .key_fingerprint = rank.key_fingerprint,
                            .content_digest = digest,
                            .block_size = rank.block_size};
  // Without it nobody reads this process's memory, and blocks are sent.
  if (auto process = ProcessIdentity::of_this_process()) blockset.process = *process;
  for (const TierPool* tier : tiers) {
    KVBM_TRY(auto blocks, remote::TierBlocks::of(tier->tier(), *tier->layout()));
    blockset.tiers.push_back(std::move(blocks));
  }
  return std::unique_ptr<OwnWorker>(new OwnWorker({std::move(rank), digest}, std::move(blockset)));
}

void OwnWorker::set_address(std::string address) {
  MutexLock lock(mutex_);
  blockset_.address = std::move(address);
}

std::vector<std::byte> OwnWorker::blockset() {
  MutexLock lock(mutex_);
  return remote::encode(blockset_);
}

Result<void> OwnWorker::accept(const WorkerInfo& peer, std::span<const std::byte> blockset) {
  KVBM_TRY(const remote::Blockset theirs, remote::decode_blockset(blockset));
  if (theirs.worker_id == peer.rank.worker_id && theirs.incarnation == peer.rank.epoch &&
      theirs.content_digest == peer.content_digest) {
    return {};
  }
  return Error{ErrorCode::InvalidConfig, 0, theirs.worker_id, peer.rank.worker_id,
               "the peer's blockset is of worker " + std::to_string(theirs.worker_id) +
                   ", and it says that it is worker " + std::to_string(peer.rank.worker_id)};
}

}  // namespace kvbm::detail
