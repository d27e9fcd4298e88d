// Arithmetic on byte sizes that refuses to overflow.
#pragma once

#include <bit>
#include <cstddef>
#include <string>

#include "kvbm/result.h"

namespace kvbm {

// Errors: InvalidConfig naming `what`, requested / available = the two factors.
inline Result<std::size_t> checked_mul(std::size_t a, std::size_t b, const char* what) {
  std::size_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    return Error{ErrorCode::InvalidConfig, 0, a, b,
                 std::string(what) + " overflows 64 bits; the product must stay below 2^64"};
  }
  return product;
}

inline Result<std::size_t> checked_add(std::size_t a, std::size_t b, const char* what) {
  std::size_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) {
    return Error{ErrorCode::InvalidConfig, 0, a, b,
                 std::string(what) + " overflows 64 bits; the sum must stay below 2^64"};
  }
  return sum;
}

// Requires: alignment is a power of two.
inline Result<std::size_t> checked_align_up(std::size_t value, std::size_t alignment,
                                            const char* what) {
  KVBM_TRY(const std::size_t padded, checked_add(value, alignment - 1, what));
  return padded & ~(alignment - 1);
}

}  // namespace kvbm
