#include "physical/copy/copy.h"

#include <algorithm>
#include <cstring>

#include "physical/copy/strands.h"

namespace kvbm {
namespace {

struct Kernels {
  std::array<const CopyKernel*, 4> list;
  std::size_t count = 0;

  Kernels() noexcept {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) list[count++] = &kAvx512Kernel;
    if (__builtin_cpu_supports("avx2")) list[count++] = &kAvx2Kernel;
    list[count++] = &kSse2Kernel;
#endif
    list[count++] = &kPortableKernel;
  }
};

// What lies before the first whole line of a target, and behind its last one, goes through the
// cache.
CopyRun copy_ends(const CopyRun& run) noexcept {
  const std::size_t head = std::min(bytes_to_line(run.target), run.bytes);
  const std::size_t body = (run.bytes - head) / kStripeBytes * kStripeBytes;
  const std::size_t tail = run.bytes - head - body;
  if (head > 0) std::memcpy(run.target, run.source, head);
  if (tail > 0) std::memcpy(run.target + head + body, run.source + head + body, tail);
  return {run.target + head, run.source + head, body};
}

// Gives the bodies of runs one after the other.
class Bodies {
 public:
  // `parts` > 1: long runs are cut into so many.
  Bodies(std::span<const CopyRun> runs, std::size_t parts) noexcept : runs_(runs), parts_(parts) {}

  // The next one that is not empty, or an empty one at the end.
  CopyRun next() noexcept {
    while (rest_.bytes == 0) {
      if (runs_.empty()) return {};
      rest_ = copy_ends(runs_.front());
      runs_ = runs_.subspan(1);
      part_bytes_ = rest_.bytes;
      if (parts_ > 1 && rest_.bytes >= kLongRunBytes) {
        part_bytes_ = rest_.bytes / parts_ / kTurnBytes * kTurnBytes;
      }
    }
    // What does not divide goes with the last part.
    const std::size_t bytes = rest_.bytes < 2 * part_bytes_ ? rest_.bytes : part_bytes_;
    const CopyRun body{rest_.target, rest_.source, bytes};
    rest_ = {rest_.target + bytes, rest_.source + bytes, rest_.bytes - bytes};
    return body;
  }

 private:
  std::span<const CopyRun> runs_;
  std::size_t parts_;
  CopyRun rest_;
  std::size_t part_bytes_ = 0;
};

void stream_runs(std::span<const CopyRun> runs, const CopyKernel& kernel) noexcept {
  Bodies bodies(runs, runs.size() < kStrands ? kStrands : 1);
  std::array<CopyRun, kStrands> strands;
  std::size_t count = 0;
  while (count < kStrands && (strands[count] = bodies.next()).bytes > 0) ++count;
  while (count > 0) {
    std::size_t bytes = strands[0].bytes;
    for (std::size_t i = 1; i < count; ++i) bytes = std::min(bytes, strands[i].bytes);
    for (std::size_t at = 0; at < bytes; at += kTurnBytes) {
      const std::size_t turn = std::min(kTurnBytes, bytes - at);
      for (std::size_t i = 0; i < count; ++i) {
        kernel.stream(strands[i].target + at, strands[i].source + at, turn);
      }
    }
    for (std::size_t i = 0; i < count;) {
      CopyRun& strand = strands[i];
      strand = {strand.target + bytes, strand.source + bytes, strand.bytes - bytes};
      if (strand.bytes == 0) strand = bodies.next();
      if (strand.bytes > 0) {
        ++i;
      } else {
        std::copy(strands.begin() + i + 1, strands.begin() + count, strands.begin() + i);
        --count;
      }
    }
  }
  fence_streams();
}

}  // namespace

std::span<const CopyKernel* const> copy_kernels() noexcept {
  static const Kernels kernels;
  return std::span(kernels.list).first(kernels.count);
}

Write write_for(Store store, std::size_t bytes, const CopyKernel& kernel) noexcept {
  if (store == Store::Auto) {
    store = bytes >= kStreamingBytes ? Store::Streaming : Store::Cached;
  }
  return store == Store::Streaming && kernel.stream ? Write::Streaming : Write::Cached;
}

std::size_t bytes_of(std::span<const CopyRun> runs) noexcept {
  std::size_t bytes = 0;
  for (const CopyRun& run : runs) bytes += run.bytes;
  return bytes;
}

void copy_bytes(std::byte* target, const std::byte* source, std::size_t bytes, Store store,
                const CopyKernel& kernel) noexcept {
  const CopyRun run{target, source, bytes};
  copy_runs({&run, 1}, store, kernel);
}

void copy_runs(std::span<const CopyRun> runs, Store store, const CopyKernel& kernel) noexcept {
  if (write_for(store, bytes_of(runs), kernel) == Write::Streaming) {
    stream_runs(runs, kernel);
    return;
  }
  for (const CopyRun& run : runs) {
    if (run.bytes > 0) std::memcpy(run.target, run.source, run.bytes);
  }
}

}  // namespace kvbm
