// Disk tiers that survive, for the benches.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kvbm/detail/hold.h"
#include "kvbm/result.h"
#include "store/disk_store.h"
#include "tiers/disk_tier.h"

namespace kvbm::bench {

// A new folder that is gone with its contents at the end.
class TemporaryFolder {
 public:
  // Errors: OperationFailed with errno.
  static Result<TemporaryFolder> create(const std::string& directory);
  ~TemporaryFolder();
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::move(other.path_)) {
    other.path_.clear();
  }
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;

  const std::string& path() const noexcept { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// What a store of so many blocks with this content is.
store::StoreShape store_shape(const BlockContent& content, const LayoutConfig& config);

// A disk tier over the store in this folder, with what survived there. Errors: those of DiskTier.
Result<std::shared_ptr<detail::TierPool>> open_tier(
    const std::string& folder, const std::shared_ptr<const BlockContent>& content,
    const LayoutConfig& config);

// Names of chains of equal length, which follow from the seed.
SequenceHash chain_hash(std::uint64_t seed, std::size_t chain, std::size_t position);
std::vector<SequenceHash> chain_hashes(std::uint64_t seed, std::size_t chain, std::size_t length);

// All blocks of an empty pool, as chains whose blocks lie in random places, in the order of the
// chains.
std::vector<detail::CompleteHold> name_all(detail::TierPool& pool, std::size_t chain_length,
                                           std::uint64_t seed);

}  // namespace kvbm::bench
