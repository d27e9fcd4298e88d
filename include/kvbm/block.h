// Handles to blocks, one type per state: MutableBlock -> CompleteBlock -> ImmutableBlock, besides
// BlockRun for a matched chain and WeakBlock for a remembered name.
//
// Every handle is move-only, 16 bytes (a WeakBlock 32), and gives its block back when destroyed,
// without throwing. It may outlive its pool and its manager; the memory stays until the last handle
// is gone. A handle is not thread-safe; different handles to one block are.
//
// Type parameters, as in the API reference:
//   S  the storage that names the tier: a block of one tier cannot be given to the pool of another
//   L  where the bytes are: locality::Local here, locality::Logical in other processes
//   M  the caller's metadata
// Calls on an empty handle (moved from, or default constructed) are a programmer's mistake.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kvbm/detail/hold.h"
#include "kvbm/metadata.h"
#include "kvbm/result.h"
#include "kvbm/storage.h"
#include "kvbm/tokens.h"
#include "kvbm/types.h"

namespace kvbm {

// Sizes of a block; see layout.h. Where an engine's tensors have layers of different sizes,
// inner_dim is 0 and region_bytes is the average.
struct BlockShape {
  std::size_t num_layers = 0;
  std::size_t num_outer_dims = 0;
  std::size_t page_size = 0;  // tokens
  std::size_t inner_dim = 0;  // elements per token
  std::size_t region_bytes = 0;
};

// How far a block of one owner has come.
enum class BlockState : std::uint8_t {
  Reset,     // no tokens
  Partial,   // tokens are being added: init_sequence()
  Complete,  // full and named: commit(), apply_token_block()
};

namespace detail {

// Bytes of a view and where they lie in their storage.
struct ViewBytes {
  std::span<std::byte> bytes;
  std::size_t offset;
  StorageType storage_type;
};

BlockShape shape_of(const Hold& hold) noexcept;
SequenceHash sequence_hash_of(const Hold& hold) noexcept;
Result<ViewBytes> layer_bytes(const Hold& hold, std::size_t layer, std::size_t outer);
Result<ViewBytes> block_bytes(const Hold& hold);
BasicMetadata basic_metadata_of(const Hold& hold);
void* metadata_of(const Hold& hold) noexcept;
Result<void> set_priority_of(const Hold& hold, std::uint32_t priority);

BlockState state_of(const MutableHold& hold);
std::size_t token_count_of(const MutableHold& hold);
Result<void> init_sequence(MutableHold& hold, const HashSeeds& seeds, NamespaceId name_space);
Result<std::span<const Token>> add_tokens(MutableHold& hold, std::span<const Token> tokens);
Result<void> pop_tokens(MutableHold& hold, std::size_t count);
Result<void> commit(MutableHold& hold);
Result<void> apply_token_block(MutableHold& hold, const TokenBlock& tokens, NamespaceId name_space);
void reset(MutableHold& hold);
Result<CompleteHold> mark_complete(MutableHold& hold);

ImmutableHold share_hold(const ImmutableHold& hold) noexcept;
WeakHold weak_hold(const ImmutableHold& hold) noexcept;
ImmutableHold upgrade_hold(const WeakHold& hold);
std::vector<ImmutableHold> split_run(const RunHold& run);
std::vector<BlockId> run_ids(const RunHold& run);

// What the four views have in common. Valid as long as a handle to the block is. Reading is safe
// from any thread while nobody writes.
template <class Byte>
class View {
 public:
  explicit View(const ViewBytes& view)
      : bytes_(view.bytes), offset_(view.offset), storage_type_(view.storage_type) {}
  std::span<Byte> bytes() const noexcept { return bytes_; }
  std::size_t size() const noexcept { return bytes_.size(); }
  // Of the first byte, in its storage.
  std::size_t offset() const noexcept { return offset_; }
  StorageType storage_type() const noexcept { return storage_type_; }

 private:
  std::span<Byte> bytes_;
  std::size_t offset_;
  StorageType storage_type_;
};

}  // namespace detail

// One region of a block, and a whole block, to read or to write.
template <Storage S>
class LayerView : public detail::View<const std::byte> {
  using View::View;
};
template <Storage S>
class LayerViewMut : public detail::View<std::byte> {
  using View::View;
};
template <Storage S>
class BlockView : public detail::View<const std::byte> {
  using View::View;
};
template <Storage S>
class BlockViewMut : public detail::View<std::byte> {
  using View::View;
};

namespace detail {

// What a handle of any state can say and show.
template <Storage S, LocalityProvider L, BlockMetadata M, class HoldType>
class BlockHandle {
 public:
  BlockHandle() noexcept = default;
  explicit BlockHandle(HoldType hold) noexcept : hold_(std::move(hold)) {}

  explicit operator bool() const noexcept { return static_cast<bool>(hold_); }
  BlockId block_id() const noexcept { return hold_.id(); }
  BlockShape shape() const noexcept { return shape_of(hold_); }
  std::size_t num_layers() const noexcept { return shape().num_layers; }
  std::size_t num_outer_dims() const noexcept { return shape().num_outer_dims; }
  std::size_t page_size() const noexcept { return shape().page_size; }
  std::size_t inner_dim() const noexcept { return shape().inner_dim; }

  // One region. Errors: InvalidLayerIndex, InvalidOuterIndex {index, limit}; NotAccessible where
  // the CPU cannot address the block (disk, CUDA memory); ViewsNotAvailableOnLogicalBlocks.
  Result<LayerView<S>> layer_view(std::size_t layer, std::size_t outer) const {
    KVBM_TRY(const auto view, layer_bytes(hold_, layer, outer));
    return LayerView<S>(view);
  }
  // The whole block. Errors: as layer_view(), and NotAccessible where the layout keeps layers
  // apart.
  Result<BlockView<S>> block_view() const {
    KVBM_TRY(const auto view, block_bytes(hold_));
    return BlockView<S>(view);
  }

  // BasicMetadata is composed from the pool's record: a copy. Other metadata is the pool's object;
  // the holders of a block share it and agree on who writes.
  decltype(auto) metadata() const {
    if constexpr (std::same_as<M, BasicMetadata>) {
      return basic_metadata_of(hold_);
    } else {
      return static_cast<M&>(*static_cast<M*>(metadata_of(hold_)));
    }
  }

  const HoldType& hold() const noexcept { return hold_; }
  HoldType take_hold() noexcept { return std::move(hold_); }

 protected:
  HoldType hold_;
};

}  // namespace detail

template <Storage S, LocalityProvider L, BlockMetadata M>
class BlockPool;

// A block that was filled and named, but is not visible yet. Register it with its pool.
template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
class CompleteBlock : public detail::BlockHandle<S, L, M, detail::CompleteHold> {
 public:
  using detail::BlockHandle<S, L, M, detail::CompleteHold>::BlockHandle;
  SequenceHash sequence_hash() const noexcept { return detail::sequence_hash_of(this->hold_); }
};

// A block of your own to fill. Dropped, it is free again, and its tokens are forgotten.
//
// A name comes from tokens in one of two ways: token by token (init_sequence, add_tokens, commit),
// or from a whole TokenBlock (apply_token_block, complete). Every refusal leaves the block as it
// was.
template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
class MutableBlock : public detail::BlockHandle<S, L, M, detail::MutableHold> {
 public:
  using detail::BlockHandle<S, L, M, detail::MutableHold>::BlockHandle;

  // As layer_view() and block_view(), for writing.
  Result<LayerViewMut<S>> layer_view_mut(std::size_t layer, std::size_t outer) {
    KVBM_TRY(const auto view, detail::layer_bytes(this->hold_, layer, outer));
    return LayerViewMut<S>(view);
  }
  Result<BlockViewMut<S>> block_view_mut() {
    KVBM_TRY(const auto view, detail::block_bytes(this->hold_));
    return BlockViewMut<S>(view);
  }

  BlockState state() const { return detail::state_of(this->hold_); }
  bool is_complete() const { return state() == BlockState::Complete; }
  // Tokens so far, and tokens that a Partial block still takes (0 in any other state).
  std::size_t len() const { return detail::token_count_of(this->hold_); }
  std::size_t remaining() const {
    return state() == BlockState::Partial ? this->page_size() - len() : 0;
  }

  // Reset -> Partial, as the first block of a sequence.
  // Errors: InvalidMutableBlock if the block is not Reset.
  Result<void> init_sequence(SaltHash salt = 0) {
    return detail::init_sequence(this->hold_, {.salt = salt}, 0);
  }
  Result<void> init_sequence(const HashSeeds& seeds, NamespaceId name_space = 0) {
    return detail::init_sequence(this->hold_, seeds, name_space);
  }
  // Takes what fits and returns the rest. Errors: InvalidMutableBlock if not Partial; Full if there
  // is no room at all {tokens, 0}.
  Result<std::span<const Token>> add_tokens(std::span<const Token> tokens) {
    return detail::add_tokens(this->hold_, tokens);
  }
  Result<void> add_token(Token token) {
    KVBM_CHECK_OK(detail::add_tokens(this->hold_, {&token, 1}));
    return {};
  }
  // Errors: InvalidMutableBlock if not Partial; Empty; InsufficientTokens{count, len()}.
  Result<void> pop_token() { return detail::pop_tokens(this->hold_, 1); }
  Result<void> pop_tokens(std::size_t count) { return detail::pop_tokens(this->hold_, count); }
  // Partial and full -> Complete. Errors: InvalidMutableBlock if not Partial; Incomplete{page size,
  // len()}.
  Result<void> commit() { return detail::commit(this->hold_); }
  // Reset -> Complete, with a name in `name_space`. Errors: InvalidMutableBlock if the block is not
  // Reset, or {tokens, page size} if the sizes differ.
  Result<void> apply_token_block(const TokenBlock& tokens, NamespaceId name_space = 0) {
    return detail::apply_token_block(this->hold_, tokens, name_space);
  }
  // Any state -> Reset; the priority is the default again. The bytes stay what they were.
  void reset() { detail::reset(this->hold_); }

  // The name. Errors: BlockNotComplete.
  Result<SequenceHash> sequence_hash() const {
    if (!is_complete()) return Error{ErrorCode::BlockNotComplete, 0, 0, 0, {}};
    return detail::sequence_hash_of(this->hold_);
  }
  // The block as a CompleteBlock; a Partial one is committed first. The handle is empty afterwards.
  // Errors: those of commit(); BlockNotComplete if the block is Reset.
  Result<CompleteBlock<S, L, M>> mark_complete() && {
    KVBM_TRY(auto hold, detail::mark_complete(this->hold_));
    return CompleteBlock<S, L, M>(std::move(hold));
  }
  // apply_token_block() and mark_complete() in one.
  Result<CompleteBlock<S, L, M>> complete(const TokenBlock& tokens, NamespaceId name_space = 0) && {
    KVBM_CHECK_OK(apply_token_block(tokens, name_space));
    return std::move(*this).mark_complete();
  }

  // Blocks of a higher priority are offloaded first and evicted last; see RetentionOptions.
  // Errors: InvalidConfig{priority, MAX_PRIORITY}.
  Result<void> set_priority(std::uint32_t priority)
    requires std::same_as<M, BasicMetadata>
  {
    return detail::set_priority_of(this->hold_, priority);
  }
};

template <Storage S, LocalityProvider L, BlockMetadata M>
class WeakBlock;

// A registered block: shared, read-only, kept while any handle lives.
template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
class ImmutableBlock : public detail::BlockHandle<S, L, M, detail::ImmutableHold> {
 public:
  using detail::BlockHandle<S, L, M, detail::ImmutableHold>::BlockHandle;
  SequenceHash sequence_hash() const noexcept { return detail::sequence_hash_of(this->hold_); }
  // Another handle to the same block. Threads: lock-free.
  ImmutableBlock clone() const noexcept { return ImmutableBlock(detail::share_hold(this->hold_)); }
  // Remembers the block without keeping it.
  WeakBlock<S, L, M> downgrade() const noexcept {
    return WeakBlock<S, L, M>(detail::weak_hold(this->hold_));
  }
};

// The name of a registered block, which may be evicted meanwhile.
template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
class WeakBlock {
 public:
  WeakBlock() noexcept = default;
  explicit WeakBlock(detail::WeakHold hold) noexcept : hold_(std::move(hold)) {}
  SequenceHash sequence_hash() const noexcept { return hold_.key().hash; }
  // A handle to the block that carries the name now; empty if there is none. Counts as a match.
  ImmutableBlock<S, L, M> upgrade() const {
    return ImmutableBlock<S, L, M>(detail::upgrade_hold(hold_));
  }

 private:
  detail::WeakHold hold_;
};

// A matched chain, root first. One hold on its deepest block keeps all of it, so a run of any
// length costs one hold. An empty run is a miss.
template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
class BlockRun {
 public:
  BlockRun() noexcept = default;
  explicit BlockRun(detail::RunHold hold) noexcept : hold_(std::move(hold)) {}

  std::size_t size() const noexcept { return hold_ ? hold_.count() : 0; }
  const detail::RunHold& hold() const noexcept { return hold_; }
  bool empty() const noexcept { return size() == 0; }
  // Cost: O(size()). Threads: lock-free.
  std::vector<BlockId> block_ids() const { return detail::run_ids(hold_); }
  // One handle per block. Cost: O(size()).
  std::vector<ImmutableBlock<S, L, M>> blocks() const {
    std::vector<ImmutableBlock<S, L, M>> blocks;
    for (auto& hold : detail::split_run(hold_)) blocks.emplace_back(std::move(hold));
    return blocks;
  }

 private:
  detail::RunHold hold_;
};

template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
using MutableBlocks = std::vector<MutableBlock<S, L, M>>;
template <Storage S, LocalityProvider L = locality::Local, BlockMetadata M = BasicMetadata>
using ImmutableBlocks = std::vector<ImmutableBlock<S, L, M>>;

static_assert(sizeof(MutableBlock<DeviceStorage>) == 16);
static_assert(sizeof(WeakBlock<DeviceStorage>) == 32);

}  // namespace kvbm
