// Counts what a test program allocates. Include it in one file of the program only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace kvbm {
inline std::atomic<std::size_t> allocations{0};
}  // namespace kvbm

// Not inlined, or the compiler takes malloc() and delete, or new and free(), for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  kvbm::allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
