// Big arrays of plain data: zeroed, never resized, on huge pages where the system gives them.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

namespace kvbm {

// `count` elements whose bytes are all zero. Scattered access to millions of small records costs
// mostly address translation, and huge pages save that. A big array takes no time to make: the
// system gives each page when it is first touched. Throws std::bad_alloc.
template <class T>
class LargeArray {
  static_assert(std::is_trivially_destructible_v<T>);

 public:
  // Arrays that are used together get different `color`s: at equal offsets from huge pages their
  // elements would fall on the same cache sets.
  explicit LargeArray(std::size_t count, std::size_t color = 0)
      : count_(count), skip_(color * 5 * kCacheLine) {
    std::byte* begin = nullptr;
    if (is_mapped()) {
      void* memory = ::mmap(nullptr, mapped_bytes(), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) throw std::bad_alloc();
      memory_ = memory;
      const auto address = reinterpret_cast<std::uintptr_t>(memory);
      begin = static_cast<std::byte*>(memory) + (-address & (kHugePage - 1));
      ::madvise(begin, bytes() + skip_, MADV_HUGEPAGE);  // a wish; small pages serve too
    } else {
      if (posix_memalign(&memory_, kCacheLine, bytes() + skip_ + kCacheLine)) {
        throw std::bad_alloc();
      }
      std::memset(memory_, 0, bytes() + skip_);
      begin = static_cast<std::byte*>(memory_);
    }
    data_ = reinterpret_cast<T*>(begin + skip_);
  }
  ~LargeArray() {
    if (is_mapped()) {
      ::munmap(memory_, mapped_bytes());
    } else {
      std::free(memory_);
    }
  }
  LargeArray(const LargeArray&) = delete;
  LargeArray& operator=(const LargeArray&) = delete;

  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }
  std::size_t size() const noexcept { return count_; }
  std::size_t bytes() const noexcept { return count_ * sizeof(T); }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
  static constexpr std::size_t kCacheLine = 64;

  bool is_mapped() const noexcept { return bytes() >= kHugePage; }
  std::size_t mapped_bytes() const noexcept { return bytes() + skip_ + kHugePage; }

  std::size_t count_;
  std::size_t skip_;
  void* memory_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace kvbm
