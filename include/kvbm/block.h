// Handles to blocks, one type per state: MutableBlock -> CompleteBlock -> ImmutableBlock, and
// BlockRun for a matched chain.
//
// Every handle is move-only, 16 bytes, and gives its block back when destroyed, without throwing.
// It may outlive its pool and its manager; the memory stays until the last handle is gone. A handle
// is not thread-safe; different handles to one block are.
//
// `S` is the storage that names the tier: a block of one tier cannot be given to the pool of
// another. Calls on an empty handle (moved from, or default constructed) are a programmer's
// mistake.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "kvbm/detail/hold.h"
#include "kvbm/result.h"
#include "kvbm/storage.h"
#include "kvbm/tokens.h"
#include "kvbm/types.h"

namespace kvbm {

// Sizes of a block; see layout.h.
struct BlockShape {
  std::size_t num_layers = 0;
  std::size_t num_outer_dims = 0;
  std::size_t page_size = 0;  // tokens
  std::size_t inner_dim = 0;  // elements per token
  std::size_t region_bytes = 0;
};

namespace detail {

BlockShape shape_of(const Hold& hold) noexcept;
SequenceHash sequence_hash_of(const Hold& hold) noexcept;
Result<std::span<std::byte>> layer_bytes(const Hold& hold, std::size_t layer, std::size_t outer);
Result<std::span<std::byte>> block_bytes(const Hold& hold);
Result<CompleteHold> complete_with(MutableHold& hold, const TokenBlock& tokens);
ImmutableHold share_hold(const ImmutableHold& hold) noexcept;
std::vector<ImmutableHold> split_run(const RunHold& run);
std::vector<BlockId> run_ids(const RunHold& run);

}  // namespace detail

// Bytes of one region or of one block, valid as long as a handle to the block is. Reading is safe
// from any thread while nobody writes.
template <class S>
class LayerView {
 public:
  explicit LayerView(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

template <class S>
class LayerViewMut {
 public:
  explicit LayerViewMut(std::span<std::byte> bytes) : bytes_(bytes) {}
  std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

template <class S>
using BlockView = LayerView<S>;
template <class S>
using BlockViewMut = LayerViewMut<S>;

namespace detail {

// What a handle of any state can say and show.
template <class S, class HoldType>
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
  // the CPU cannot address the block (disk).
  Result<LayerView<S>> layer_view(std::size_t layer, std::size_t outer) const {
    KVBM_TRY(const auto bytes, layer_bytes(hold_, layer, outer));
    return LayerView<S>(bytes);
  }
  // The whole block. Errors: NotAccessible on disk, or where the layout keeps layers apart.
  Result<BlockView<S>> block_view() const {
    KVBM_TRY(const auto bytes, block_bytes(hold_));
    return BlockView<S>(bytes);
  }

  const HoldType& hold() const noexcept { return hold_; }
  HoldType take_hold() noexcept { return std::move(hold_); }

 protected:
  HoldType hold_;
};

}  // namespace detail

// A block that was filled and named, but is not visible yet. Register it with its pool.
template <class S>
class CompleteBlock : public detail::BlockHandle<S, detail::CompleteHold> {
 public:
  using detail::BlockHandle<S, detail::CompleteHold>::BlockHandle;
  SequenceHash sequence_hash() const noexcept { return detail::sequence_hash_of(this->hold_); }
};

// A block of your own to fill. Dropped, it is free again.
template <class S>
class MutableBlock : public detail::BlockHandle<S, detail::MutableHold> {
 public:
  using detail::BlockHandle<S, detail::MutableHold>::BlockHandle;

  // As layer_view() and block_view(), for writing.
  Result<LayerViewMut<S>> layer_view_mut(std::size_t layer, std::size_t outer) {
    KVBM_TRY(const auto bytes, detail::layer_bytes(this->hold_, layer, outer));
    return LayerViewMut<S>(bytes);
  }
  Result<BlockViewMut<S>> block_view_mut() {
    KVBM_TRY(const auto bytes, detail::block_bytes(this->hold_));
    return BlockViewMut<S>(bytes);
  }

  // Names the block after the tokens whose KV it holds. The handle is empty afterwards.
  // Errors: InvalidMutableBlock{tokens, page size} if the counts differ; the handle keeps its
  // block.
  Result<CompleteBlock<S>> complete(const TokenBlock& tokens) && {
    KVBM_TRY(auto hold, detail::complete_with(this->hold_, tokens));
    return CompleteBlock<S>(std::move(hold));
  }
};

// A registered block: shared, read-only, kept while any handle lives.
template <class S>
class ImmutableBlock : public detail::BlockHandle<S, detail::ImmutableHold> {
 public:
  using detail::BlockHandle<S, detail::ImmutableHold>::BlockHandle;
  SequenceHash sequence_hash() const noexcept { return detail::sequence_hash_of(this->hold_); }
  // Another handle to the same block. Threads: lock-free.
  ImmutableBlock clone() const noexcept { return ImmutableBlock(detail::share_hold(this->hold_)); }
};

// A matched chain, root first. One hold on its deepest block keeps all of it, so a run of any
// length costs one hold. An empty run is a miss.
template <class S>
class BlockRun {
 public:
  BlockRun() noexcept = default;
  explicit BlockRun(detail::RunHold hold) noexcept : hold_(std::move(hold)) {}

  std::size_t size() const noexcept { return hold_ ? hold_.count() : 0; }
  bool empty() const noexcept { return size() == 0; }
  // Cost: O(size()). Threads: lock-free.
  std::vector<BlockId> block_ids() const { return detail::run_ids(hold_); }
  // One handle per block. Cost: O(size()).
  std::vector<ImmutableBlock<S>> blocks() const {
    std::vector<ImmutableBlock<S>> blocks;
    for (auto& hold : detail::split_run(hold_)) blocks.emplace_back(std::move(hold));
    return blocks;
  }

 private:
  detail::RunHold hold_;
};

static_assert(sizeof(MutableBlock<DeviceStorage>) == 16);

}  // namespace kvbm
