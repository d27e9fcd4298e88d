// Big arrays of plain data: zeroed, never resized, on huge pages where the system gives them.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

namespace kvbm {

// `count` elements whose bytes are all zero. Scattered access to millions of small records costs
// mostly address translation, and huge pages save that. Throws std::bad_alloc.
template <class T>
class LargeArray {
  static_assert(std::is_trivially_destructible_v<T>);

 public:
  // Arrays that are used together get different `color`s: at equal offsets from huge pages their
  // elements would fall on the same cache sets.
  explicit LargeArray(std::size_t count, std::size_t color = 0) : count_(count) {
    constexpr std::size_t kHugePage = std::size_t{2} << 20;
    constexpr std::size_t kCacheLine = 64;
    const std::size_t skip = color * 5 * kCacheLine;
    const bool huge = bytes() >= kHugePage;
    if (posix_memalign(&memory_, huge ? kHugePage : kCacheLine, bytes() + skip + kCacheLine)) {
      throw std::bad_alloc();
    }
    if (huge) madvise(memory_, bytes() + skip, MADV_HUGEPAGE);  // a wish; small pages serve too
    std::memset(memory_, 0, bytes() + skip);
    data_ = reinterpret_cast<T*>(static_cast<std::byte*>(memory_) + skip);
  }
  ~LargeArray() { std::free(memory_); }
  LargeArray(const LargeArray&) = delete;
  LargeArray& operator=(const LargeArray&) = delete;

  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }
  std::size_t size() const noexcept { return count_; }
  std::size_t bytes() const noexcept { return count_ * sizeof(T); }

 private:
  std::size_t count_;
  void* memory_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace kvbm
