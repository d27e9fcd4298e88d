#include "physical/layout/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace kvbm {
namespace {

constexpr LayoutType kTypes[] = {LayoutType::FullyContiguous,
                                 LayoutType::LayerSeparateOuterContiguous,
                                 LayoutType::LayerSeparateBlockContiguous};

constexpr LayoutConfig kSmall = {.num_blocks = 3,
                                 .num_layers = 4,
                                 .outer_dim = 2,
                                 .page_size = 5,
                                 .inner_dim = 7,
                                 .dtype = DType::FP32,
                                 .alignment = 64};

Layout::Memories allocate(std::size_t count, std::size_t bytes) {
  Layout::Memories memories;
  for (std::size_t i = 0; i < count; ++i) {
    memories.push_back(SystemAllocator().allocate(bytes).value().memory());
  }
  return memories;
}

Layout::Memories allocate_for(LayoutType type, const LayoutConfig& config) {
  return allocate(config.storage_count(type), config.storage_bytes(type).value());
}

std::shared_ptr<const Layout> make_layout(LayoutType type, const LayoutConfig& config) {
  return Layout::create(type, config, allocate_for(type, config)).value();
}

std::uint64_t address_of(const detail::Memory& memory) {
  return reinterpret_cast<std::uintptr_t>(memory.data());
}

// Where each element lies, found by walking through the memories in the order of the dimensions
// and counting: no strides, no multiplication.
class Walk {
 public:
  Walk(LayoutType type, const LayoutConfig& config, const Layout::Memories& memories)
      : config_(config) {
    for (const auto& memory : memories) starts_.push_back(aligned_start(*memory));
    switch (type) {
      case LayoutType::FullyContiguous: walk_fully_contiguous(); break;
      case LayoutType::LayerSeparateOuterContiguous: walk_outer_first(); break;
      case LayoutType::LayerSeparateBlockContiguous: walk_block_first(); break;
    }
  }

  // Offsets in the memory of the region's elements, token by token.
  const std::vector<std::size_t>& region(std::size_t block, std::size_t layer,
                                         std::size_t outer) const {
    return regions_.at({block, layer, outer});
  }
  // Bytes of data in one memory, from its first aligned byte.
  std::size_t data_bytes() const { return data_bytes_; }

 private:
  using Index = std::tuple<std::size_t, std::size_t, std::size_t>;

  std::size_t aligned_start(const detail::Memory& memory) const {
    std::size_t start = 0;
    while ((address_of(memory) + start) % config_.alignment != 0) ++start;
    return start;
  }
  void begin(std::size_t memory) { start_ = cursor_ = starts_[memory]; }
  void take_region(std::size_t block, std::size_t layer, std::size_t outer) {
    auto& elements = regions_[{block, layer, outer}];
    for (std::size_t token = 0; token < config_.page_size; ++token) {
      for (std::size_t inner = 0; inner < config_.inner_dim; ++inner) {
        elements.push_back(cursor_);
        cursor_ += size_bytes(config_.dtype);
      }
    }
  }
  void pad() {
    while ((cursor_ - start_) % config_.alignment != 0) ++cursor_;
  }

  void walk_fully_contiguous() {
    begin(0);
    for (std::size_t block = 0; block < config_.num_blocks; ++block) {
      pad();  // before each block, so not after the last
      for (std::size_t layer = 0; layer < config_.num_layers; ++layer) {
        for (std::size_t outer = 0; outer < config_.outer_dim; ++outer) {
          take_region(block, layer, outer);
        }
      }
    }
    data_bytes_ = cursor_ - start_;
  }
  void walk_outer_first() {
    for (std::size_t layer = 0; layer < config_.num_layers; ++layer) {
      begin(layer);
      for (std::size_t outer = 0; outer < config_.outer_dim; ++outer) {
        for (std::size_t block = 0; block < config_.num_blocks; ++block) {
          take_region(block, layer, outer);
          pad();
        }
      }
      data_bytes_ = cursor_ - start_;
    }
  }
  void walk_block_first() {
    for (std::size_t layer = 0; layer < config_.num_layers; ++layer) {
      begin(layer);
      for (std::size_t block = 0; block < config_.num_blocks; ++block) {
        for (std::size_t outer = 0; outer < config_.outer_dim; ++outer) {
          take_region(block, layer, outer);
        }
        pad();
      }
      data_bytes_ = cursor_ - start_;
    }
  }

  LayoutConfig config_;
  std::vector<std::size_t> starts_;
  std::size_t start_ = 0;
  std::size_t cursor_ = 0;
  std::size_t data_bytes_ = 0;
  std::map<Index, std::vector<std::size_t>> regions_;
};

template <class Use>
void for_each_region(const LayoutConfig& config, Use use) {
  for (std::size_t block = 0; block < config.num_blocks; ++block) {
    for (std::size_t layer = 0; layer < config.num_layers; ++layer) {
      for (std::size_t outer = 0; outer < config.outer_dim; ++outer) use(block, layer, outer);
    }
  }
}

template <class Use>
void for_each_shape(Use use) {
  const LayoutConfig shapes[] = {
      {.num_blocks = 1, .num_layers = 1, .outer_dim = 1, .page_size = 1, .inner_dim = 1},
      {.num_blocks = 5, .num_layers = 3, .outer_dim = 2, .page_size = 4, .inner_dim = 6},
      {.num_blocks = 3, .num_layers = 2, .outer_dim = 1, .page_size = 3, .inner_dim = 11},
      {.num_blocks = 4, .num_layers = 1, .outer_dim = 2, .page_size = 16, .inner_dim = 33},
      {.num_blocks = 2, .num_layers = 5, .outer_dim = 2, .page_size = 1, .inner_dim = 127},
      {.num_blocks = 7, .num_layers = 2, .outer_dim = 2, .page_size = 2, .inner_dim = 256},
  };
  for (LayoutType type : kTypes) {
    for (LayoutConfig config : shapes) {
      for (DType dtype : {DType::INT8, DType::FP16, DType::INT64}) {
        for (std::size_t alignment = 1; alignment <= 4096; alignment *= 2) {
          config.dtype = dtype;
          config.alignment = alignment;
          SCOPED_TRACE("type " + std::to_string(static_cast<int>(type)) + ", inner_dim " +
                       std::to_string(config.inner_dim) + ", dtype " +
                       std::to_string(static_cast<int>(dtype)) + ", alignment " +
                       std::to_string(alignment));
          use(type, config);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

// Every element where the walk found it.
void expect_as_walked(const Layout& layout, const Walk& walk) {
  const LayoutConfig& config = layout.config();
  for_each_region(config, [&](std::size_t block, std::size_t layer, std::size_t outer) {
    const Region region = layout.region(block, layer, outer).value();
    const auto& elements = walk.region(block, layer, outer);
    const std::size_t which = layout.is_contiguous() ? 0 : layer;
    ASSERT_EQ(region.memory, &layout.memory(which));
    ASSERT_EQ(region.bytes, elements.size() * size_bytes(config.dtype));
    for (std::size_t i = 0; i < elements.size(); ++i) {
      ASSERT_EQ(region.offset + i * size_bytes(config.dtype), elements[i]);
    }
    ASSERT_EQ(region.data(), region.memory->data() + elements[0]);
  });
}

TEST(LayoutTest, EveryElementLiesWhereTheWalkFindsIt) {
  for_each_shape([](LayoutType type, const LayoutConfig& config) {
    auto memories = allocate_for(type, config);
    const Walk walk(type, config, memories);
    const auto layout = Layout::create(type, config, std::move(memories)).value();
    expect_as_walked(*layout, walk);
    ASSERT_EQ(config.storage_bytes(type).value(), walk.data_bytes() + config.alignment - 1);
  });
}

TEST(LayoutTest, MemoryThatIsNotAlignedIsUsedFromItsFirstAlignedByte) {
  LayoutConfig config = kSmall;
  config.alignment = std::size_t{1} << 16;  // more than the allocator promises
  for (LayoutType type : kTypes) {
    Layout::Memories memories;
    Layout::Memories aligned;  // kept, so that the kernel does not offer them again
    while (memories.size() < config.storage_count(type)) {
      // One page more, so that neighbouring memories do not all begin alike.
      auto memory = allocate(1, config.storage_bytes(type).value() + 4096)[0];
      const bool is_aligned = address_of(*memory) % config.alignment == 0;
      (is_aligned ? aligned : memories).push_back(std::move(memory));
      ASSERT_LT(aligned.size(), 1000u) << "the kernel gives only aligned memory";
    }
    const Walk walk(type, config, memories);
    const auto layout = Layout::create(type, config, std::move(memories)).value();
    expect_as_walked(*layout, walk);
    for_each_region(config, [&](std::size_t block, std::size_t, std::size_t) {
      const Region first = layout->region(block, 0, 0).value();
      ASSERT_EQ((address_of(*first.memory) + first.offset) % config.alignment, 0u);
    });
  }
}

TEST(LayoutTest, RegionsStayInTheirMemoryAndShareNoByte) {
  for_each_shape([](LayoutType type, const LayoutConfig& config) {
    const auto layout = make_layout(type, config);
    std::map<const detail::Memory*, std::vector<char>> taken;
    for_each_region(config, [&](std::size_t block, std::size_t layer, std::size_t outer) {
      const Region region = layout->region(block, layer, outer).value();
      auto& bytes = taken.try_emplace(region.memory, region.memory->bytes(), 0).first->second;
      ASSERT_LE(region.offset + region.bytes, bytes.size());
      for (std::size_t i = 0; i < region.bytes; ++i) ASSERT_EQ(bytes[region.offset + i]++, 0);
    });
  });
}

TEST(LayoutTest, BlocksBeginAlignedAndOneStrideApart) {
  for_each_shape([](LayoutType type, const LayoutConfig& config) {
    const auto layout = make_layout(type, config);
    for (std::size_t block = 0; block < config.num_blocks; ++block) {
      const Region region = layout->region(block, 0, 0).value();
      ASSERT_EQ((address_of(*region.memory) + region.offset) % config.alignment, 0u);
      ASSERT_EQ(region.offset, layout->region(0, 0, 0).value().offset +  //
                                   block * layout->block_stride());
    }
  });
}

TEST(LayoutTest, TheExtentOfAContiguousBlockIsItsRegions) {
  const auto layout = make_layout(LayoutType::FullyContiguous, kSmall);
  EXPECT_TRUE(layout->is_contiguous());
  EXPECT_FALSE(make_layout(LayoutType::LayerSeparateOuterContiguous, kSmall)->is_contiguous());
  EXPECT_FALSE(make_layout(LayoutType::LayerSeparateBlockContiguous, kSmall)->is_contiguous());
  for (std::size_t block = 0; block < kSmall.num_blocks; ++block) {
    const Region extent = layout->extent(block);
    const Region first = layout->region(block, 0, 0).value();
    const Region last = layout->region(block, 3, 1).value();
    EXPECT_EQ(extent.memory, first.memory);
    EXPECT_EQ(extent.offset, first.offset);
    EXPECT_EQ(extent.offset + extent.bytes, last.offset + last.bytes);
    EXPECT_EQ(extent.bytes, layout->content()->regions().size() * first.bytes);
  }
}

TEST(LayoutTest, AFileIsAddressedFromItsFirstByte) {
  DiskAllocator allocator(testing::TempDir());
  const auto type = LayoutType::FullyContiguous;
  auto memory = allocator.allocate(kSmall.storage_bytes(type).value()).value().memory();
  const auto layout = Layout::create(type, kSmall, {std::move(memory)}).value();
  EXPECT_EQ(layout->extent(0).offset, 0u);
  EXPECT_EQ(layout->extent(2).offset, 2 * layout->block_stride());
  EXPECT_EQ(layout->extent(2).data(), nullptr);
}

void expect_error(const Result<Region>& region, ErrorCode code, std::size_t requested,
                  std::size_t available) {
  ASSERT_FALSE(region.has_value());
  EXPECT_EQ(region.error().code, code);
  EXPECT_EQ(region.error().requested, requested);
  EXPECT_EQ(region.error().available, available);
}

TEST(LayoutTest, IndicesAreCheckedInOrderBlockLayerOuter) {
  for (LayoutType type : kTypes) {
    const auto layout = make_layout(type, kSmall);
    expect_error(layout->region(3, 4, 2), ErrorCode::InvalidBlockIndex, 3, 3);
    expect_error(layout->region(2, 4, 2), ErrorCode::InvalidLayerIndex, 4, 4);
    expect_error(layout->region(2, 3, 2), ErrorCode::InvalidOuterIndex, 2, 2);
    expect_error(layout->region(~std::size_t{0}, 0, 0), ErrorCode::InvalidBlockIndex,
                 ~std::size_t{0}, 3);
    EXPECT_TRUE(layout->region(2, 3, 1).has_value());
  }
}

TEST(LayoutTest, TheNumberOfStoragesMustFit) {
  for (LayoutType type : kTypes) {
    const std::size_t needed = type == LayoutType::FullyContiguous ? 1 : kSmall.num_layers;
    EXPECT_EQ(kSmall.storage_count(type), needed);
    for (std::size_t count : {std::size_t{0}, needed - 1, needed + 1}) {
      const auto layout =
          Layout::create(type, kSmall, allocate(count, kSmall.storage_bytes(type).value()));
      ASSERT_FALSE(layout.has_value());
      EXPECT_EQ(layout.error().code, ErrorCode::InvalidConfig);
      EXPECT_EQ(layout.error().requested, count);
      EXPECT_EQ(layout.error().available, needed);
    }
  }
}

TEST(LayoutTest, AlignedStoragesNeedTheDataAndNotAByteLess) {
  for_each_shape([](LayoutType type, const LayoutConfig& config) {
    auto memories = allocate_for(type, config);
    const std::size_t data = Walk(type, config, memories).data_bytes();
    memories.back() = allocate(1, data)[0];
    ASSERT_TRUE(Layout::create(type, config, memories).has_value());
    if (data == 1) return;
    memories.back() = allocate(1, data - 1)[0];
    const auto layout = Layout::create(type, config, memories);
    ASSERT_FALSE(layout.has_value());
    ASSERT_EQ(layout.error().code, ErrorCode::InvalidConfig);
    ASSERT_EQ(layout.error().requested, data);
    ASSERT_EQ(layout.error().available, data - 1);
  });
}

TEST(LayoutTest, SizesThatOverflowAreRefused) {
  const LayoutConfig largest = {.num_blocks = 0xFFFFFFFEu,
                                .num_layers = MAX_NUM_LAYERS,
                                .outer_dim = MAX_OUTER_DIM,
                                .page_size = MAX_PAGE_SIZE,
                                .inner_dim = MAX_INNER_DIM,
                                .dtype = DType::INT64};
  ASSERT_TRUE(largest.validate().has_value());
  const auto contiguous = largest.storage_bytes(LayoutType::FullyContiguous);
  ASSERT_FALSE(contiguous.has_value());
  EXPECT_EQ(contiguous.error().code, ErrorCode::InvalidConfig);

  LayoutConfig padded = kSmall;
  padded.alignment = std::size_t{1} << 63;
  for (LayoutType type : kTypes) {
    const auto bytes = padded.storage_bytes(type);
    ASSERT_FALSE(bytes.has_value());
    EXPECT_EQ(bytes.error().code, ErrorCode::InvalidConfig);
    const auto layout = Layout::create(type, padded, allocate(padded.storage_count(type), 4096));
    ASSERT_FALSE(layout.has_value());
    EXPECT_EQ(layout.error().code, ErrorCode::InvalidConfig);
  }
  // One block of one region: the data fits in 64 bits, the data and alignment - 1 do not.
  padded = {.num_blocks = 1, .num_layers = 1, .outer_dim = 1, .page_size = 1, .inner_dim = 1};
  padded.alignment = std::size_t{1} << 63;
  EXPECT_EQ(padded.storage_bytes(LayoutType::FullyContiguous).value(), (std::size_t{1} << 63) + 1);
  EXPECT_EQ(padded.storage_bytes(LayoutType::LayerSeparateBlockContiguous).value(),
            std::numeric_limits<std::size_t>::max());
}

TEST(LayoutConfigTest, AFieldOutOfRangeIsNamedWithItsLimit) {
  const struct {
    const char* name;
    std::size_t LayoutConfig::* field;
    std::size_t limit;
  } fields[] = {{"num_blocks", &LayoutConfig::num_blocks, 0xFFFFFFFEu},
                {"num_layers", &LayoutConfig::num_layers, 128},
                {"outer_dim", &LayoutConfig::outer_dim, 2},
                {"page_size", &LayoutConfig::page_size, 1024},
                {"inner_dim", &LayoutConfig::inner_dim, 32768}};
  for (const auto& [name, field, limit] : fields) {
    LayoutConfig config = kSmall;
    for (std::size_t good : {std::size_t{1}, limit}) {
      config.*field = good;
      EXPECT_TRUE(config.validate().has_value()) << name;
    }
    for (std::size_t bad : {std::size_t{0}, limit + 1, ~std::size_t{0}}) {
      config.*field = bad;
      const Result<void> result = config.validate();
      ASSERT_FALSE(result.has_value()) << name;
      EXPECT_EQ(result.error().code, ErrorCode::InvalidConfig);
      EXPECT_EQ(result.error().message.find(name), 0u) << result.error().message;
      EXPECT_EQ(result.error().requested, bad);
      EXPECT_EQ(result.error().available, limit);
      EXPECT_FALSE(Layout::create(LayoutType::FullyContiguous, config, allocate(1, 4096)));
    }
  }
}

TEST(LayoutConfigTest, AlignmentMustBeAPowerOfTwo) {
  for (std::size_t bad : {0u, 3u, 4095u, 4097u}) {
    LayoutConfig config = kSmall;
    config.alignment = bad;
    const Result<void> result = config.validate();
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, ErrorCode::InvalidConfig);
    EXPECT_EQ(result.error().requested, bad);
    EXPECT_EQ(result.error().message.find("alignment"), 0u) << result.error().message;
  }
}

TEST(LayoutConfigTest, BytesOfRegionsAndBlocks) {
  EXPECT_EQ(kSmall.region_bytes(), 5u * 7 * 4);
  EXPECT_EQ(kSmall.block_bytes(), 5u * 7 * 4 * 4 * 2);
}

TEST(ContentDigestTest, IsEqualForTheSameDataWhereverItLies) {
  const std::uint64_t digest = make_layout(LayoutType::FullyContiguous, kSmall)->content_digest();
  for (LayoutType type : kTypes) {
    LayoutConfig config = kSmall;
    config.num_blocks = 9;
    config.alignment = 512;
    EXPECT_EQ(make_layout(type, config)->content_digest(), digest);
  }
}

TEST(ContentDigestTest, DiffersWhenAnyDimensionOfTheDataDiffers) {
  std::vector<std::uint64_t> digests;
  const auto add = [&](const LayoutConfig& config) {
    digests.push_back(make_layout(LayoutType::FullyContiguous, config)->content_digest());
  };
  add(kSmall);
  for (auto field :
       {&LayoutConfig::num_layers, &LayoutConfig::page_size, &LayoutConfig::inner_dim}) {
    LayoutConfig config = kSmall;
    config.*field += 1;
    add(config);
  }
  LayoutConfig config = kSmall;
  config.outer_dim = 1;
  add(config);
  config = kSmall;
  config.dtype = DType::FP16;
  add(config);
  config.dtype = DType::BF16;  // as wide, and another number for the same bits
  add(config);
  config = kSmall;
  std::swap(config.page_size, config.inner_dim);  // the same bytes per region
  add(config);

  std::sort(digests.begin(), digests.end());
  EXPECT_EQ(std::unique(digests.begin(), digests.end()), digests.end());
}

}  // namespace
}  // namespace kvbm
