// The copy kernel: each group of 32 threads takes ranges in turn.
#include "platform/cuda/copy_range.h"

extern "C" __global__ void kvbm_copy_ranges(const kvbm::cuda::CopyRange* ranges, unsigned count) {
  constexpr unsigned kLanes = kvbm::cuda::kLanes;
  const unsigned groups_per_cta = blockDim.x / kLanes;
  const unsigned first = blockIdx.x * groups_per_cta + threadIdx.x / kLanes;
  for (unsigned i = first; i < count; i += gridDim.x * groups_per_cta) {
    kvbm::cuda::copy_range(ranges[i], threadIdx.x % kLanes);
  }
}
