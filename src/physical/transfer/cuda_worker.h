// Moves the blocks of one request at a time between a CUDA device and the host or a file.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <vector>

#include "physical/transfer/cuda_flight.h"
#include "physical/transfer/transfer.h"

namespace kvbm {

// What the workers of a device share. Its members are thread-safe, or are not changed any more.
struct CudaLane {
  std::unique_ptr<cuda::Stream> copies;
  std::unique_ptr<cuda::Stream> kernels;
};
struct CudaShared {
  // Streams and the kernel, without which it does where the device cannot run it. Errors: Cuda.
  static Result<CudaShared> create(std::shared_ptr<const cuda::Device> device);

  std::shared_ptr<const cuda::Device> device;
  std::unique_ptr<cuda::CopyKernel> kernel;  // null where there is none
  std::array<CudaLane, 2> lanes;             // by CudaDirection
  CudaCopyTable table;
  std::size_t group_bytes = 0;           // a group of blocks has so many, or is one block
  std::chrono::nanoseconds patience{0};  // after so long without an answer the device is given up

  const CudaLane& lane(CudaDirection direction) const noexcept {
    return lanes[static_cast<std::size_t>(direction)];
  }
};

// One thread's part of an executor. A request's blocks go in groups: while one group is copied, the
// next one is read from its file or verified, or the last one is summed or written to its file.
// Not thread-safe.
class CudaWorker {
 public:
  // `shared` outlives it. Errors: Cuda.
  static Result<std::unique_ptr<CudaWorker>> create(const CudaShared& shared);
  // Waits for a device that did not answer once more; memory that it may still touch then is never
  // given back.
  ~CudaWorker();

  // The payload sums of the request's blocks, one per block, in order. Blocks, until it returns.
  // Sums are verified in host memory: before a copy to the device, after a copy to the host, where
  // a wrong block is zeroed.
  std::vector<Result<std::uint64_t>> run(const TransferRequest& request);

 private:
  // The way of a request: between the device and host memory, which for a file is the ring.
  struct Route {
    CudaDirection direction = CudaDirection::ToDevice;
    CudaWay way = CudaWay::Engine;
    std::shared_ptr<const CopyPlan> device_plan;
    std::shared_ptr<const CopyPlan> file_plan;  // null where there is no file
    std::size_t blocks_per_group = 1;
  };
  // Neighbours in a request, whose copies are under way together.
  struct Group {
    std::unique_ptr<CudaFlight> flight;
    std::size_t first = 0;
    std::vector<Result<std::uint64_t>> sums;  // one per block
    bool flying = false;
  };

  explicit CudaWorker(const CudaShared& shared) : shared_(shared) {}

  Result<Route> route_of(const std::shared_ptr<const CopyPlan>& plan);
  // Leads the route through the ring.
  Result<void> add_ring(Route& route, const std::shared_ptr<const CopyPlan>& plan);
  // The copy that the device makes for block i of a request, and the one that the CPU makes between
  // the ring and the file.
  static BlockCopy device_copy(const Route& route, const TransferRequest& request, std::size_t i);
  static BlockCopy file_copy(const Route& route, const TransferRequest& request, std::size_t i);

  void begin(const Route& route, const TransferRequest& request, Group& group, std::size_t count);
  // What the CPU does for block i, on either side of the device's copy. Returns the block's sum.
  static Result<std::uint64_t> before_copy(const Route& route, const TransferRequest& request,
                                           std::size_t i);
  static Result<std::uint64_t> after_copy(const Route& route, const TransferRequest& request,
                                          std::size_t i, std::uint64_t sum_before);
  // Between the ring and the file; `copy` is the file_copy() of block i.
  static Result<std::uint64_t> move_file(const Route& route, const TransferRequest& request,
                                         const BlockCopy& copy, std::size_t i);
  void end(const Route& route, const TransferRequest& request, Group& group);
  void add_ranges(const Route& route, const BlockCopy& copy);
  Result<void> recover(std::chrono::nanoseconds patience);

  const CudaShared& shared_;
  std::array<Group, 2> groups_;
  std::shared_ptr<detail::Memory> ring_;
  std::vector<cuda::CopyRange> ranges_;
  // Of the request that the device did not answer. Its memory stays until it does.
  std::shared_ptr<const CopyPlan> unanswered_;
};

}  // namespace kvbm
