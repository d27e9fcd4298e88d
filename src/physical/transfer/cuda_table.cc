#include "physical/transfer/cuda_table.h"

namespace kvbm {
namespace {

constexpr double kClearlyFaster = 1.03;
constexpr CudaWay kOthers[] = {CudaWay::Staged, CudaWay::Kernel};

std::size_t nearest_size(std::size_t bytes) {
  std::size_t size = 0;
  // Halfway between two sizes that are a factor of four apart lies twice the smaller one.
  while (size + 1 < CudaCopyTable::kSizes.size() && bytes >= 2 * CudaCopyTable::kSizes[size]) {
    ++size;
  }
  return size;
}

}  // namespace

const char* to_string(CudaWay way) noexcept {
  switch (way) {
    case CudaWay::Engine: return "engine";
    case CudaWay::Staged: return "staged";
    case CudaWay::Kernel: return "kernel";
  }
  return "unknown";
}

CudaCopyTable CudaCopyTable::always(CudaWay way) {
  CudaCopyTable table;
  for (std::size_t size = 0; size < kSizes.size(); ++size) {
    table.set(CudaDirection::ToDevice, way, size, 1);
    if (way != CudaWay::Kernel) table.set(CudaDirection::ToHost, way, size, 1);
  }
  return table;
}

CudaWay CudaCopyTable::choose(CudaDirection direction, std::size_t fragment_bytes) const noexcept {
  const std::size_t size = nearest_size(fragment_bytes);
  CudaWay best = CudaWay::Engine;
  double to_beat = get(direction, best, size) * kClearlyFaster;
  for (CudaWay way : kOthers) {
    const double speed = get(direction, way, size);
    if (speed <= to_beat) continue;
    best = way;
    to_beat = speed;
  }
  return best;
}

std::string CudaCopyTable::description() const {
  std::string text;
  for (auto direction : {CudaDirection::ToDevice, CudaDirection::ToHost}) {
    text += direction == CudaDirection::ToDevice ? "to the device:" : "; to the host:";
    for (std::size_t bytes : kSizes) {
      text += " " + std::to_string(bytes >> 10) + " KiB " + to_string(choose(direction, bytes));
    }
  }
  return text;
}

}  // namespace kvbm
