// Copies in memory at the memory's speed, and the checksums that are taken on the way.
//
// Thread-safety: free functions are thread-safe; an object is for one thread at a time.
// All targets must not overlap any source of the same call. When a call that copies returns (of
// SummedCopy: finish()), what it wrote may be handed to other threads like any other write.
// Every function takes the kernel it runs on, which is the fastest of the CPU unless a test or a
// benchmark names another.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "physical/copy/kernel.h"

namespace kvbm {

// Where written bytes go. Cached: into the CPU's caches, for targets that are read soon. Streaming:
// past them, which spares the memory from reading each target first, at about twice the speed of
// Cached for targets that are not in the caches anyway. Auto: Streaming from kStreamingBytes on.
enum class Store : std::uint8_t { Auto, Cached, Streaming };

// Of one call, all its runs together: half of what a core has of cache for its own.
inline constexpr std::size_t kStreamingBytes = std::size_t{256} << 10;

struct CopyRun {
  std::byte* target = nullptr;
  const std::byte* source = nullptr;
  std::size_t bytes = 0;
};

// The kernels that this CPU can run, fastest first; the last one is portable code.
std::span<const CopyKernel* const> copy_kernels() noexcept;
inline const CopyKernel& best_copy_kernel() noexcept { return *copy_kernels().front(); }

// Any size and alignment; fastest for targets at multiples of 64.
void copy_bytes(std::byte* target, const std::byte* source, std::size_t bytes,
                Store store = Store::Auto, const CopyKernel& kernel = best_copy_kernel()) noexcept;

// Copies many runs, several at a time, which hides how long the memory takes to answer: up to 1.5
// times as fast as one by one where runs are short. The order is not defined.
void copy_runs(std::span<const CopyRun> runs, Store store = Store::Auto,
               const CopyKernel& kernel = best_copy_kernel()) noexcept;

// The XXH3-64 of the bytes, as XXH3_64bits() gives it.
std::uint64_t sum_bytes(const std::byte* source, std::size_t bytes,
                        const CopyKernel& kernel = best_copy_kernel()) noexcept;

// copy_bytes() and the sum of the bytes.
std::uint64_t copy_and_sum(std::byte* target, const std::byte* source, std::size_t bytes,
                           Store store = Store::Auto,
                           const CopyKernel& kernel = best_copy_kernel()) noexcept;

// copy_runs() and the sum of each run, sums[i] that of runs[i]. Fastest where neighbours in the
// list have one size. Requires: as many sums as runs.
void copy_and_sum_runs(std::span<const CopyRun> runs, std::span<std::uint64_t> sums,
                       Store store = Store::Auto,
                       const CopyKernel& kernel = best_copy_kernel()) noexcept;

// The same without copying: targets are not looked at.
void sum_runs(std::span<const CopyRun> runs, std::span<std::uint64_t> sums,
              const CopyKernel& kernel = best_copy_kernel()) noexcept;

// A sum over bytes that come in parts, and its copying. The common part of the two classes below.
class StreamSum {
 public:
  StreamSum(std::size_t total_bytes, Write write, const CopyKernel& kernel) noexcept;

  // Ignores `target` where it writes nothing.
  void add(std::byte* target, const std::byte* source, std::size_t bytes) noexcept;
  // Does not fence. Requires: exactly total_bytes were added.
  std::uint64_t finish() noexcept;
  // Of each run, several at a time. Does not fence. Requires: as many sums as runs.
  static void add_runs(std::span<const CopyRun> runs, std::span<std::uint64_t> sums, Write write,
                       const CopyKernel& kernel) noexcept;

 private:
  static void add_alike(std::span<StreamSum> streams, std::span<const CopyRun> runs) noexcept;

  bool is_short() const noexcept;
  Write write_to(const std::byte* target) const noexcept;
  void copy_odd(std::byte* target, const std::byte* source, std::size_t bytes) noexcept;
  void add_stripes(std::byte* target, const std::byte* source, std::size_t stripes) noexcept;
  void add_part_of_block(std::byte* target, const std::byte* source, std::size_t stripes) noexcept;
  void add_blocks(std::byte* target, const std::byte* source, std::size_t blocks) noexcept;

  const CopyKernel* kernel_;
  std::size_t total_bytes_;
  std::size_t stripes_left_;         // to accumulate; the last bytes of a stream are mixed in apart
  std::size_t stripe_in_block_ = 0;  // of the next one
  std::size_t held_bytes_ = 0;       // that wait for the rest of their stripe
  Accumulators sums_;
  // Of a short stream all bytes; else the stripe that was accumulated last, then the held bytes.
  std::array<std::byte, 240> bytes_;
  Write write_;
};

// Sums runs that together are one stream of bytes, in order.
class RunningSum {
 public:
  explicit RunningSum(std::size_t total_bytes,
                      const CopyKernel& kernel = best_copy_kernel()) noexcept
      : stream_(total_bytes, Write::Nothing, kernel) {}

  void add(const std::byte* source, std::size_t bytes) noexcept {
    stream_.add(nullptr, source, bytes);
  }
  // The XXH3-64 of all. Requires: exactly total_bytes were added.
  std::uint64_t finish() noexcept { return stream_.finish(); }

 private:
  StreamSum stream_;
};

// The same for runs that are copied. Any size and alignment; fastest for runs of whole KiB whose
// targets are at multiples of 64.
class SummedCopy {
 public:
  explicit SummedCopy(std::size_t total_bytes, Store store = Store::Auto,
                      const CopyKernel& kernel = best_copy_kernel()) noexcept;

  void add(std::byte* target, const std::byte* source, std::size_t bytes) noexcept {
    stream_.add(target, source, bytes);
  }
  // The XXH3-64 of all. Requires: exactly total_bytes were added.
  std::uint64_t finish() noexcept;

 private:
  StreamSum stream_;
};

}  // namespace kvbm
