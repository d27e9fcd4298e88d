#include "benchmarks/store_fixture.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "base/xxh3.h"
#include "logical/pool/hold_ops.h"

namespace kvbm::bench {

Result<TemporaryFolder> TemporaryFolder::create(const std::string& directory) {
  std::string path = directory + "/kvbm-bench-XXXXXX";
  if (!::mkdtemp(path.data())) {
    return Error{ErrorCode::OperationFailed, errno, 0, 0, "cannot make a folder in " + directory};
  }
  return TemporaryFolder(std::move(path));
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

store::StoreShape store_shape(const BlockContent& content, const LayoutConfig& config) {
  store::StoreShape shape{.model = "kvbm bench",
                          .layout = content.description(),
                          .layout_digest = content.digest(),
                          .region_bytes = {},
                          .page_size = static_cast<std::uint32_t>(config.page_size),
                          .hash_profile = "kvbm",
                          .num_slots = static_cast<std::uint32_t>(config.num_blocks)};
  for (const ContentRegion& region : content.regions()) {
    shape.region_bytes.push_back(static_cast<std::uint32_t>(region.bytes));
  }
  return shape;
}

Result<std::shared_ptr<detail::TierPool>> open_tier(
    const std::string& folder, const std::shared_ptr<const BlockContent>& content,
    const LayoutConfig& config) {
  KVBM_TRY(auto disk,
           detail::DiskTier::open({.directory = folder}, store_shape(*content, config), {}));
  KVBM_TRY(auto layout, Layout::contiguous(content, config, disk->memory()));
  KVBM_TRY(auto pool,
           detail::TierPool::create(detail::make_block_set(Tier::Disk, std::move(layout), config),
                                    {.start_empty = true}));
  KVBM_CHECK_OK(pool->survive(std::move(disk)));
  return pool;
}

SequenceHash chain_hash(std::uint64_t seed, std::size_t chain, std::size_t position) {
  const std::uint64_t place[] = {chain, position};
  return SequenceHash(xxh3(place, sizeof place, seed));
}

std::vector<SequenceHash> chain_hashes(std::uint64_t seed, std::size_t chain, std::size_t length) {
  std::vector<SequenceHash> hashes;
  hashes.reserve(length);
  for (std::size_t i = 0; i < length; ++i) hashes.push_back(chain_hash(seed, chain, i));
  return hashes;
}

std::vector<detail::CompleteHold> name_all(detail::TierPool& pool, std::size_t chain_length,
                                           std::uint64_t seed) {
  auto free = detail::allocate(pool.store(), pool.store().capacity()).value();
  std::mt19937_64 random(seed);
  for (std::size_t i = free.size(); i > 1; --i) std::swap(free[i - 1], free[random() % i]);
  std::vector<detail::CompleteHold> named;
  named.reserve(free.size());
  SequenceHash parent;
  for (std::size_t i = 0; i < free.size(); ++i) {
    const std::size_t position = i % chain_length;
    const SequenceHash hash = chain_hash(seed, i / chain_length, position);
    const BlockIdentity identity{.sequence_hash = hash,
                                 .parent_hash = position == 0 ? SequenceHash() : parent,
                                 .position = static_cast<std::uint32_t>(position),
                                 .token_count = 16,
                                 .digest = random()};
    named.push_back(detail::complete(std::move(free[i]), identity));
    parent = hash;
  }
  return named;
}

}  // namespace kvbm::bench
