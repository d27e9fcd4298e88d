// Layouts of tensors that an engine owns, from their shapes and strides.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/checked.h"
#include "physical/layout/layout.h"

namespace kvbm {
namespace {

constexpr std::string_view kAxes = "LBOHNC";
constexpr const char* kSize = "a tensor's size in bytes";

struct Axis {
  char name = 0;
  std::size_t size = 1;
  std::size_t stride = 0;  // elements
};

// One tensor, checked; its dimensions by what they count.
struct Tensor {
  const KvTensor* from = nullptr;
  std::string name;  // "tensor 3 (BHNC)", for errors
  Axis blocks;
  Axis layers;
  Axis outers;
  std::vector<Axis> inner;  // of a region: the largest stride first, none of size 1
  std::size_t item_bytes = 0;
  std::size_t bytes = 0;  // from the first element to the last

  bool has_layers() const { return from->axes.find('L') != std::string::npos; }
};

Error bad(const Tensor& tensor, const std::string& what, std::uint64_t requested = 0,
          std::uint64_t available = 0) {
  return Error{ErrorCode::InvalidConfig, 0, requested, available, tensor.name + ": " + what};
}

Result<void> check_form(const Tensor& tensor) {
  const KvTensor& from = *tensor.from;
  for (std::size_t i = 0; i < from.axes.size(); ++i) {
    if (kAxes.find(from.axes[i]) == std::string_view::npos) {
      return bad(tensor, std::string("'") + from.axes[i] + "' is no axis; they are L B O H N C");
    }
    if (from.axes.find(from.axes[i], i + 1) != std::string::npos) {
      return bad(tensor, std::string("axis ") + from.axes[i] + " is there twice");
    }
  }
  if (from.axes.find('B') == std::string::npos) return bad(tensor, "axis B (blocks) is missing");
  if (from.shape.size() != from.axes.size()) {
    return bad(tensor, "the shape must have one size per axis", from.shape.size(),
               from.axes.size());
  }
  if (!from.strides.empty() && from.strides.size() != from.axes.size()) {
    return bad(tensor, "there must be one stride per axis, or none at all", from.strides.size(),
               from.axes.size());
  }
  const auto kind = from.storage.kind;
  if (kind != StorageType::Kind::System && kind != StorageType::Kind::Pinned &&
      kind != StorageType::Kind::Device) {
    return bad(tensor, std::string("a tensor lies in system, pinned or device memory, not in ") +
                           to_string(kind));
  }
  if (from.address == 0) return bad(tensor, "its address is 0");
  return {};
}

// The axes in the order of the shape, with strides in elements.
Result<std::vector<Axis>> axes_of(const Tensor& tensor) {
  const KvTensor& from = *tensor.from;
  std::vector<Axis> axes(from.axes.size());
  std::size_t row_major = 1;
  for (std::size_t i = axes.size(); i-- > 0;) {
    axes[i] = {from.axes[i], from.shape[i], row_major};
    if (from.shape[i] == 0) {
      return bad(tensor, std::string("the size of axis ") + from.axes[i] + " is 0");
    }
    KVBM_TRY(row_major, checked_mul(row_major, from.shape[i], kSize));
    if (from.strides.empty()) continue;
    if (from.strides[i] < 0) {
      return bad(tensor, std::string("the stride of axis ") + from.axes[i] + " is " +
                             std::to_string(from.strides[i]) + "; it must not be negative");
    }
    axes[i].stride = static_cast<std::size_t>(from.strides[i]);
  }
  return axes;
}

// Sorted by stride, each axis must step over all that the ones inside it reach.
Result<void> check_strides(Tensor& tensor, std::vector<Axis> axes) {
  std::erase_if(axes, [](const Axis& axis) { return axis.size == 1; });
  std::sort(axes.begin(), axes.end(),
            [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
  std::size_t reach = 1;  // elements, from the first to the last
  for (const Axis& axis : axes) {
    if (axis.stride < reach) {
      return bad(tensor,
                 std::string("the stride of axis ") + axis.name + " is " +
                     std::to_string(axis.stride) + " elements; what lies inside it takes " +
                     std::to_string(reach),
                 axis.stride, reach);
    }
    KVBM_TRY(const std::size_t steps, checked_mul(axis.stride, axis.size - 1, kSize));
    KVBM_TRY(reach, checked_add(reach, steps, kSize));
  }
  KVBM_TRY(tensor.bytes, checked_mul(reach, tensor.item_bytes, kSize));
  KVBM_CHECK_OK(checked_add(tensor.from->address, tensor.bytes, "the end of a tensor"));
  return {};
}

Result<Tensor> read_tensor(const KvTensor& from, std::size_t index) {
  Tensor tensor{.from = &from,
                .name = "tensor " + std::to_string(index) + " (" + from.axes + ")",
                .blocks = {},
                .layers = {},
                .outers = {},
                .inner = {},
                .item_bytes = size_bytes(from.dtype)};
  KVBM_CHECK_OK(check_form(tensor));
  KVBM_TRY(const std::vector<Axis> axes, axes_of(tensor));
  KVBM_CHECK_OK(check_strides(tensor, axes));
  for (const Axis& axis : axes) {
    if (axis.name == 'B') {
      tensor.blocks = axis;
    } else if (axis.name == 'L') {
      tensor.layers = axis;
    } else if (axis.name == 'O') {
      tensor.outers = axis;
    } else if (axis.size > 1) {
      tensor.inner.push_back(axis);
    }
  }
  std::sort(tensor.inner.begin(), tensor.inner.end(),
            [](const Axis& a, const Axis& b) { return a.stride > b.stride; });
  if (!tensor.inner.empty() && tensor.inner.back().stride != 1) {
    const Axis& last = tensor.inner.back();
    return bad(tensor,
               std::string("the stride of axis ") + last.name + " is " +
                   std::to_string(last.stride) +
                   " elements; it must be 1, so that a block's "
                   "bytes lie in runs",
               last.stride, 1);
  }
  return tensor;
}

// How the bytes of a region follow each other, whatever lies between them. Elements of a head right
// after each other are elements of a token.
std::string order_of(const Tensor& tensor) {
  std::string order;
  std::size_t heads = 1;
  for (std::size_t i = 0; i < tensor.inner.size(); ++i) {
    const Axis& axis = tensor.inner[i];
    const bool joins = axis.name == 'H' && i + 1 < tensor.inner.size() &&
                       tensor.inner[i + 1].name == 'C' && i + 2 == tensor.inner.size();
    if (joins) {
      heads = axis.size;
      continue;
    }
    order += axis.name + std::to_string(axis.size * heads);
    heads = 1;
  }
  if (order.empty()) order = "C1";
  return order + ":" + name_of(tensor.from->dtype);
}

// The runs of region (layer, outer) of one tensor, in bytes from its first element.
std::vector<Fragment> runs_of(const Tensor& tensor, std::uint32_t memory, std::size_t layer,
                              std::size_t outer) {
  std::size_t run = 1;  // elements
  std::size_t outside = tensor.inner.size();
  while (outside > 0 && tensor.inner[outside - 1].stride == run) {
    run *= tensor.inner[--outside].size;
  }
  std::vector<std::size_t> starts{layer * tensor.layers.stride + outer * tensor.outers.stride};
  for (std::size_t i = 0; i < outside; ++i) {
    std::vector<std::size_t> next;
    for (const std::size_t start : starts) {
      for (std::size_t step = 0; step < tensor.inner[i].size; ++step) {
        next.push_back(start + step * tensor.inner[i].stride);
      }
    }
    starts = std::move(next);
  }
  std::vector<Fragment> runs;
  for (const std::size_t start : starts) {
    runs.push_back({memory, start * tensor.item_bytes, run * tensor.item_bytes,
                    tensor.blocks.stride * tensor.item_bytes});
  }
  return runs;
}

std::size_t region_elements(const Tensor& tensor) {
  std::size_t elements = 1;
  for (const Axis& axis : tensor.inner) elements *= axis.size;
  return elements;
}

Result<std::vector<Tensor>> read_tensors(const KvTensors& from) {
  if (from.tensors.empty()) {
    return Error{ErrorCode::InvalidConfig, 0, 0, 1, "a layout needs at least one tensor"};
  }
  std::vector<Tensor> tensors;
  for (const KvTensor& tensor : from.tensors) {
    KVBM_TRY(tensors.emplace_back(), read_tensor(tensor, tensors.size()));
    const Tensor& read = tensors.back();
    const Tensor& first = tensors.front();
    if (read.blocks.size != first.blocks.size) {
      return bad(read, "it has another number of blocks than tensor 0", read.blocks.size,
                 first.blocks.size);
    }
    if (read.has_layers() && from.tensors.size() > 1) {
      return bad(read, "a tensor with an axis L holds all layers and must be the only one",
                 from.tensors.size(), 1);
    }
    const std::size_t before = tensors.size() == 1 ? 0 : tensors[tensors.size() - 2].from->layer;
    const bool in_order = tensors.size() == 1
                              ? tensor.layer == 0
                              : tensor.layer == before || tensor.layer == before + 1;
    if (!read.has_layers() && !in_order) {
      return bad(read,
                 "layers must count up from 0 without gaps; after " + std::to_string(before) +
                     " comes " + std::to_string(tensor.layer),
                 tensor.layer, before);
    }
  }
  return tensors;
}

// Tokens of a block, where the tensors say so.
Result<std::size_t> page_size_of(const std::vector<Tensor>& tensors) {
  std::size_t page_size = 0;
  for (const Tensor& tensor : tensors) {
    const std::size_t at = tensor.from->axes.find('N');
    if (at == std::string::npos) continue;
    const std::size_t tokens = tensor.from->shape[at];
    if (page_size != 0 && tokens != page_size) {
      return bad(tensor, "its blocks have another number of tokens than those before", tokens,
                 page_size);
    }
    page_size = tokens;
  }
  return page_size;
}

}  // namespace

Result<std::shared_ptr<const Layout>> Layout::from_tensors(const KvTensors& from) {
  KVBM_TRY(const std::vector<Tensor> tensors, read_tensors(from));
  KVBM_TRY(const std::size_t page_size, page_size_of(tensors));
  Memories memories;
  std::vector<BlockContent::Part> parts;
  std::vector<std::vector<Fragment>> runs;
  std::map<std::size_t, std::size_t> outers;  // of each layer so far
  bool uniform = true;
  for (const Tensor& tensor : tensors) {
    memories.push_back(
        std::make_shared<detail::Memory>(tensor.from->storage, tensor.from->address, tensor.bytes));
    const auto memory = static_cast<std::uint32_t>(memories.size() - 1);
    const std::size_t bytes = region_elements(tensor) * tensor.item_bytes;
    for (std::size_t l = 0; l < tensor.layers.size; ++l) {
      const std::size_t layer = tensor.has_layers() ? l : tensor.from->layer;
      for (std::size_t o = 0; o < tensor.outers.size; ++o) {
        if (parts.size() >= kMaxRegionsPerBlock) break;  // BlockContent says so
        parts.push_back({layer, outers[layer]++, bytes, order_of(tensor)});
        uniform = uniform && parts.back().order == parts.front().order;
        runs.push_back(runs_of(tensor, memory, l, o));
      }
    }
    if (tensor.layers.size > kMaxRegionsPerBlock / tensor.outers.size) {
      return bad(tensor, "a block would have too many regions", tensor.layers.size,
                 kMaxRegionsPerBlock / tensor.outers.size);
    }
  }
  const Tensor& first = tensors.front();
  if (first.blocks.size > 0xFFFFFFFEu) {
    return bad(first, "there are at most 2^32 - 2 blocks", first.blocks.size, 0xFFFFFFFEu);
  }
  const std::size_t elements = region_elements(first);
  const bool even = uniform && page_size != 0;
  const LayoutConfig config{.num_blocks = first.blocks.size,
                            .num_layers = outers.size(),
                            .outer_dim = outers[0],
                            .page_size = page_size,
                            .inner_dim = even ? elements / page_size : 0,
                            .dtype = first.from->dtype};
  KVBM_TRY(auto content, BlockContent::create(parts, from.packing));
  std::shared_ptr<Layout> layout(new Layout(config, std::move(content), std::move(memories)));
  for (std::vector<Fragment>& region : runs) layout->add_region(std::move(region));
  KVBM_CHECK_OK(layout->finish());
  return std::shared_ptr<const Layout>(std::move(layout));
}

}  // namespace kvbm
