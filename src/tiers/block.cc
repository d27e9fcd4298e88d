// What the handles of kvbm/block.h ask of their pool.
#include "kvbm/block.h"

#include <algorithm>

#include "tiers/tier_pool.h"

namespace kvbm::detail {
namespace {

Result<const Layout*> local_layout(const Hold& hold) {
  if (const Layout* layout = set_of(hold).layout.get()) return layout;
  return Error{ErrorCode::ViewsNotAvailableOnLogicalBlocks, 0, 0, 0, {}};
}

Result<ViewBytes> view_of(const Region& region) {
  if (std::byte* data = region.data()) {
    return ViewBytes{std::span(data, region.bytes), region.offset, region.memory->type()};
  }
  return Error{
      ErrorCode::NotAccessible, 0, 0, 0,
      std::string("the CPU cannot address ") + to_string(region.memory->type().kind) + " memory"};
}

Error wrong_state(const char* what) { return Error{ErrorCode::InvalidMutableBlock, 0, 0, 0, what}; }

// Tells one allocation of a block from the next.
std::uint32_t allocation_of(const MutableHold& hold) {
  return static_cast<std::uint32_t>(hold.store()->basic_metadata(hold.id()).acquired_tick);
}

// The tokens that the owner of a block has added so far; null unless it is Partial. The mutex
// guards the map; an entry's tokens belong to the block's owner.
BlockSet::Partial* partial_of(const MutableHold& hold) {
  BlockSet& set = set_of(hold);
  const std::uint32_t tick = allocation_of(hold);
  MutexLock lock(set.partials_mutex);
  const auto found = set.partials.find(hold.id());
  if (found == set.partials.end() || found->second.acquired_tick != tick) return nullptr;
  return &found->second;
}

void forget_partial(const MutableHold& hold) {
  BlockSet& set = set_of(hold);
  MutexLock lock(set.partials_mutex);
  set.partials.erase(hold.id());
}

void name(MutableHold& hold, const TokenBlock& tokens, NamespaceId name_space) {
  if (BlockSet& set = set_of(hold); set.tokens) {
    std::ranges::copy(tokens.tokens(), set.tokens_of(hold.id()).begin());
  }
  hold.store()->complete(hold.id(), identity_of(tokens, name_space));
}

}  // namespace

BlockShape shape_of(const Hold& hold) noexcept {
  const BlockSet& set = set_of(hold);
  const LayoutConfig& config = set.config;
  const std::size_t regions =
      set.layout ? set.layout->content()->regions().size() : config.num_layers * config.outer_dim;
  return {.num_layers = config.num_layers,
          .num_outer_dims = config.outer_dim,
          .page_size = config.page_size,
          .inner_dim = config.inner_dim,
          .region_bytes = set.block_bytes() / regions};
}

SequenceHash sequence_hash_of(const Hold& hold) noexcept {
  return hold.store()->identity(hold.id()).sequence_hash;
}

Result<ViewBytes> layer_bytes(const Hold& hold, std::size_t layer, std::size_t outer) {
  KVBM_TRY(const Layout* layout, local_layout(hold));
  KVBM_TRY(const Region region, layout->region(hold.id(), layer, outer));
  return view_of(region);
}

Result<ViewBytes> block_bytes(const Hold& hold) {
  KVBM_TRY(const Layout* layout, local_layout(hold));
  if (!layout->is_contiguous()) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0,
                 "this layout keeps the layers of a block apart; use layer views"};
  }
  return view_of(layout->extent(hold.id()));
}

BasicMetadata basic_metadata_of(const Hold& hold) {
  return hold.store()->basic_metadata(hold.id());
}
void* metadata_of(const Hold& hold) noexcept { return hold.store()->metadata(hold.id()); }
Result<void> set_priority_of(const Hold& hold, std::uint32_t priority) {
  return hold.store()->set_priority(hold.id(), priority);
}

// --- the states of a block of one owner ------------------------------------------------------

BlockState state_of(const MutableHold& hold) {
  if (hold.store()->is_complete(hold.id())) return BlockState::Complete;
  return partial_of(hold) ? BlockState::Partial : BlockState::Reset;
}

std::size_t token_count_of(const MutableHold& hold) {
  if (hold.store()->is_complete(hold.id())) {
    return hold.store()->identity(hold.id()).token_count;
  }
  const BlockSet::Partial* partial = partial_of(hold);
  return partial ? partial->tokens.len() : 0;
}

Result<void> init_sequence(MutableHold& hold, const HashSeeds& seeds, NamespaceId name_space) {
  if (state_of(hold) != BlockState::Reset) return wrong_state("the block is not reset");
  BlockSet& set = set_of(hold);
  KVBM_TRY(auto tokens, PartialTokenBlock::create(set.config.page_size, seeds));
  const std::uint32_t tick = allocation_of(hold);
  MutexLock lock(set.partials_mutex);
  set.partials.insert_or_assign(hold.id(), BlockSet::Partial{tick, std::move(tokens), name_space});
  return {};
}

Result<std::span<const Token>> add_tokens(MutableHold& hold, std::span<const Token> tokens) {
  BlockSet::Partial* partial = partial_of(hold);
  if (!partial) return wrong_state("tokens can be added after init_sequence() only");
  if (!tokens.empty() && partial->tokens.remaining() == 0) {
    return Error{ErrorCode::Full, 0, tokens.size(), 0, {}};
  }
  return partial->tokens.push_tokens(tokens);
}

Result<void> pop_tokens(MutableHold& hold, std::size_t count) {
  BlockSet::Partial* partial = partial_of(hold);
  if (!partial) return wrong_state("tokens can be taken back after init_sequence() only");
  if (count == 1) {
    KVBM_CHECK_OK(partial->tokens.pop_token());
    return {};
  }
  return partial->tokens.pop_tokens(count);
}

Result<void> commit(MutableHold& hold) {
  BlockSet::Partial* partial = partial_of(hold);
  if (!partial) return wrong_state("only a block with tokens added can be committed");
  const NamespaceId name_space = partial->name_space;
  KVBM_TRY(const TokenBlock tokens, partial->tokens.commit());
  forget_partial(hold);
  name(hold, tokens, name_space);
  return {};
}

Result<void> apply_token_block(MutableHold& hold, const TokenBlock& tokens,
                               NamespaceId name_space) {
  const std::size_t page_size = set_of(hold).config.page_size;
  if (tokens.tokens().size() != page_size) {
    return Error{ErrorCode::InvalidMutableBlock, 0, tokens.tokens().size(), page_size,
                 "the token block's size differs from the block's page size"};
  }
  if (state_of(hold) != BlockState::Reset) return wrong_state("the block is not reset");
  name(hold, tokens, name_space);
  return {};
}

void reset(MutableHold& hold) {
  forget_partial(hold);
  hold.store()->uncomplete(hold.id());
}

Result<CompleteHold> mark_complete(MutableHold& hold) {
  if (partial_of(hold)) KVBM_CHECK_OK(commit(hold));
  if (!hold.store()->is_complete(hold.id())) {
    return Error{ErrorCode::BlockNotComplete, 0, 0, 0, {}};
  }
  BlockStore* store = hold.store();
  return CompleteHold(store, hold.disown());
}

// --- sharing ---------------------------------------------------------------------------------

ImmutableHold share_hold(const ImmutableHold& hold) noexcept { return share(hold); }

WeakHold weak_hold(const ImmutableHold& hold) noexcept { return downgrade(hold); }

ImmutableHold upgrade_hold(const WeakHold& hold) { return upgrade(hold); }

std::vector<ImmutableHold> split_run(const RunHold& run) { return split(run); }

std::vector<BlockId> run_ids(const RunHold& run) { return ids(run); }

}  // namespace kvbm::detail
