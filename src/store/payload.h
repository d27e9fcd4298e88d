// The bytes of blocks as a store keeps them, summed as they come.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "base/xxh3.h"
#include "kvbm/result.h"
#include "platform/os/file.h"
#include "store/record.h"
#include "store/superblock.h"

namespace kvbm::store {

// The payload sum of a block whose bytes come in pieces: XXH3-64 over the XXH3-64 of each region.
class PayloadSum {
 public:
  // `region_bytes` must outlive this.
  explicit PayloadSum(std::span<const std::uint32_t> region_bytes) : region_bytes_(region_bytes) {}
  // What is added beyond the last region does not count: it is padding.
  void add(std::span<const std::byte> bytes);
  // Requires: all bytes of the block were added.
  std::uint64_t finish() const noexcept { return xxh3(sums_.data(), sums_.size() * 8); }

 private:
  std::span<const std::uint32_t> region_bytes_;
  std::vector<std::uint64_t> sums_;  // of the regions that are complete
  std::uint32_t added_ = 0;          // bytes of the next one, which `state_` has
  XXH3_state_t state_;
};

// Whether a payload with this sum is what the record says.
inline bool verifies(std::uint64_t payload_sum, const SlotRecord& record, Slot slot,
                     const StoreShape& shape) noexcept {
  return payload_sum == (record.sealed_sum ^ seal(record, slot, shape.layout_digest));
}

// Reads blocks, a few MiB at a time. Not thread-safe. The file and the shape must outlive it.
class PayloadReader {
 public:
  PayloadReader(File& blocks, const StoreShape& shape);

  // Calls sink(piece) for the pieces of a block, first to last, and returns its payload sum.
  // Errors: those of File; some pieces may have been given then.
  template <class Sink>
  Result<std::uint64_t> read(Slot slot, Sink sink);
  Result<std::uint64_t> sum(Slot slot) {
    return read(slot, [](std::span<const std::byte>) {});
  }

 private:
  static constexpr std::uint64_t kPieceBytes = 4 << 20;
  struct Free {
    void operator()(std::byte* memory) const noexcept { std::free(memory); }
  };

  File& blocks_;
  const StoreShape& shape_;
  const std::uint64_t block_bytes_;
  const std::uint64_t read_bytes_;   // block_bytes_ in whole units of the file's I/O
  const std::uint64_t piece_bytes_;  // likewise whole
  std::unique_ptr<std::byte, Free> piece_;
};

template <class Sink>
Result<std::uint64_t> PayloadReader::read(Slot slot, Sink sink) {
  PayloadSum sum(shape_.region_bytes);
  const std::uint64_t begin = slot * shape_.extent_bytes();
  for (std::uint64_t at = 0; at < read_bytes_; at += piece_bytes_) {
    const std::span bytes(piece_.get(), std::min(piece_bytes_, read_bytes_ - at));
    KVBM_CHECK_OK(blocks_.read(bytes, begin + at));
    const auto piece = bytes.first(std::min<std::uint64_t>(bytes.size(), block_bytes_ - at));
    sum.add(piece);
    sink(std::span<const std::byte>(piece));
  }
  return sum.finish();
}

}  // namespace kvbm::store
