#include "remote/tier_blocks.h"

#include <algorithm>
#include <numeric>
#include <string>

namespace kvbm::remote {
namespace {

Error invalid(std::string what, std::uint64_t requested, std::uint64_t available) {
  return Error{ErrorCode::InvalidConfig, 0, requested, available, std::move(what)};
}

Result<void> check_count(const char* what, std::uint64_t count, std::uint64_t limit) {
  if (count >= 1 && count <= limit) return {};
  return invalid(std::string(what) + " of a tier must be 1 .. " + std::to_string(limit) +
                     ", there are " + std::to_string(count),
                 count, limit);
}

Result<void> check_storage(Tier tier, StorageType storage) {
  using Kind = StorageType::Kind;
  if (static_cast<std::size_t>(tier) >= kTierCount || tier == Tier::Disk) {
    return invalid("tier " + std::to_string(static_cast<unsigned>(tier)) +
                       " has no memory that others read, only 0 and 1 have",
                   static_cast<std::uint64_t>(tier), 1);
  }
  const bool is_device = storage.kind == Kind::Device;
  if (!is_device && storage.kind != Kind::System && storage.kind != Kind::Pinned) {
    return invalid("memory of kind " + std::to_string(static_cast<unsigned>(storage.kind)) +
                       " cannot be read by others, only 0 (system), 1 (device) and 2 (pinned)",
                   static_cast<std::uint64_t>(storage.kind),
                   static_cast<std::uint64_t>(Kind::Pinned));
  }
  if (!is_device && storage.id != 0) {
    return invalid("host memory has no ordinal, so it must be 0", storage.id, 0);
  }
  return {};
}

Result<void> check_memories(std::vector<TierBlocks::Range> memories) {
  std::ranges::sort(memories, {}, &TierBlocks::Range::address);
  std::uint64_t free_from = 1;  // 0 is no address
  for (const TierBlocks::Range& range : memories) {
    std::uint64_t end = 0;
    if (range.bytes == 0 || __builtin_add_overflow(range.address, range.bytes, &end)) {
      return invalid("a memory must have bytes and end below 2^64; one begins at " +
                         std::to_string(range.address) + " and has " + std::to_string(range.bytes),
                     range.address, range.bytes);
    }
    if (range.address < free_from) {
      return invalid("two memories overlap, or one begins at 0: one begins at " +
                         std::to_string(range.address) + ", free is what begins at " +
                         std::to_string(free_from),
                     range.address, free_from);
    }
    free_from = end;
  }
  return {};
}

}  // namespace

Result<TierBlocks> TierBlocks::of(Tier tier, const Layout& layout) {
  TierBlocks blocks{.tier = tier,
                    .storage = layout.memory(0).type(),
                    .num_blocks = static_cast<std::uint32_t>(layout.config().num_blocks)};
  for (const auto& memory : layout.memories()) {
    if (memory->file()) {
      return Error{ErrorCode::NotAccessible, 0, 0, 0, "others cannot read blocks in files"};
    }
    if (memory->type() != blocks.storage) {
      return invalid("a tier that others read must lie in memory of one kind", 0, 0);
    }
    blocks.memories.push_back({memory->address(), memory->bytes()});
  }
  for (std::size_t region = 0; region < layout.content()->regions().size(); ++region) {
    const auto runs = layout.fragments(region);
    blocks.fragments_of_region.push_back(static_cast<std::uint32_t>(runs.size()));
    blocks.fragments.insert(blocks.fragments.end(), runs.begin(), runs.end());
  }
  KVBM_CHECK_OK(blocks.validate());
  return blocks;
}

Result<void> TierBlocks::validate() const {
  KVBM_CHECK_OK(check_storage(tier, storage));
  KVBM_CHECK_OK(check_count("blocks", num_blocks, kNoBlock - 1));
  KVBM_CHECK_OK(check_count("memories", memories.size(), kMaxMemoriesPerTier));
  KVBM_CHECK_OK(check_count("regions", fragments_of_region.size(), kMaxRegionsPerBlock));
  KVBM_CHECK_OK(check_count("fragments", fragments.size(), kMaxFragmentsPerBlock));
  KVBM_CHECK_OK(check_memories(memories));
  std::uint64_t counted = 0;
  for (const std::uint32_t count : fragments_of_region) {
    if (count == 0) return invalid("a region must have at least 1 fragment", 0, 1);
    counted += count;
  }
  if (counted != fragments.size()) {
    return invalid("regions have " + std::to_string(counted) + " fragments, " +
                       std::to_string(fragments.size()) + " are there",
                   counted, fragments.size());
  }
  for (const Fragment& fragment : fragments) {
    if (fragment.memory >= memories.size()) {
      return invalid("a fragment lies in memory " + std::to_string(fragment.memory) + " of " +
                         std::to_string(memories.size()),
                     fragment.memory, memories.size());
    }
    if (fragment.bytes == 0 || (num_blocks > 1 && fragment.block_stride < fragment.bytes)) {
      return invalid(
          "a fragment must have bytes, and no more than there are from one block to the "
          "next; it has " +
              std::to_string(fragment.bytes) + " of " + std::to_string(fragment.block_stride),
          fragment.bytes, fragment.block_stride);
    }
  }
  std::vector<MemoryRange> ranges;
  for (const Range& range : memories) ranges.push_back({nullptr, range.address, range.bytes});
  return check_fragments(fragments, ranges, num_blocks);
}

}  // namespace kvbm::remote
