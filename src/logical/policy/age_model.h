// Learns from past requests how likely a block is to be used again, by what is known of it and by
// how long ago it was used.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kvbm/types.h"
#include "logical/policy/ring_index.h"

namespace kvbm {

// What is known of a block: bits 0-1 its earlier uses (3 = three or more), bit 2 whether it was the
// last block of its request, bits 3-5 the caller's hint.
using UseClass = std::uint8_t;
inline constexpr std::size_t kUseClasses = 64;
inline constexpr UseClass kUsesMask = 3;
inline constexpr UseClass kLastOfRequest = 4;
inline constexpr unsigned kHintShift = 3;

// Ages in third-octaves: bucket 0 is under 1 s, bucket i >= 1 begins at 2^((i-1)/3) s, and the last
// one, from about 11.5 hours, has no end.
inline constexpr std::size_t kAgeBuckets = 48;
std::size_t age_bucket(std::int64_t age_ns) noexcept;
// Where a bucket begins, in seconds; bucket kAgeBuckets is where the last one ends for the purpose
// of its width.
double age_bucket_begin_s(std::size_t bucket) noexcept;

// What a life table says of one class: how many samples reached each age, and how many of those
// were used again at it.
struct LifeTable {
  std::array<double, kAgeBuckets> reached{};
  std::array<double, kAgeBuckets> reused{};
};
using HazardRow = std::array<double, kAgeBuckets>;
using IndexRow = std::array<float, kAgeBuckets>;

// The chance that a sample which reached a bucket is used in it, drawn towards `pooled` as if 20
// samples had shown that.
HazardRow shrunk_hazard(const LifeTable& table, const HazardRow& pooled) noexcept;
// The worth of keeping a block of each age: over the best horizon, the chance of a use divided by
// the expected seconds of keeping it until that use or the horizon.
IndexRow keep_index(const HazardRow& hazard) noexcept;

// Follows samples of blocks from one use to the next, evicted or not, the newest 40,000 of them. A
// block that was not used again yet counts as having reached its present age. Times are ns of any
// clock that does not go back. About 1.1 MB, allocated by the constructor. Not thread-safe.
class AgeModel {
 public:
  static constexpr std::size_t kSamples = 40'000;
  static constexpr std::uint64_t kFirstRebuild = 16;  // requests
  static constexpr std::uint64_t kRebuildEvery = 64;  // requests

  AgeModel();

  // Follows the block from now on. Ends what was followed of this hash. O(1).
  void follow(SequenceHash hash, UseClass use_class, std::int64_t now_ns) noexcept;
  // The block is used: ends its sample. Returns whether there was one. O(1).
  bool end(SequenceHash hash, std::int64_t now_ns) noexcept;
  // After the calls above for one request. O(1), and every 64 requests one rebuild().
  void on_request(std::int64_t now_ns) noexcept;

  // Whether there is an index: from the 16th request on.
  bool trained() const noexcept { return requests_ >= kFirstRebuild; }
  // Expected uses per second of keeping such a block. Requires: trained(). A table lookup.
  float index(UseClass use_class, std::int64_t age_ns) const noexcept {
    return table_[use_class][age_bucket(age_ns)];
  }

  // Makes the table from the samples as of now.
  void rebuild(std::int64_t now_ns) noexcept;

  // Aborts with a message if the counts contradict the samples. O(kSamples).
  void check_invariants() const;

 private:
  static constexpr std::uint8_t kOpen = 0x80;  // with the class, in state_

  void drop(std::uint32_t position) noexcept;
  void count_open(std::int64_t now_ns) noexcept;

  // The ring of samples; begin_ does not decrease from the oldest to the newest.
  std::vector<SequenceHash> hashes_;
  std::vector<std::int64_t> begin_;
  std::vector<std::uint8_t> state_;
  std::vector<std::uint8_t> bucket_;  // of the age at reuse, where it is not open
  RingIndex open_;
  std::uint32_t next_ = 0;
  std::uint32_t size_ = 0;
  std::uint64_t requests_ = 0;

  std::array<std::array<std::uint32_t, kAgeBuckets>, kUseClasses> reused_{};
  // Scratch of rebuild(): open samples by present age.
  std::array<std::array<std::uint32_t, kAgeBuckets>, kUseClasses> waiting_{};
  std::array<IndexRow, kUseClasses> table_{};
};

}  // namespace kvbm
