#include "benchmarks/bench.h"
#include "benchmarks/copy_bench.h"
#include "benchmarks/cuda_bench.h"
#include "benchmarks/disk_bench.h"
#include "benchmarks/hash_bench.h"
#include "benchmarks/leader_bench.h"
#include "benchmarks/memory_bench.h"
#include "benchmarks/nixl_bench.h"
#include "benchmarks/pool_bench.h"
#include "benchmarks/remote_bench.h"
#include "benchmarks/store_bench.h"
#include "benchmarks/tiers_bench.h"

namespace kvbm::bench {

std::span<const Bench> benches() {
  static constexpr Bench kBenches[] = {
      {"copy", "Gathering blocks in memory, with and without checksums, beside plain loops",
       copy_bench},
      {"cuda", "Copies between the host and a CUDA device; skipped without one", cuda_bench},
      {"disk", "A disk tier that survives: blocks through its store, puts, resets and restarts",
       store_bench},
      {"disk-raw", "Blocks between host memory and a file, beside bare I/O", disk_bench},
      {"hash", "Names of token blocks, beside the bare hash functions", hash_bench},
      {"leader", "Lookups of a leader over 1, 2 and 4 ranks, beside bare sockets", leader_bench},
      {"memory", "Pages of a host tier: how soon the first come, and how fast all", memory_bench},
      {"nixl", "Blocks through NIXL, beside its bare functions", nixl_bench},
      {"pool", "Bookkeeping of a pool of a million blocks, per block", pool_bench},
      {"remote", "Blocks of another process: out of its memory and over TCP, beside bare calls",
       remote_bench},
      {"tiers", "Whole managers: blocks up and down the tiers, beside bare copies and bare I/O",
       tiers_bench},
  };
  return kBenches;
}

}  // namespace kvbm::bench
