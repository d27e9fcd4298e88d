#include "physical/transfer/cuda_flight.h"

#include <algorithm>
#include <bit>
#include <string>
#include <thread>

#include "base/mutex.h"

namespace kvbm {
namespace {

using cuda::CopyRange;

// Every run in the staging memory begins at a multiple, so that words of 16 bytes stay whole.
constexpr std::size_t kRunAlignment = 256;
constexpr std::size_t kLargestRange = cuda::CopyKernel::kLargestRange;
// A call that fails so often in a row fails because the device is broken.
constexpr int kAttempts = 3;

std::size_t align_run(std::size_t bytes) {
  return (bytes + kRunAlignment - 1) / kRunAlignment * kRunAlignment;
}

// Bytes that the staging memory needs at most, and lines that the table needs.
struct Needs {
  std::size_t staging_bytes = 0;
  std::size_t lines = 0;
};
Needs needs_of(std::span<const CopyRange> ranges) {
  Needs needs;
  for (const CopyRange& range : ranges) {
    needs.staging_bytes += align_run(range.bytes);
    needs.lines += (range.bytes + kLargestRange - 1) / kLargestRange;
  }
  return needs;
}

// Asks until the event is reached. Its errors are returned at the end only, if the device still
// answers: until then bytes may move.
Result<void> wait_for(const cuda::Event& event, std::chrono::steady_clock::time_point deadline) {
  constexpr int kWithoutRest = 200;
  constexpr std::chrono::microseconds kLongestPause{100};
  std::chrono::microseconds pause{1};
  Result<void> outcome;
  int failures = 0;
  for (int asked = 0;; ++asked) {
    Result<bool> reached = event.reached();
    if (reached && *reached) return outcome;
    failures = reached ? 0 : failures + 1;
    if (!reached) outcome = std::move(reached).error();
    if (failures == kAttempts) return outcome;
    if (asked < kWithoutRest) {
      std::this_thread::yield();
      continue;
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return Error{ErrorCode::Cuda, cuda::kNotReady, 0, 0, "the CUDA device does not answer"};
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, kLongestPause);
  }
}

Result<void> record(cuda::Event& event, void* stream) {
  Result<void> done;
  for (int i = 0; i < kAttempts; ++i) {
    done = event.record(stream);
    if (done) break;
  }
  return done;
}

}  // namespace

Result<std::shared_ptr<detail::Memory>> allocate_for_cuda(
    std::shared_ptr<const cuda::Device> device, std::size_t bytes) {
  KVBM_TRY(PinnedStorage storage, PinnedAllocator().allocate(bytes));
  // Copies from and to unregistered memory are right too, and slower.
  static_cast<void>(storage.memory()->register_with(std::move(device)).has_value());
  return storage.memory();
}

void add_copy(CudaDirection direction, CopyRange range, std::vector<CopyRange>& ranges) {
  const bool to_device = direction == CudaDirection::ToDevice;
  while (range.bytes > 0) {
    const unsigned long long bytes = std::min<unsigned long long>(
        range.bytes, cuda::until_next_piece(to_device ? range.source : range.target));
    ranges.push_back({range.source, range.target, bytes});
    range = {range.source + bytes, range.target + bytes, range.bytes - bytes};
  }
}

void keep_for_ever(std::shared_ptr<const void> memory) {
  static Mutex mutex;
  static auto* const kept = new std::vector<std::shared_ptr<const void>>;
  const MutexLock lock(mutex);
  kept->push_back(std::move(memory));
}

Result<std::unique_ptr<CudaFlight>> CudaFlight::create(std::shared_ptr<const cuda::Device> device,
                                                       const cuda::CopyKernel* kernel) {
  std::unique_ptr<CudaFlight> flight(new CudaFlight(std::move(device), kernel));
  KVBM_TRY(flight->ended_, cuda::Event::create(flight->device_));
  KVBM_TRY(flight->between_, cuda::Event::create(flight->device_));
  return flight;
}

Result<void> CudaFlight::begin(const Order& order, std::span<const CopyRange> ranges) {
  order_ = order;
  order_.way = prepare(order.way, ranges);
  recorded_ = false;
  under_way_ = true;
  KVBM_CHECK_OK(enqueue(order_, ranges));
  const bool ends_with_kernel =
      order_.way == CudaWay::Kernel ||
      (order_.way == CudaWay::Staged && order_.direction == CudaDirection::ToDevice);
  KVBM_CHECK_OK(ended_->record(ends_with_kernel ? order_.kernels : order_.copies));
  recorded_ = true;
  return {};
}

Result<void> CudaFlight::enqueue(const Order& order, std::span<const CopyRange> ranges) {
  const auto hold_back = [&](void* stream) -> Result<void> {
    if (!order.after_event) return {};
    return cuda::hold_back(*device_, stream, order.after_event);
  };
  switch (order.way) {
    case CudaWay::Engine:
      KVBM_CHECK_OK(hold_back(order.copies));
      return batch_.enqueue(*device_, order.copies, ranges);
    case CudaWay::Kernel:
      table_count_ = 0;
      for (const CopyRange& range : ranges) add_to_table(range);
      KVBM_CHECK_OK(hold_back(order.kernels));
      return launch(order.kernels);
    case CudaWay::Staged: break;
  }
  plan_staging(order.direction, ranges);
  if (order.direction == CudaDirection::ToHost) {
    KVBM_CHECK_OK(hold_back(order.kernels));
    KVBM_CHECK_OK(launch(order.kernels));
    KVBM_CHECK_OK(between_->record(order.kernels));
    KVBM_CHECK_OK(between_->hold_back(order.copies));
    return batch_.enqueue(*device_, order.copies, runs_);
  }
  // The copies touch the staging memory only, so they need not wait for the event.
  KVBM_CHECK_OK(batch_.enqueue(*device_, order.copies, runs_));
  KVBM_CHECK_OK(between_->record(order.copies));
  KVBM_CHECK_OK(between_->hold_back(order.kernels));
  KVBM_CHECK_OK(hold_back(order.kernels));
  return launch(order.kernels);
}

CudaWay CudaFlight::prepare(CudaWay wanted, std::span<const CopyRange> ranges) {
  if (wanted == CudaWay::Engine || !kernel_) return CudaWay::Engine;
  const Needs needs = needs_of(ranges);
  const std::size_t table_bytes = needs.lines * sizeof(CopyRange);
  if (!table_ || table_->bytes() < table_bytes) {
    table_ = nullptr;  // before the larger one is asked for
    auto table = allocate_for_cuda(device_, std::bit_ceil(table_bytes));
    if (!table || !(*table)->is_registered()) return CudaWay::Engine;
    table_ = std::move(*table);
  }
  if (wanted == CudaWay::Staged && (!staging_ || staging_->bytes() < needs.staging_bytes)) {
    staging_ = nullptr;
    auto staging = cuda::allocate(device_, std::bit_ceil(needs.staging_bytes));
    if (!staging) return CudaWay::Engine;
    staging_ = std::move(*staging);
  }
  return wanted;
}

void CudaFlight::plan_staging(CudaDirection direction, std::span<const CopyRange> ranges) {
  const bool to_device = direction == CudaDirection::ToDevice;
  runs_.clear();
  table_count_ = 0;
  unsigned long long at = staging_->address();
  unsigned long long host_end = 0;
  for (const CopyRange& range : ranges) {
    const unsigned long long host = to_device ? range.source : range.target;
    if (runs_.empty() || host != host_end || host % cuda::HostRegistration::kPieceBytes == 0) {
      at = staging_->address() + align_run(at - staging_->address());
      runs_.push_back(to_device ? CopyRange{host, at, 0} : CopyRange{at, host, 0});
    }
    runs_.back().bytes += range.bytes;
    add_to_table(to_device ? CopyRange{at, range.target, range.bytes}
                           : CopyRange{range.source, at, range.bytes});
    at += range.bytes;
    host_end = host + range.bytes;
  }
}

void CudaFlight::add_to_table(CopyRange range) {
  auto* const table = reinterpret_cast<CopyRange*>(table_->data());
  while (range.bytes > 0) {
    const unsigned long long bytes = std::min<unsigned long long>(range.bytes, kLargestRange);
    table[table_count_++] = {range.source, range.target, bytes};
    range = {range.source + bytes, range.target + bytes, range.bytes - bytes};
  }
}

Result<void> CudaFlight::launch(void* stream) {
  return kernel_->launch(stream, table_->address(), table_count_);
}

Result<void> CudaFlight::end(std::chrono::nanoseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  under_way_ = false;
  if (!recorded_) {
    KVBM_CHECK_OK(record(*ended_, order_.copies));
    KVBM_CHECK_OK(record(*between_, order_.kernels));
    recorded_ = true;
  }
  // The end alone would do, unless begin() failed; then it stands for one of the streams.
  Result<void> outcome = wait_for(*between_, deadline);
  if (Result<void> ended = wait_for(*ended_, deadline); !ended) outcome = std::move(ended);
  under_way_ = !outcome && outcome.error().native == cuda::kNotReady;
  return outcome;
}

}  // namespace kvbm
