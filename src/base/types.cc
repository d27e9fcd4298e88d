#include "kvbm/types.h"

namespace kvbm {

const char* to_string(Tier tier) noexcept {
  switch (tier) {
    case Tier::Device: return "device";
    case Tier::Host: return "host";
    case Tier::Disk: return "disk";
    case Tier::Remote: return "remote";
  }
  return "unknown";
}

const char* to_string(EvictionPolicy policy) noexcept {
  switch (policy) {
    case EvictionPolicy::Lru: return "lru";
    case EvictionPolicy::AgeIndex: return "age-index";
    case EvictionPolicy::Fifo: return "fifo";
  }
  return "unknown";
}

std::size_t size_bytes(DType dtype) noexcept {
  switch (dtype) {
    case DType::INT8:
    case DType::FP8:
    case DType::U8: return 1;
    case DType::FP16:
    case DType::BF16:
    case DType::INT16: return 2;
    case DType::FP32:
    case DType::INT32: return 4;
    case DType::INT64: return 8;
  }
  return 0;
}

}  // namespace kvbm
