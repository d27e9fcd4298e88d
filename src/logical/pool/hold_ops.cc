#include "logical/pool/hold_ops.h"

namespace kvbm::detail {

void release_hold(BlockStore* store, BlockId id) noexcept { store->release(id); }
void release_holds(BlockStore* store, std::span<const BlockId> ids) noexcept {
  store->release(ids);
}
void add_weak_hold(BlockStore* store) noexcept { store->add_weak(); }
void release_weak_hold(BlockStore* store) noexcept { store->release_weak(); }

namespace {

template <class HoldType>
std::vector<HoldType> adopt(BlockStore& store, std::span<const BlockId> ids) {
  std::vector<HoldType> holds;
  holds.reserve(ids.size());
  for (const BlockId id : ids) holds.emplace_back(&store, id);
  return holds;
}

}  // namespace

Result<std::vector<MutableHold>> allocate(BlockStore& store, std::size_t count,
                                          std::vector<SequenceHash>* evicted) {
  if (count > store.capacity()) {  // before sizing a vector by a caller's number
    return Error{ErrorCode::NotEnoughBlocksAvailable, 0, count, store.available_blocks(), {}};
  }
  std::vector<BlockId> ids(count);
  KVBM_CHECK_OK(store.allocate(ids, evicted));
  return adopt<MutableHold>(store, ids);
}

CompleteHold complete(MutableHold block, const BlockIdentity& identity) {
  BlockStore* store = block.store();
  store->complete(block.id(), identity);
  return CompleteHold(store, block.disown());
}

Result<std::vector<ImmutableHold>> register_blocks(BlockStore& store,
                                                   std::vector<CompleteHold> blocks) {
  std::vector<BlockId> ids;
  ids.reserve(blocks.size());
  for (const CompleteHold& block : blocks) {
    if (block.store() != &store) {
      return Error{ErrorCode::InvalidMutableBlock, 0, ids.size(), blocks.size(),
                   "the block is empty or belongs to another pool"};
    }
    ids.push_back(block.id());
  }
  KVBM_CHECK_OK(store.register_blocks(ids));
  for (CompleteHold& block : blocks) block.disown();
  return adopt<ImmutableHold>(store, ids);
}

RunHold match_run(BlockStore& store, const Names& chain, Asked asked) {
  const RunRef run = store.match_run(chain, asked);
  if (run.count == 0) return {};
  return RunHold(&store, run.deepest, run.count);
}

std::vector<ImmutableHold> match(BlockStore& store, const Names& names) {
  std::vector<BlockId> ids(names.hashes.size());
  ids.resize(store.match(names, ids));
  return adopt<ImmutableHold>(store, ids);
}

std::vector<std::pair<std::size_t, ImmutableHold>> scan(BlockStore& store, const Names& names) {
  std::vector<std::pair<std::size_t, BlockId>> found;
  store.scan(names, found);
  std::vector<std::pair<std::size_t, ImmutableHold>> holds;
  holds.reserve(found.size());
  for (const auto& [position, id] : found) {
    holds.emplace_back(position, ImmutableHold(&store, id));
  }
  return holds;
}

ImmutableHold borrow(BlockStore& store, const BlockKey& key) {
  const BlockId id = store.borrow(key);
  return id == kNoBlock ? ImmutableHold() : ImmutableHold(&store, id);
}

void give_back(ImmutableHold block) noexcept {
  if (!block) return;
  BlockStore* const store = block.store();
  store->give_back(block.disown());
}

WeakHold downgrade(const ImmutableHold& block) noexcept {
  const BlockIdentity identity = block.store()->identity(block.id());
  return WeakHold(block.store(), {identity.sequence_hash, identity.digest, identity.name_space});
}

ImmutableHold upgrade(const WeakHold& weak) {
  const BlockKey& key = weak.key();
  BlockId id = kNoBlock;
  const Names name(std::span(&key.hash, 1), {&key.digest, 1}, key.name_space);
  if (weak.store()->match(name, {&id, 1}) == 0) return {};
  return ImmutableHold(weak.store(), id);
}

ImmutableHold share(const ImmutableHold& block) noexcept {
  block.store()->add_hold(block.id());
  return ImmutableHold(block.store(), block.id());
}

std::vector<BlockId> ids(const RunHold& run) {
  std::vector<BlockId> ids(run ? run.count() : 0);
  if (run) run.store()->run_ids(run.id(), ids);
  return ids;
}

RunHold first_of(const RunHold& run, std::size_t count) {
  const BlockId deepest = ids(run)[count - 1];
  run.store()->add_hold(deepest);
  return RunHold(run.store(), deepest, static_cast<std::uint32_t>(count));
}

ImmutableHold block_at(const RunHold& run, std::size_t place) {
  const BlockId id = ids(run)[place];
  run.store()->add_hold(id);
  return ImmutableHold(run.store(), id);
}

std::vector<ImmutableHold> split(const RunHold& run) {
  const std::vector<BlockId> members = ids(run);
  std::vector<ImmutableHold> holds;
  holds.reserve(members.size());
  for (const BlockId id : members) {
    run.store()->add_hold(id);
    holds.emplace_back(run.store(), id);
  }
  return holds;
}

}  // namespace kvbm::detail
