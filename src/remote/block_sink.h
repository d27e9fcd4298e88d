// Where the bytes of a block of another process come together.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "kvbm/result.h"
#include "kvbm/types.h"
#include "physical/copy/copy.h"
#include "physical/layout/layout.h"

namespace kvbm::remote {

// Memory that pieces of blocks pass through on their way. A piece is written here by the kernel and
// goes on, past the caches and summed on the way, while it is still in the cache of the core: so
// summing costs no memory access. For one thread at a time; each thread that moves blocks keeps
// one.
class Staging {
 public:
  // A quarter of what a core of a server has of cache for its own. Measured: a half of it costs 2
  // %, an eighth 7 %.
  static constexpr std::size_t kBytes = std::size_t{512} << 10;

  Staging();
  std::span<std::byte> bytes() noexcept { return {bytes_.get(), kBytes}; }

 private:
  struct Free {
    void operator()(std::byte* bytes) const noexcept;
  };
  std::unique_ptr<std::byte[], Free> bytes_;
};

// Takes the bytes of one block in the order of its content, puts each where it belongs and sums
// them. A block that is not finished well is zeroed: wrong bytes must not stay around. The caller
// holds the block. Not thread-safe.
class BlockSink {
 public:
  // Requires: memory that the CPU can address, a valid block, and a layout that outlives this.
  BlockSink(const Layout& target, BlockId block) noexcept;
  // Zeroes the target unless finish() has succeeded or no byte was added.
  ~BlockSink();
  BlockSink(const BlockSink&) = delete;
  BlockSink& operator=(const BlockSink&) = delete;

  // Bytes that have not been added yet.
  std::size_t left() const noexcept { return left_; }
  // The next bytes. Requires: no more than left().
  void add(std::span<const std::byte> bytes) noexcept;
  // Returns the payload sum. Errors: ChecksumMismatch if it is not the expected one. Requires:
  // left() == 0, and that it was not called before.
  Result<std::uint64_t> finish(std::uint64_t expected_sum);

 private:
  // Both put the first of these bytes where they belong and return how many those are: whole
  // regions of one run each, several at a time; or a part of the fragment at hand.
  std::size_t add_regions(std::span<const std::byte> bytes) noexcept;
  std::size_t add_part(std::span<const std::byte> bytes) noexcept;

  const Layout& target_;
  const BlockId block_;
  const Store store_;
  std::size_t left_;
  std::size_t region_ = 0;                // at hand
  std::size_t fragment_ = 0;              // of the region
  std::size_t in_fragment_ = 0;           // bytes of it that came
  std::optional<SummedCopy> region_sum_;  // of a region that came in part
  std::array<std::uint64_t, kMaxRegionsPerBlock> sums_;
  bool is_good_ = false;
};

}  // namespace kvbm::remote
