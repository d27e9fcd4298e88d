// SHA-256 of many short messages: OpenSSL's, with one context for all of them.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

#include "kvbm/result.h"

namespace kvbm {

using Sha256Hash = std::array<std::byte, 32>;

// Threads: none; one object per thread.
class Sha256 {
 public:
  // Errors: OperationFailed where OpenSSL offers no SHA-256.
  static Result<Sha256> create();

  // Errors: OperationFailed where OpenSSL fails. Allocates nothing.
  Result<Sha256Hash> hash(std::span<const std::byte> message);

 private:
  struct Free {
    void operator()(void* context) const noexcept;
  };
  using Context = std::unique_ptr<void, Free>;
  explicit Sha256(Context context) : context_(std::move(context)) {}

  Context context_;
};

}  // namespace kvbm
