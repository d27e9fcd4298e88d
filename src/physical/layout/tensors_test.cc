#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "physical/layout/layout.h"

namespace kvbm {
namespace {

constexpr std::uint64_t kBase = 1 << 20;  // never dereferenced

// Sizes of a model, by axis.
using Sizes = std::map<char, std::size_t>;
const Sizes kModel = {{'L', 3}, {'B', 5}, {'O', 2}, {'H', 4}, {'N', 6}, {'C', 7}};

// A tensor whose dimensions are named in the order of `axes` and lie in memory in the order of
// `memory_order`, the last one without gaps.
KvTensor tensor(const std::string& axes, const std::string& memory_order,
                const Sizes& sizes = kModel, DType dtype = DType::FP16) {
  KvTensor tensor{.axes = axes, .shape = {}, .dtype = dtype, .address = kBase};
  std::map<char, std::int64_t> strides;
  std::int64_t stride = 1;
  for (std::size_t i = memory_order.size(); i-- > 0;) {
    strides[memory_order[i]] = stride;
    stride *= static_cast<std::int64_t>(sizes.at(memory_order[i]));
  }
  for (const char axis : axes) {
    tensor.shape.push_back(sizes.at(axis));
    tensor.strides.push_back(strides.at(axis));
  }
  return tensor;
}

// The address of every element of region (layer, outer) of a block, by walking over all elements of
// the tensor and sorting those that belong by what their order in memory is: no runs, no merging.
std::vector<std::uint64_t> elements_of(const KvTensor& tensor, std::size_t block, std::size_t layer,
                                       std::size_t outer) {
  std::vector<std::uint64_t> addresses;
  std::vector<std::size_t> index(tensor.axes.size(), 0);
  for (;;) {
    bool belongs = true;
    std::uint64_t address = tensor.address;
    for (std::size_t i = 0; i < index.size(); ++i) {
      address +=
          index[i] * static_cast<std::uint64_t>(tensor.strides[i]) * size_bytes(tensor.dtype);
      if (tensor.axes[i] == 'B') belongs &= index[i] == block;
      if (tensor.axes[i] == 'L') belongs &= index[i] == layer;
      if (tensor.axes[i] == 'O') belongs &= index[i] == outer;
    }
    if (belongs) addresses.push_back(address);
    std::size_t at = index.size();
    while (at > 0 && ++index[at - 1] == tensor.shape[at - 1]) index[--at] = 0;
    if (at == 0) break;
  }
  std::sort(addresses.begin(), addresses.end());
  return addresses;
}

// The same as the layout says.
std::vector<std::uint64_t> elements_of(const Layout& layout, std::size_t block, std::size_t region,
                                       std::size_t item_bytes) {
  std::vector<std::uint64_t> addresses;
  for (const Fragment& fragment : layout.fragments(region)) {
    const Region run = layout.place(fragment, block);
    EXPECT_EQ(run.bytes % item_bytes, 0u);
    for (std::size_t at = 0; at < run.bytes; at += item_bytes) {
      addresses.push_back(run.memory->address() + run.offset + at);
    }
  }
  return addresses;
}

// Every element of every block where the tensors have it, and nowhere twice.
void expect_every_element(const std::vector<KvTensor>& tensors, const Layout& layout) {
  std::set<std::uint64_t> seen;
  std::size_t region = 0;
  for (const KvTensor& tensor : tensors) {
    const auto size_of = [&](char axis) {
      const std::size_t at = tensor.axes.find(axis);
      return at == std::string::npos ? std::size_t{1} : tensor.shape[at];
    };
    for (std::size_t layer = 0; layer < size_of('L'); ++layer) {
      for (std::size_t outer = 0; outer < size_of('O'); ++outer, ++region) {
        for (std::size_t block = 0; block < size_of('B'); ++block) {
          const auto expected = elements_of(tensor, block, layer, outer);
          ASSERT_EQ(elements_of(layout, block, region, size_bytes(tensor.dtype)), expected)
              << "block " << block << ", region " << region;
          for (const std::uint64_t address : expected) ASSERT_TRUE(seen.insert(address).second);
        }
      }
    }
  }
  EXPECT_EQ(region, layout.content()->regions().size());
}

std::shared_ptr<const Layout> layout_of(std::vector<KvTensor> tensors, std::string packing = {}) {
  auto layout = Layout::from_tensors({std::move(tensors), std::move(packing)});
  EXPECT_TRUE(layout.has_value()) << layout.error().to_string();
  return layout.value();
}

std::size_t runs_per_block(const Layout& layout) { return layout.fragments().size(); }

TEST(TensorsTest, AllPermutationsOfOneTensorForAllLayers) {
  std::string order = "LBHNC";
  std::sort(order.begin(), order.end() - 1);
  do {  // all 24, C last; engines use six of them
    SCOPED_TRACE(order);
    const std::vector<KvTensor> tensors = {tensor("LBHNC", order)};
    const auto layout = layout_of(tensors);
    expect_every_element(tensors, *layout);
    EXPECT_EQ(layout->config().num_layers, 3u);
    EXPECT_EQ(layout->config().num_blocks, 5u);
    EXPECT_EQ(layout->config().page_size, 6u);
  } while (std::next_permutation(order.begin(), order.end() - 1));
}

TEST(TensorsTest, ABlockIsAsFewRunsAsItsOrderAllows) {
  const auto runs = [](const char* order) {
    return runs_per_block(*layout_of({tensor("LBHNC", order)}));
  };
  EXPECT_EQ(runs("LBHNC"), 3u) << "one per layer";
  EXPECT_EQ(runs("LBNHC"), 3u);
  EXPECT_EQ(runs("LHBNC"), 12u) << "one per layer and head";
  EXPECT_EQ(runs("BLHNC"), 3u) << "regions stay regions, though they lie side by side";
  EXPECT_EQ(runs("BLNHC"), 3u);
  EXPECT_EQ(runs("BHLNC"), 12u);
  EXPECT_TRUE(layout_of({tensor("LBHNC", "BLHNC")})->is_contiguous());
  EXPECT_TRUE(layout_of({tensor("LBHNC", "BLNHC")})->is_contiguous());
  EXPECT_FALSE(layout_of({tensor("LBHNC", "LBHNC")})->is_contiguous());
  EXPECT_FALSE(layout_of({tensor("LBHNC", "BHLNC")})->is_contiguous());
}

// One tensor per layer, each at an address of its own.
std::vector<KvTensor> per_layer(KvTensor first, std::size_t layers, std::uint64_t apart) {
  std::vector<KvTensor> tensors;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    tensors.push_back(first);
    tensors.back().layer = layer;
    first.address += apart;
  }
  return tensors;
}

TEST(TensorsTest, ShapesPerLayer) {
  const struct {
    const char* axes;
    const char* order;
    std::size_t runs;  // per layer
  } shapes[] = {
      {"OBNHC", "OBNHC", 2},                         // K and V apart
      {"OBHNC", "OBHNC", 2}, {"BONHC", "BONHC", 2},  // blocks first
      {"BOHNC", "BOHNC", 2}, {"BONHC", "BOHNC", 2},  // heads before tokens in memory
      {"BHNC", "BHNC", 1},                           // K and V in one content
      {"BHNC", "BNHC", 1},   {"BHNC", "HBNC", 4},   {"BNC", "BNC", 1},  // MLA
      {"BC", "BC", 1},                                                  // opaque pages
  };
  for (const auto& shape : shapes) {
    SCOPED_TRACE(std::string(shape.axes) + " in memory as " + shape.order);
    const auto tensors = per_layer(tensor(shape.axes, shape.order), 3, 1 << 16);
    const auto layout = layout_of(tensors);
    expect_every_element(tensors, *layout);
    EXPECT_EQ(runs_per_block(*layout), 3 * shape.runs);
  }
}

TEST(TensorsTest, LayersMayShareOneStorage) {
  // Views of one tensor with blocks first: each layer's bytes lie between those of the others.
  KvTensor all = tensor("LBHNC", "BLHNC");
  KvTensor layer{.axes = "BHNC", .shape = {5, 4, 6, 7}, .dtype = DType::FP16, .address = kBase};
  layer.strides = {all.strides[1], all.strides[2], all.strides[3], all.strides[4]};
  const auto apart = static_cast<std::uint64_t>(all.strides[0]) * 2;
  const auto tensors = per_layer(layer, 3, apart);
  const auto layout = layout_of(tensors);
  expect_every_element(tensors, *layout);
  EXPECT_EQ(layout->content_digest(), layout_of({all})->content_digest());
}

TEST(TensorsTest, OddAndRaggedSizes) {
  // 656 bytes a token, as MLA in 8 bits has; the second layer has tokens of 48 bytes.
  std::vector<KvTensor> tensors = {
      tensor("BNC", "BNC", {{'B', 4}, {'N', 16}, {'C', 656}}, DType::U8),
      tensor("BNC", "BNC", {{'B', 4}, {'N', 16}, {'C', 48}}, DType::U8)};
  tensors[1].address += 1 << 20;
  tensors[1].layer = 1;
  const auto layout = layout_of(tensors);
  expect_every_element(tensors, *layout);
  EXPECT_EQ(layout->content()->bytes(), 16u * (656 + 48));
  EXPECT_EQ(layout->content()->regions()[1].offset, 16u * 656);
  EXPECT_EQ(layout->content()->description(), "kvbm-block-1 1x(1xN16C656:u8) 1x(1xN16C48:u8)");
  EXPECT_EQ(layout->config().inner_dim, 0u) << "there is no such number";
}

TEST(TensorsTest, TensorsOfOneLayerAreItsOuterParts) {
  KvTensor key = tensor("BNHC", "BNHC");
  KvTensor value = key;
  value.address += 1 << 16;
  KvTensor scales = tensor("BN", "BN", kModel, DType::FP32);
  scales.address += 1 << 17;
  const std::vector<KvTensor> tensors = {key, value, scales};
  const auto layout = layout_of(tensors);
  expect_every_element(tensors, *layout);
  EXPECT_EQ(layout->config().outer_dim, 3u);
  EXPECT_EQ(layout->region(2, 0, 2).value().bytes, 6u * 4);
}

TEST(TensorsTest, TheDigestIsThatOfTheSameBlocksElsewhere) {
  const LayoutConfig config{
      .num_blocks = 9, .num_layers = 3, .outer_dim = 2, .page_size = 6, .inner_dim = 28};
  const std::uint64_t digest = BlockContent::create(config).value()->digest();
  const auto of = [](const char* axes, const char* order) {
    return layout_of(per_layer(tensor(axes, order), 3, 1 << 16))->content_digest();
  };
  EXPECT_EQ(of("OBNHC", "OBNHC"), digest) << "heads of a token side by side are its elements";
  EXPECT_EQ(of("BONHC", "BONHC"), digest);
  EXPECT_NE(of("BOHNC", "BOHNC"), digest) << "other bytes at the same places";
  EXPECT_EQ(of("BOHNC", "BOHNC"), of("OBHNC", "HOBNC")) << "in how many runs does not matter";
  EXPECT_NE(layout_of({tensor("LBONHC", "LBONHC")}, "amx")->content_digest(), digest);
  EXPECT_EQ(layout_of({tensor("LBONHC", "LBONHC")})->content_digest(), digest);
}

// On any machine, since digests are stored and sent.
TEST(TensorsTest, DigestsDoNotChange) {
  const LayoutConfig config{.num_blocks = 9,
                            .num_layers = 32,
                            .outer_dim = 2,
                            .page_size = 16,
                            .inner_dim = 1024,
                            .dtype = DType::BF16};
  const auto content = BlockContent::create(config).value();
  EXPECT_EQ(content->description(), "kvbm-block-1 32x(2xN16C1024:bf16)");
  EXPECT_EQ(content->digest(), 0x96f0c73008d7bc3bu);
}

void expect_refused(const KvTensors& tensors, const std::string& message, std::uint64_t requested,
                    std::uint64_t available) {
  SCOPED_TRACE(message);
  const auto layout = Layout::from_tensors(tensors);
  ASSERT_FALSE(layout.has_value());
  EXPECT_EQ(layout.error().code, ErrorCode::InvalidConfig);
  EXPECT_NE(layout.error().message.find(message), std::string::npos) << layout.error().message;
  EXPECT_EQ(layout.error().requested, requested);
  EXPECT_EQ(layout.error().available, available);
}

TEST(TensorsTest, BadStridesAreNamed) {
  KvTensor bad = tensor("BNC", "BNC");
  bad.strides = {84, 14, 2};
  expect_refused({{bad}}, "the stride of axis C is 2 elements; it must be 1", 2, 1);
  bad.strides = {42, 6, 1};
  expect_refused({{bad}}, "the stride of axis N is 6 elements; what lies inside it takes 7", 6, 7);
  bad.strides = {41, 7, 1};
  expect_refused({{bad}}, "the stride of axis B is 41 elements; what lies inside it takes 42", 41,
                 42);
  bad.strides = {0, 7, 1};
  expect_refused({{bad}}, "the stride of axis B is 0", 0, 1);
  bad.strides = {42, -7, 1};
  expect_refused({{bad}}, "the stride of axis N is -7; it must not be negative", 0, 0);
}

TEST(TensorsTest, BadFormsAreNamed) {
  const KvTensor good = tensor("BNC", "BNC");
  const auto with = [&good](auto change) {
    KvTensor bad = good;
    change(bad);
    return KvTensors{{bad}};
  };
  expect_refused({}, "at least one tensor", 0, 1);
  expect_refused(with([](KvTensor& t) { t.axes = "BNX"; }), "tensor 0 (BNX): 'X' is no axis", 0, 0);
  expect_refused(with([](KvTensor& t) { t.axes = "BNN"; }), "axis N is there twice", 0, 0);
  expect_refused(with([](KvTensor& t) { t.axes = "HNC"; }), "axis B (blocks) is missing", 0, 0);
  expect_refused(with([](KvTensor& t) { t.shape.pop_back(); }), "one size per axis", 2, 3);
  expect_refused(with([](KvTensor& t) { t.strides.pop_back(); }), "one stride per axis", 2, 3);
  expect_refused(with([](KvTensor& t) { t.shape[1] = 0; }), "the size of axis N is 0", 0, 0);
  expect_refused(with([](KvTensor& t) { t.address = 0; }), "its address is 0", 0, 0);
  expect_refused(with([](KvTensor& t) { t.storage = {StorageType::Kind::Disk, 3}; }), "not in disk",
                 0, 0);
  expect_refused(with([](KvTensor& t) { t.layer = 1; }), "layers must count up from 0", 1, 0);
  expect_refused(with([](KvTensor& t) { t.shape[2] = ~std::size_t{0} / 2; }), "overflows",
                 ~std::size_t{0} / 2, 6);
  expect_refused(with([](KvTensor& t) { t.address = ~std::uint64_t{0} - 5; }),
                 "the end of a tensor overflows", ~std::uint64_t{0} - 5, 5 * 6 * 7 * 2);
}

TEST(TensorsTest, TensorsThatDoNotFitEachOtherAreRefused) {
  KvTensor first = tensor("BNC", "BNC");
  KvTensor second = first;
  second.layer = 1;
  second.address += 4096;
  const auto both = [&] { return KvTensors{{first, second}}; };
  ASSERT_TRUE(Layout::from_tensors(both()).has_value());
  second.shape[0] = 4;
  expect_refused(both(), "tensor 1 (BNC): it has another number of blocks", 4, 5);
  second.shape = {5, 3, 14};
  second.strides = {};
  expect_refused(both(), "another number of tokens", 3, 6);
  second = first;
  second.layer = 2;
  expect_refused(both(), "after 0 comes 2", 2, 0);
  second.layer = 1;
  expect_refused(both(), "two parts of the layout overlap", kBase, kBase + 5 * 6 * 7 * 2);
  second.address += 5 * 6 * 7 * 2 - 1;
  expect_refused(both(), "overlap", second.address, kBase + 5 * 6 * 7 * 2);
  second.address += 1;
  EXPECT_TRUE(Layout::from_tensors(both()).has_value()) << "side by side";
}

// Tensors that lie between each other's blocks: decided by the blocks, not by the whole range.
TEST(TensorsTest, InterleavedTensorsMayTouchAndNotOverlap) {
  KvTensor first = tensor("BC", "BC", {{'B', 8}, {'C', 10}}, DType::U8);
  first.strides = {30, 1};
  KvTensor second = first;
  second.layer = 1;
  for (std::uint64_t shift = 0; shift <= 30 * 9; ++shift) {
    second.address = kBase + shift;
    bool overlaps = false;
    for (std::uint64_t a = 0; a < 8; ++a) {
      for (std::uint64_t b = 0; b < 8; ++b) {
        const std::uint64_t in_first = a * 30;
        const std::uint64_t in_second = shift + b * 30;
        overlaps |= in_first < in_second + 10 && in_second < in_first + 10;
      }
    }
    EXPECT_EQ(Layout::from_tensors({{first, second}}).has_value(), !overlaps) << shift;
  }
}

TEST(TensorsTest, ARegionOfSeveralRunsHasNoView) {
  const auto layout = layout_of({tensor("LBHNC", "LHBNC")});
  const auto region = layout->region(0, 0, 0);
  ASSERT_FALSE(region.has_value());
  EXPECT_EQ(region.error().code, ErrorCode::NotAccessible);
  EXPECT_EQ(region.error().requested, 4u);
}

TEST(TensorsTest, MemoryIsNeitherCopiedNorFreed) {
  std::vector<std::byte> engine(5 * 6 * 7 * 2, std::byte{9});
  KvTensor own = tensor("BNC", "BNC");
  own.address = reinterpret_cast<std::uintptr_t>(engine.data());
  {
    const auto layout = layout_of({own});
    const Region region = layout->region(1, 0, 0).value();
    EXPECT_EQ(region.data(), engine.data() + 6 * 7 * 2);
    region.data()[0] = std::byte{1};
  }
  EXPECT_EQ(engine[6 * 7 * 2], std::byte{1});

  own.storage = {StorageType::Kind::Device, 2};
  const auto device = layout_of({own});
  EXPECT_EQ(device->region(0, 0, 0).value().data(), nullptr) << "not the CPU's to address";
  EXPECT_EQ(device->memory(0).address(), own.address);
}

}  // namespace
}  // namespace kvbm
