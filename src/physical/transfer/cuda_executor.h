// Runs transfers between a CUDA device and the host or files.
#pragma once

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "physical/transfer/cuda_worker.h"
#include "physical/transfer/transfer_queue.h"

namespace kvbm {

struct CudaExecutorOptions {
  std::size_t threads = 2;  // that sum, verify and do file I/O beside the device's copies
  // Empty: measured in create(), which takes some 0.1 s.
  std::optional<CudaCopyTable> table = {};
  // Copied at a time; bounds the memory of a thread: the ring for files and, on the device, the
  // place where small fragments are gathered, each for two groups.
  std::size_t group_bytes = std::size_t{8} << 20;
  // A device that does not answer for so long is given up; requests to it fail until it answers.
  std::chrono::nanoseconds patience = std::chrono::seconds(30);
};

// Transfers with device memory on one side; all others it hands to another executor. Onboarding
// transfers go before offloading ones. Copies to and from the device run side by side; those of one
// direction run one after the other, while the threads sum what has arrived.
//
// Errors of a block, besides those of copy_block(): Cuda with the driver's code; the block's target
// then holds anything. NotAccessible for copies from device to device.
class CudaExecutor final : public TransferExecutor {
 public:
  // Errors: Cuda; OperationFailed as of ThreadExecutor.
  static Result<std::unique_ptr<CudaExecutor>> create(std::shared_ptr<const cuda::Device> device,
                                                      const CudaExecutorOptions& options,
                                                      std::unique_ptr<TransferExecutor> others);
  // Finishes what was submitted, then joins.
  ~CudaExecutor() override;

  void submit(TransferRequest request, Done done) override;

  // What the choice of the way of copying rests on.
  const CudaCopyTable& table() const noexcept { return shared_.table; }

 private:
  CudaExecutor() = default;
  void work(CudaWorker& worker);
  static TransferResult execute(CudaWorker& worker, const TransferRequest& request);

  CudaShared shared_;
  std::unique_ptr<TransferExecutor> others_;
  std::vector<std::unique_ptr<CudaWorker>> workers_;
  TransferQueue queue_;
  std::vector<std::jthread> threads_;
};

}  // namespace kvbm
