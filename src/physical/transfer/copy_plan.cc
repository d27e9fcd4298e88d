#include "physical/transfer/copy_plan.h"

#include <algorithm>
#include <string>

namespace kvbm {
namespace {

CopyPlan::Side side_of(const Layout& layout) {
  const detail::Memory& memory = layout.memory(0);
  if (memory.file()) return CopyPlan::Side::File;
  return memory.data() ? CopyPlan::Side::Memory : CopyPlan::Side::Device;
}

std::uint64_t address_of(const Layout& layout, const Fragment& fragment) {
  return layout.memory(fragment.memory).address() + fragment.offset;
}

bool follows(const CopyPiece& before, const CopyPiece& after) {
  return before.source + before.bytes == after.source &&
         before.target + before.bytes == after.target &&
         before.source_stride == after.source_stride && before.target_stride == after.target_stride;
}

// From the first byte of any block to the last.
struct Hull {
  std::uint64_t begin = ~std::uint64_t{0};
  std::uint64_t end = 0;
};

Hull hull_of(const Layout& layout) {
  Hull hull;
  for (const auto& memory : layout.memories()) {
    hull.begin = std::min(hull.begin, memory->address());
    hull.end = std::max(hull.end, memory->address() + memory->bytes());
  }
  return hull;
}

// A plan with a file on a side.
Result<void> check_file(const Layout& source, const Layout& target, std::size_t layers) {
  if (side_of(source) == side_of(target)) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0, "blocks move from file to file through memory"};
  }
  // Device memory reaches a file through contiguous host memory, whatever its layout.
  const auto ready = [](const Layout& layout) {
    return layout.is_contiguous() || side_of(layout) == CopyPlan::Side::Device;
  };
  if (!ready(source) || !ready(target)) {
    return Error{ErrorCode::NotAccessible, 0, 0, 0,
                 "blocks move between a file and memory only where both are contiguous"};
  }
  const std::size_t all = source.content()->num_layers();
  if (layers == all) return {};
  return Error{ErrorCode::NotAccessible, 0, layers, all,
               "a file is read and written in whole blocks, not in some layers of them"};
}

}  // namespace

Result<std::shared_ptr<const CopyPlan>> CopyPlan::create(std::shared_ptr<const Layout> source,
                                                         std::shared_ptr<const Layout> target,
                                                         LayerRange layers) {
  const BlockContent& content = *source->content();
  if (content.digest() != target->content_digest()) {
    return Error{ErrorCode::InvalidConfig, 0, content.bytes(), target->content()->bytes(),
                 "the layouts hold different data per block: " + content.description() + " and " +
                     target->content()->description()};
  }
  const std::size_t limit = content.num_layers();
  if (layers.count == LayerRange{}.count && layers.first < limit) {
    layers.count = limit - layers.first;
  }
  if (layers.first >= limit || layers.count == 0 || layers.count > limit - layers.first) {
    const bool begins = layers.first < limit && layers.count > 0;
    return Error{ErrorCode::InvalidLayerIndex, 0,
                 begins ? layers.first + layers.count - 1 : layers.first, limit,
                 "the range of layers is empty or not within the model's"};
  }
  std::shared_ptr<CopyPlan> plan(new CopyPlan);
  plan->source_side_ = side_of(*source);
  plan->target_side_ = side_of(*target);
  plan->layers_ = layers;
  plan->whole_ = layers.count == limit;
  const bool any_file = plan->source_side_ == Side::File || plan->target_side_ == Side::File;
  if (any_file) {
    KVBM_CHECK_OK(check_file(*source, *target, layers.count));
  } else {
    const Hull a = hull_of(*source);
    const Hull b = hull_of(*target);
    plan->may_overlap_ = a.begin < b.end && b.begin < a.end;
  }
  plan->source_ = std::move(source);
  plan->target_ = std::move(target);
  const std::size_t end = content.first_region(layers.first + layers.count);
  for (std::size_t i = content.first_region(layers.first); i < end; ++i) plan->add_region(i);
  plan->first_of_region_.push_back(static_cast<std::uint32_t>(plan->summed_pieces_.size()));
  return std::shared_ptr<const CopyPlan>(std::move(plan));
}

void CopyPlan::add_region(std::size_t region) {
  const auto from = source_->fragments(region);
  const auto to = target_->fragments(region);
  first_of_region_.push_back(static_cast<std::uint32_t>(summed_pieces_.size()));
  std::size_t in_from = 0;  // bytes of *f that are taken already
  std::size_t in_to = 0;
  for (auto f = from.begin(), t = to.begin(); f != from.end() && t != to.end();) {
    const std::size_t bytes = std::min(f->bytes - in_from, t->bytes - in_to);
    const CopyPiece piece{.source = address_of(*source_, *f) + in_from,
                          .target = address_of(*target_, *t) + in_to,
                          .bytes = bytes,
                          .source_stride = f->block_stride,
                          .target_stride = t->block_stride};
    const bool region_began = summed_pieces_.size() > first_of_region_.back();
    if (region_began && follows(summed_pieces_.back(), piece)) {
      summed_pieces_.back().bytes += bytes;
    } else {
      summed_pieces_.push_back(piece);
    }
    if (!pieces_.empty() && follows(pieces_.back(), piece)) {
      pieces_.back().bytes += bytes;
    } else {
      pieces_.push_back(piece);
    }
    bytes_ += bytes;
    in_from = in_from + bytes == f->bytes ? (++f, 0) : in_from + bytes;
    in_to = in_to + bytes == t->bytes ? (++t, 0) : in_to + bytes;
  }
}

Result<void> CopyPlan::check(const BlockCopy& copy) const {
  const std::size_t sources = source_->config().num_blocks;
  const std::size_t targets = target_->config().num_blocks;
  if (copy.source >= sources) {
    return Error{ErrorCode::InvalidBlockIndex, 0, copy.source, sources, {}};
  }
  if (copy.target >= targets) {
    return Error{ErrorCode::InvalidBlockIndex, 0, copy.target, targets, {}};
  }
  if (copy.payload_sum && !whole_) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 0,
                 "some layers of a block cannot be verified: verify the whole block first"};
  }
  if (!may_overlap_) return {};
  for (const CopyPiece& from : pieces_) {
    for (const CopyPiece& to : pieces_) {
      const std::uint64_t source = from.source_of(copy.source);
      const std::uint64_t target = to.target_of(copy.target);
      if (source < target + to.bytes && target < source + from.bytes) {
        return Error{ErrorCode::InvalidConfig, 0, target, source,
                     "source and target of a copy overlap"};
      }
    }
  }
  return {};
}

}  // namespace kvbm
