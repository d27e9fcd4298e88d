#include "physical/layout/content.h"

#include "base/checked.h"
#include "base/xxh3.h"

namespace kvbm {

const char* name_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::FP16: return "fp16";
    case DType::FP32: return "fp32";
    case DType::BF16: return "bf16";
    case DType::INT8: return "int8";
    case DType::INT16: return "int16";
    case DType::INT32: return "int32";
    case DType::INT64: return "int64";
    case DType::FP8: return "fp8";
    case DType::U8: return "u8";
  }
  return "unknown";
}

namespace {

// Equal neighbours are counted instead of repeated.
std::string join_runs(const std::vector<std::string>& texts, const char* between) {
  std::string joined;
  for (std::size_t i = 0; i < texts.size();) {
    std::size_t end = i + 1;
    while (end < texts.size() && texts[end] == texts[i]) ++end;
    joined += (joined.empty() ? "" : between) + std::to_string(end - i) + "x" + texts[i];
    i = end;
  }
  return joined;
}

std::string describe(const std::vector<BlockContent::Part>& parts, const std::string& packing) {
  std::vector<std::string> layers;
  for (std::size_t i = 0; i < parts.size();) {
    std::vector<std::string> orders;
    const std::size_t layer = parts[i].layer;
    for (; i < parts.size() && parts[i].layer == layer; ++i) orders.push_back(parts[i].order);
    layers.push_back("(" + join_runs(orders, "+") + ")");
  }
  std::string text = "kvbm-block-1";
  if (!packing.empty()) text += " packing=" + std::to_string(packing.size()) + ":" + packing;
  return text + " " + join_runs(layers, " ");
}

}  // namespace

Result<std::shared_ptr<const BlockContent>> BlockContent::create(const std::vector<Part>& parts,
                                                                 const std::string& packing) {
  if (parts.empty() || parts.size() > kMaxRegionsPerBlock) {
    return Error{ErrorCode::InvalidConfig, 0, parts.size(), kMaxRegionsPerBlock,
                 "a block must have 1 .. " + std::to_string(kMaxRegionsPerBlock) + " regions"};
  }
  std::shared_ptr<BlockContent> content(new BlockContent);
  for (const Part& part : parts) {
    if (part.layer == content->first_of_layer_.size()) {
      content->first_of_layer_.push_back(content->regions_.size());
    }
    content->regions_.push_back({part.layer, part.outer, content->bytes_, part.bytes});
    KVBM_TRY(content->bytes_, checked_add(content->bytes_, part.bytes, "a block's size in bytes"));
  }
  content->first_of_layer_.push_back(content->regions_.size());
  content->description_ = describe(parts, packing);
  content->digest_ = xxh3(content->description_.data(), content->description_.size());
  return std::shared_ptr<const BlockContent>(std::move(content));
}

Result<std::shared_ptr<const BlockContent>> BlockContent::create(const LayoutConfig& config) {
  std::string order;
  if (config.page_size > 1) order += "N" + std::to_string(config.page_size);
  order += "C" + std::to_string(config.inner_dim) + ":" + name_of(config.dtype);
  std::vector<Part> parts;
  for (std::size_t layer = 0; layer < config.num_layers; ++layer) {
    for (std::size_t outer = 0; outer < config.outer_dim; ++outer) {
      parts.push_back({layer, outer, config.region_bytes(), order});
    }
  }
  return create(parts, {});
}

}  // namespace kvbm
