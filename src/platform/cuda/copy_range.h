// What the copy kernel does, as a function of one thread, so that tests run it without a device.
#pragma once

#ifdef __CUDACC__
#define KVBM_ON_DEVICE __host__ __device__ __forceinline__
#define KVBM_UNROLL _Pragma("unroll")
#else
#define KVBM_ON_DEVICE inline
#define KVBM_UNROLL
#endif

namespace kvbm::cuda {

// Bytes to be copied, by their addresses. Source and target do not overlap.
struct CopyRange {
  unsigned long long source;
  unsigned long long target;
  unsigned long long bytes;
};

// A group of so many threads copies one range after the other.
inline constexpr unsigned kLanes = 32;

// Loads that one thread has under way at a time: over PCIe one takes more than a microsecond.
inline constexpr unsigned kLoadsInFlight = 4;

struct alignas(16) Words16 {
  unsigned words[4];
};

// Copies every kLanes-th of `count` words, from `lane` on.
template <class Word>
KVBM_ON_DEVICE void copy_words(unsigned long long target_address, unsigned long long source_address,
                               unsigned long long count, unsigned lane) {
  Word* const target = reinterpret_cast<Word*>(target_address);
  const Word* const source = reinterpret_cast<const Word*>(source_address);
  unsigned long long at = lane;
  for (; at + (kLoadsInFlight - 1) * kLanes < count; at += kLoadsInFlight * kLanes) {
    Word loaded[kLoadsInFlight];
    KVBM_UNROLL for (unsigned i = 0; i < kLoadsInFlight; ++i) loaded[i] = source[at + i * kLanes];
    KVBM_UNROLL for (unsigned i = 0; i < kLoadsInFlight; ++i) target[at + i * kLanes] = loaded[i];
  }
  for (; at < count; at += kLanes) target[at] = source[at];
}

// The part of one lane in copying a range: words of 16 bytes where source and target lie alike
// to their alignment, words of 4 where they lie alike to that, else bytes.
KVBM_ON_DEVICE void copy_range(CopyRange range, unsigned lane) {
  const unsigned long long apart = range.source ^ range.target;
  const unsigned long long word = apart % 16 == 0 ? 16 : apart % 4 == 0 ? 4 : 1;
  unsigned long long head = (0 - range.target) % word;
  if (head > range.bytes) head = range.bytes;
  const unsigned long long words = (range.bytes - head) / word;
  const unsigned long long tail = head + words * word;
  copy_words<unsigned char>(range.target, range.source, head, lane);
  const unsigned long long target = range.target + head;
  const unsigned long long source = range.source + head;
  if (word == 16) {
    copy_words<Words16>(target, source, words, lane);
  } else if (word == 4) {
    copy_words<unsigned>(target, source, words, lane);
  } else {
    copy_words<unsigned char>(target, source, words, lane);
  }
  copy_words<unsigned char>(range.target + tail, range.source + tail, range.bytes - tail, lane);
}

}  // namespace kvbm::cuda
