// What the handles of kvbm/block.h ask of their pool.
#include "kvbm/block.h"

#include "tiers/tier_pool.h"

namespace kvbm::detail {
namespace {

Result<std::span<std::byte>> host_bytes(const Region& region) {
  if (std::byte* data = region.data()) return std::span(data, region.bytes);
  return Error{ErrorCode::NotAccessible, 0, 0, 0,
               "the CPU cannot address blocks of this tier; onboard them first"};
}

}  // namespace

BlockShape shape_of(const Hold& hold) noexcept {
  const LayoutConfig& config = backing_of(hold).layout->config();
  return {.num_layers = config.num_layers,
          .num_outer_dims = config.outer_dim,
          .page_size = config.page_size,
          .inner_dim = config.inner_dim,
          .region_bytes = config.region_bytes()};
}

SequenceHash sequence_hash_of(const Hold& hold) noexcept {
  return hold.store()->identity(hold.id()).sequence_hash;
}

Result<std::span<std::byte>> layer_bytes(const Hold& hold, std::size_t layer, std::size_t outer) {
  KVBM_TRY(const Region region, backing_of(hold).layout->region(hold.id(), layer, outer));
  return host_bytes(region);
}

Result<std::span<std::byte>> block_bytes(const Hold& hold) {
  const Layout& layout = *backing_of(hold).layout;
  if (!layout.is_contiguous()) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0,
                 "this layout keeps the layers of a block apart; use layer views"};
  }
  return host_bytes(layout.extent(hold.id()));
}

Result<CompleteHold> complete_with(MutableHold& hold, const TokenBlock& tokens) {
  const std::size_t page_size = backing_of(hold).layout->config().page_size;
  if (tokens.tokens().size() != page_size) {
    return Error{ErrorCode::InvalidMutableBlock, 0, tokens.tokens().size(), page_size,
                 "the token block's size differs from the block's page size"};
  }
  const BlockIdentity identity{
      .sequence_hash = tokens.sequence_hash(),
      .parent_hash = tokens.parent_sequence_hash().value_or(SequenceHash()),
      .position = static_cast<std::uint32_t>(tokens.position()),
      .token_count = static_cast<std::uint32_t>(page_size)};
  return complete(std::move(hold), identity);
}

ImmutableHold share_hold(const ImmutableHold& hold) noexcept { return share(hold); }

std::vector<ImmutableHold> split_run(const RunHold& run) { return split(run); }

std::vector<BlockId> run_ids(const RunHold& run) { return ids(run); }

}  // namespace kvbm::detail
