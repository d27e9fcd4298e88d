#include "physical/transfer/cuda_executor.h"

#include <system_error>
#include <utility>

#include "physical/transfer/cuda_measure.h"

namespace kvbm {

Result<std::unique_ptr<CudaExecutor>> CudaExecutor::create(
    std::shared_ptr<const cuda::Device> device, const CudaExecutorOptions& options,
    std::unique_ptr<TransferExecutor> others) {
  std::unique_ptr<CudaExecutor> executor(new CudaExecutor);
  CudaShared& shared = executor->shared_;
  KVBM_TRY(shared, CudaShared::create(std::move(device)));
  shared.group_bytes = options.group_bytes;
  shared.patience = options.patience;
  shared.table = options.table ? *options.table : measure_cuda_copies(shared);
  executor->others_ = std::move(others);
  for (std::size_t i = 0; i < options.threads; ++i) {
    KVBM_TRY(auto worker, CudaWorker::create(shared));
    executor->workers_.push_back(std::move(worker));
  }
  for (const auto& worker : executor->workers_) {
    try {
      executor->threads_.emplace_back(
          [raw = executor.get(), &worker = *worker] { raw->work(worker); });
    } catch (const std::system_error& error) {
      return Error{ErrorCode::OperationFailed, error.code().value(), options.threads,
                   executor->threads_.size(), "the system gives no more threads"};
    }
  }
  return executor;
}

CudaExecutor::~CudaExecutor() {
  queue_.stop();
  threads_.clear();  // joins
}

void CudaExecutor::submit(TransferRequest request, Done done) {
  using Side = CopyPlan::Side;
  const CopyPlan& plan = *request.plan;
  const bool on_device = plan.source_side() == Side::Device || plan.target_side() == Side::Device;
  if (!on_device || request.step == TransferStep::Verify) {  // host memory is the CPU's to sum
    return others_->submit(std::move(request), std::move(done));
  }
  queue_.push(std::move(request), std::move(done));
}

TransferResult CudaExecutor::execute(CudaWorker& worker, const TransferRequest& request) {
  TransferResult result;
  result.blocks.reserve(request.blocks.size());
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<Result<std::uint64_t>> sums = worker.run(request);
  result.busy = std::chrono::steady_clock::now() - begin;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (sums[i]) {
      result.blocks.push_back(token(*request.plan, request.blocks[i].target, *sums[i]));
    } else {
      result.blocks.push_back(Error(sums[i].error()));
    }
  }
  return result;
}

void CudaExecutor::work(CudaWorker& worker) {
  while (auto job = queue_.wait_and_pop()) job->done(execute(worker, job->request));
}

}  // namespace kvbm
