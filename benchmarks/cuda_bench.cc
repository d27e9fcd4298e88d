#include "benchmarks/cuda_bench.h"

#include <memory>
#include <utility>

#include "physical/transfer/cuda_measure.h"

namespace kvbm::bench {
namespace {

constexpr std::size_t kBytes = std::size_t{64} << 20;
constexpr std::size_t kRounds = 31;
constexpr std::chrono::seconds kPatience{10};

double gb_per_s(std::chrono::nanoseconds elapsed) {
  return static_cast<double>(kBytes) / static_cast<double>(elapsed.count());
}

// The way that the product chooses for this size, in turns with one copy of all bytes.
Result<Row> copy_row(CudaMeter& meter, const CudaCopyTable& table, CudaDirection direction,
                     std::size_t fragment_bytes, std::string name) {
  const CudaWay way = table.choose(direction, fragment_bytes);
  std::vector<double> ours;
  std::vector<double> contiguous;
  for (std::size_t round = 0; round < kRounds; ++round) {
    KVBM_TRY(const auto elapsed, meter.copy(direction, way, fragment_bytes));
    KVBM_TRY(const auto limit, meter.copy(direction, CudaWay::Engine, kBytes));
    if (round == 0) continue;  // memory is got and mapped in the first
    ours.push_back(gb_per_s(elapsed));
    contiguous.push_back(gb_per_s(limit));
  }
  return Row{.name = std::move(name) + " (" + to_string(way) + ")",
             .value = median(std::move(ours)),
             .unit = "GB/s",
             .better = Better::Higher,
             .n = (kRounds - 1) * (kBytes / fragment_bytes),
             .aim = "ratio >= 0.95",
             .probes = {{"one contiguous copy of pinned memory", median(std::move(contiguous))}}};
}

}  // namespace

Result<Report> cuda_bench(const Options&) {
  Report report;
  auto device = cuda::Device::open(0);
  if (!device) {
    report.skipped = device.error().to_string();
    return report;
  }
  KVBM_TRY(CudaShared shared, CudaShared::create(std::move(*device)));
  shared.patience = kPatience;
  shared.table = measure_cuda_copies(shared);
  const cuda::Current current(*shared.device);
  KVBM_CHECK_OK(current.check());
  KVBM_TRY(const auto meter, CudaMeter::create(shared, kBytes));
  for (const auto& [direction, prefix] :
       {std::pair{CudaDirection::ToDevice, "h2d_"}, std::pair{CudaDirection::ToHost, "d2h_"}}) {
    for (const auto& [bytes, size] :
         {std::pair{std::size_t{16} << 10, "16k"}, std::pair{std::size_t{64} << 10, "64k"},
          std::pair{std::size_t{256} << 10, "256k"}, std::pair{std::size_t{1} << 20, "1m"},
          std::pair{std::size_t{4} << 20, "4m"}}) {
      KVBM_TRY(report.rows.emplace_back(),
               copy_row(*meter, shared.table, direction, bytes, std::string(prefix) + size));
    }
  }
  return report;
}

}  // namespace kvbm::bench
