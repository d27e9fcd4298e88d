// Errors as values: ErrorCode, Error and Result<T>.
//
// Every call that can be refused returns Result<T>. A refusal changes nothing and carries the
// numbers that explain it. A cache miss is an answer, never an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace kvbm {

// One flat list for the whole library. The first three groups are the variants of the API
// reference's BlockPoolError, BlockError and StorageError, so an error needs no wrapping on its way
// up.
enum class ErrorCode : std::uint16_t {
  // Pools.
  BlockNotComplete =
      100,  // a block without a name; in a list, requested / available = position, count
  NotEnoughBlocksAvailable,  // requested / available count blocks; nothing was evicted
  InvalidMutableBlock,  // the block is empty, of another pool, or in the wrong state; the call says
                        // what the numbers are
  FailedToRegisterBlock,   // requested = block, available = the block that the transfer filled
  ProgressEngineShutdown,  // the pool, the manager or the engine is closed

  // Blocks.
  InvalidBlockIndex = 200,           // requested = index, available = number of blocks
  InvalidLayerIndex,                 // requested = index, available = number of layers
  InvalidOuterIndex,                 // requested = index, available = number of outer parts
  ViewsNotAvailableOnLogicalBlocks,  // the block's bytes live in other processes

  // Storage.
  AllocationFailed = 300,  // requested = bytes; native = errno
  NotAccessible,           // the memory cannot be addressed by the CPU
  InvalidConfig,           // a size, count or option outside its range; the message names it
  OperationFailed,         // an I/O call failed or moved too few bytes; native = errno
  OutOfBounds,             // requested = first byte past the end, available = size in bytes
  Cuda,                    // native = CUresult, or 0 where no driver could be loaded
  RegistrationKeyExists,   // the memory is registered under that key already
  HandleNotFound,          // no registration under that key
  NixlError,               // native = NIXL status, or 0 where NIXL was not asked

  // Tokens.
  Full = 400,          // requested = tokens offered, available = room left
  Incomplete,          // requested = block size, available = tokens present
  Empty,               // nothing to pop
  InsufficientTokens,  // requested / available count tokens

  // Transfers.
  ChecksumMismatch = 500,  // bytes read back differ from what was stored; they were zeroed
  TimedOut,                // the request's deadline passed
  Cancelled,               // the caller cancelled, or the request was dropped at shutdown
  SourceGone,              // the source block left its tier before the transfer began
  PlanExpired,             // requested = plan: it was used, released, or its lease is over
  QueueFull,               // too many blocks wait for transfers already
  NotAdmitted,             // the tier's admission rule refuses the block
  CheaperToCompute,        // loading the block would take longer than computing it
};

// The enumerator's name, for messages. Never null. Threads: any.
const char* to_string(ErrorCode code) noexcept;

// What went wrong. `requested` and `available` mean what the code's comment says; both are 0 where
// it says nothing. Routine refusals leave `message` empty and so allocate nothing.
struct Error {
  ErrorCode code;
  std::int32_t native = 0;  // errno, CUresult or NIXL status; 0 if none
  std::uint64_t requested = 0;
  std::uint64_t available = 0;
  std::string message;

  // One line for people: name, message, numbers and native code.
  std::string to_string() const;
};

// The reference's error types are groups of codes of one type here.
using BlockPoolError = Error;
using BlockError = Error;
using StorageError = Error;

namespace detail {
// Prints `error` and aborts: value() was called on an error, which is a programmer's mistake.
[[noreturn]] void die_on_bad_access(const Error& error) noexcept;
}  // namespace detail

// Either a T or an Error; the member names are those of std::expected. value() on an error
// terminates with the error's text. Not thread-safe, like any value.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  T& value() & {
    require();
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    require();
    return *std::get_if<0>(&state_);
  }
  // By value, so that a loop over make().value() does not run over something that is gone.
  T value() && {
    require();
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // Requires: !has_value().
  const Error& error() const& { return *std::get_if<1>(&state_); }
  Error&& error() && { return std::move(*std::get_if<1>(&state_)); }

 private:
  void require() const {
    if (!has_value()) detail::die_on_bad_access(error());
  }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;

  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  bool has_value() const noexcept { return !error_.has_value(); }
  explicit operator bool() const noexcept { return has_value(); }
  void value() const {
    if (error_) detail::die_on_bad_access(*error_);
  }

  // Requires: !has_value().
  const Error& error() const& { return *error_; }
  Error&& error() && { return std::move(*error_); }

 private:
  std::optional<Error> error_;
};

template <class T>
using BlockPoolResult = Result<T>;
template <class T>
using BlockResult = Result<T>;
template <class T>
using StorageResult = Result<T>;

}  // namespace kvbm

#define KVBM_CONCAT_INNER(a, b) a##b
#define KVBM_CONCAT(a, b) KVBM_CONCAT_INNER(a, b)

// Evaluates a Result; returns its error from the enclosing function, or declares `var` from its
// value: `KVBM_TRY(auto file, open(path));`
#define KVBM_TRY(var, expr)                                     \
  auto KVBM_CONCAT(kvbm_try_, __LINE__) = (expr);               \
  if (!KVBM_CONCAT(kvbm_try_, __LINE__))                        \
    return std::move(KVBM_CONCAT(kvbm_try_, __LINE__)).error(); \
  var = std::move(KVBM_CONCAT(kvbm_try_, __LINE__)).value()

// The same for a Result<void>: `KVBM_CHECK_OK(file->write(bytes, 0));`
#define KVBM_CHECK_OK(expr) \
  if (auto kvbm_check_ = (expr); !kvbm_check_) return std::move(kvbm_check_).error()
