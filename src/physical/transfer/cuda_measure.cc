#include "physical/transfer/cuda_measure.h"

#include <algorithm>

namespace kvbm {
namespace {

constexpr std::size_t kBytes = std::size_t{8} << 20;
constexpr int kRounds = 3;

// Bytes per nanosecond of the best round; 0 if one fails.
double best_speed(CudaMeter& meter, CudaDirection direction, CudaWay way,
                  std::size_t fragment_bytes) {
  auto best = std::chrono::nanoseconds::max();
  for (int round = 0; round < kRounds; ++round) {
    const auto elapsed = meter.copy(direction, way, fragment_bytes);
    if (!elapsed) return 0;
    best = std::min(best, *elapsed);
  }
  return static_cast<double>(kBytes) / static_cast<double>(best.count());
}

bool possible(const CudaShared& shared, CudaDirection direction, CudaWay way) {
  if (way == CudaWay::Engine) return true;
  return shared.kernel && (way == CudaWay::Staged || direction == CudaDirection::ToDevice);
}

}  // namespace

Result<std::unique_ptr<CudaMeter>> CudaMeter::create(const CudaShared& shared, std::size_t bytes) {
  std::unique_ptr<CudaMeter> meter(new CudaMeter(shared, bytes));
  KVBM_TRY(meter->flight_, CudaFlight::create(shared.device, shared.kernel.get()));
  KVBM_TRY(meter->host_, allocate_for_cuda(shared.device, bytes));
  KVBM_TRY(meter->device_, cuda::allocate(shared.device, 2 * bytes));
  return meter;
}

CudaMeter::~CudaMeter() {
  if (!flight_ || !flight_->under_way()) return;
  keep_for_ever(std::shared_ptr<CudaFlight>(std::move(flight_)));
  keep_for_ever(std::move(host_));
  keep_for_ever(std::shared_ptr<cuda::DeviceMemory>(std::move(device_)));
}

Result<std::chrono::nanoseconds> CudaMeter::copy(CudaDirection direction, CudaWay way,
                                                 std::size_t fragment_bytes) {
  if (flight_->under_way()) KVBM_CHECK_OK(flight_->end(std::chrono::nanoseconds{0}));
  std::vector<cuda::CopyRange> ranges;
  for (std::size_t at = 0; at < bytes_; at += fragment_bytes) {
    const unsigned long long host = host_->address() + at;
    const unsigned long long device = device_->address() + 2 * at;
    const bool to_device = direction == CudaDirection::ToDevice;
    add_copy(direction, {to_device ? host : device, to_device ? device : host, fragment_bytes},
             ranges);
  }
  const CudaLane& lane = shared_.lane(direction);
  const auto begin = std::chrono::steady_clock::now();
  const Result<void> begun = flight_->begin({.direction = direction,
                                             .way = way,
                                             .copies = lane.copies->handle(),
                                             .kernels = lane.kernels->handle(),
                                             .after_event = nullptr},
                                            ranges);
  Result<void> ended = flight_->end(shared_.patience);
  if (!begun) return Error(begun.error());
  if (!ended) return std::move(ended).error();
  return std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin);
}

CudaCopyTable measure_cuda_copies(const CudaShared& shared) {
  CudaCopyTable table;
  const cuda::Current current(*shared.device);
  auto meter = CudaMeter::create(shared, kBytes);
  if (!current.check() || !meter) return table;
  for (auto direction : {CudaDirection::ToDevice, CudaDirection::ToHost}) {
    for (auto way : {CudaWay::Engine, CudaWay::Staged, CudaWay::Kernel}) {
      if (!possible(shared, direction, way)) continue;
      for (std::size_t size = 0; size < CudaCopyTable::kSizes.size(); ++size) {
        table.set(direction, way, size,
                  best_speed(**meter, direction, way, CudaCopyTable::kSizes[size]));
      }
    }
  }
  return table;
}

}  // namespace kvbm
