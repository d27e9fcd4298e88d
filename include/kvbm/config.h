// What a KvBlockManager is made from.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>

#include "kvbm/layout.h"
#include "kvbm/storage.h"
#include "kvbm/types.h"

namespace kvbm {

// Shape of the model's KV cache; limits as in layout.h.
struct KvManagerModelConfig {
  std::size_t num_layers = DEFAULT_NUM_LAYERS;
  std::size_t outer_dim = DEFAULT_OUTER_DIM;
  std::size_t page_size = DEFAULT_PAGE_SIZE;  // tokens per block
  std::size_t inner_dim = DEFAULT_INNER_DIM;  // elements per token
  DType dtype = DType::FP16;
};

// One tier. Blocks outside the device tier are always FullyContiguous.
template <Storage S>
struct KvManagerLayoutConfig {
  std::size_t num_blocks;                          // required, 1 .. 2^32 - 2
  std::shared_ptr<StorageAllocator<S>> allocator;  // required
  LayoutType layout_type = LayoutType::FullyContiguous;
};

struct KvManagerRuntimeConfig {
  WorkerID worker_id = 0;
  // Threads that move bytes, 1 .. 64. More than the cores helps only slow disks.
  std::size_t transfer_threads = 4;
  // Blocks that may wait for offloading on each path; beyond that the longest waiting are dropped.
  std::size_t offload_queue_blocks = 65536;
};

struct KvBlockManagerConfig {
  KvManagerRuntimeConfig runtime;
  KvManagerModelConfig model;
  std::optional<KvManagerLayoutConfig<DeviceStorage>> device_layout;  // required
  std::optional<KvManagerLayoutConfig<PinnedStorage>> host_layout;
  std::optional<KvManagerLayoutConfig<DiskStorage>> disk_layout;  // needs a host tier
};

}  // namespace kvbm
