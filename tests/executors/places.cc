#include "executors/places.h"

#include <algorithm>

#include "base/xxh3.h"

namespace kvbm {
namespace {

constexpr std::size_t kGuard = 4096;
constexpr std::size_t kUnit = 4096;  // of direct I/O

// A tensor of one layer whose dimensions lie in memory in this order.
KvTensor tensor_of(const Content& content, std::size_t layer, const std::string& order) {
  const auto size_of = [&](char axis) -> std::size_t {
    switch (axis) {
      case 'B': return Place::kBlocks;
      case 'O': return content.outer;
      case 'H': return content.heads;
      case 'N': return content.tokens;
      default: return content.elements + (content.ragged ? layer : 0);
    }
  };
  KvTensor tensor{.axes = order, .shape = {}, .dtype = DType::U8, .layer = layer};
  for (const char axis : order) tensor.shape.push_back(size_of(axis));
  return tensor;
}

std::size_t bytes_of(const KvTensor& tensor) {
  std::size_t bytes = 1;
  for (const std::size_t size : tensor.shape) bytes *= size;
  return bytes;
}

// All layers, one after the other with a gap of 3 bytes, from this address on.
KvTensors tensors_of(const Content& content, const std::string& order, std::uint64_t address,
                     StorageType storage, std::size_t* end) {
  KvTensors tensors;
  std::uint64_t at = address;
  for (std::size_t layer = 0; layer < content.layers; ++layer) {
    tensors.tensors.push_back(tensor_of(content, layer, order));
    tensors.tensors.back().address = at;
    tensors.tensors.back().storage = storage;
    at += bytes_of(tensors.tensors.back()) + 3;
  }
  if (end) *end = at - address;
  return tensors;
}

// Heads before tokens in every one, so that all hold the same bytes in the same order.
std::string order_of(Shape shape) {
  switch (shape) {
    case Shape::BlocksFirst: return "BOHNC";
    case Shape::HeadsApart: return "OHBNC";
    default: return "OBHNC";
  }
}

}  // namespace

const char* name_of(Shape shape) {
  switch (shape) {
    case Shape::Contiguous: return "contiguous";
    case Shape::LayersApart: return "layers apart";
    case Shape::BlocksFirst: return "blocks first";
    case Shape::HeadsApart: return "heads apart";
  }
  return "";
}

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::Memory: return "memory";
    case Kind::File: return "file";
    case Kind::Device: return "device";
  }
  return "";
}

Place::Place(const Content& content, Shape shape, const Backing& backing, std::mt19937_64& random)
    : backing_(backing) {
  std::size_t bytes = 0;
  const KvTensors sizes = tensors_of(content, order_of(shape), kGuard, {}, &bytes);
  if (shape == Shape::Contiguous) {
    const auto held = Layout::from_tensors(sizes).value()->content();
    LayoutConfig config{.num_blocks = kBlocks,
                        .num_layers = content.layers,
                        .outer_dim = content.outer,
                        .page_size = content.tokens,
                        .inner_dim = content.heads * content.elements,
                        .dtype = DType::U8,
                        .alignment = kUnit};
    memory_ = backing_.make(Layout::contiguous_bytes(*held, kBlocks, kUnit).value() + kUnit);
    layout_ = Layout::contiguous(held, config, memory_).value();
  } else {
    memory_ = backing_.make(bytes + 2 * kGuard);
    layout_ = Layout::from_tensors(tensors_of(content, order_of(shape), memory_->address() + kGuard,
                                              memory_->type(), nullptr))
                  .value();
  }
  expected_.resize(memory_->bytes());
  for (std::byte& byte : expected_) byte = static_cast<std::byte>(random());
  backing_.write(*memory_, expected_);
}

std::vector<std::size_t> Place::offsets(BlockId block, std::size_t region) const {
  std::vector<std::size_t> offsets;
  for (const Fragment& fragment : layout_->fragments(region)) {
    const Region run = layout_->place(fragment, block);
    const std::size_t begin =
        static_cast<std::size_t>(run.memory->address() + run.offset - memory_->address());
    for (std::size_t i = 0; i < run.bytes; ++i) offsets.push_back(begin + i);
  }
  return offsets;
}

std::uint64_t Place::sum(BlockId block, std::size_t first_region, std::size_t last_region) const {
  std::vector<XXH64_hash_t> sums;
  for (std::size_t region = first_region; region <= last_region; ++region) {
    Bytes bytes;
    for (const std::size_t offset : offsets(block, region)) bytes.push_back(expected_[offset]);
    sums.push_back(XXH3_64bits(bytes.data(), bytes.size()));
  }
  return XXH3_64bits(sums.data(), sums.size() * sizeof sums[0]);
}

void Place::expect_copy(const Place& source, BlockId from, BlockId to, std::size_t first_region,
                        std::size_t last_region) {
  for (std::size_t region = first_region; region <= last_region; ++region) {
    const auto sources = source.offsets(from, region);
    const auto targets = offsets(to, region);
    for (std::size_t i = 0; i < targets.size(); ++i) {
      expected_[targets[i]] = source.expected_[sources[i]];
    }
  }
}

void Place::expect_padding(const Place& source, BlockId from, BlockId to) {
  const bool reads = source.memory_->file() && memory_->data();
  const bool writes = memory_->file();
  if (!reads && !writes) return;
  if (!source.memory_->data() && !source.memory_->file()) {  // from a device: nobody says what
    const Region block = layout_->extent(to);
    const Bytes now = bytes();
    const std::size_t end = block.offset + (block.bytes + kUnit - 1) / kUnit * kUnit;
    for (std::size_t i = block.offset + block.bytes; i < end; ++i) expected_[i] = now[i];
    return;
  }
  const Region in_source = source.layout_->extent(from);
  const Region in_target = layout_->extent(to);
  const std::size_t unit = (memory_->file() ? memory_ : source.memory_)->file()->io_alignment();
  const std::size_t moved = (in_target.bytes + unit - 1) / unit * unit;
  for (std::size_t i = in_target.bytes; i < moved; ++i) {
    expected_[in_target.offset + i] = source.expected_[in_source.offset + i];
  }
}

void Place::expect_zeros(BlockId block) {
  for (std::size_t region = 0; region < layout_->content()->regions().size(); ++region) {
    for (const std::size_t offset : offsets(block, region)) expected_[offset] = std::byte{0};
  }
}

void Place::damage(BlockId block) {
  const auto last = offsets(block, layout_->content()->regions().size() - 1);
  const std::size_t offset = last[last.size() / 2];
  expected_[offset] ^= std::byte{0x10};
  backing_.write(*memory_, expected_);
}

}  // namespace kvbm
