// A File in memory whose calls can be watched, blocked and made to fail. For tests only.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "platform/os/file.h"

namespace kvbm {

class FakeFile final : public File {
 public:
  enum class Op : std::uint8_t { Read, Write, Sync };

  struct Call {
    Op op;
    std::uint64_t number;  // of this kind of call, from 0
    std::uint64_t offset;
    std::size_t bytes;
  };

  // What becomes of a call; by default nothing bad.
  struct Fault {
    std::int32_t error = 0;                 // errno; moves nothing
    std::optional<std::size_t> moves;       // moves so many bytes only and fails
    std::optional<std::size_t> flips = {};  // succeeds, with this byte of the call inverted
  };
  static Fault fails(std::int32_t error) { return {.error = error, .moves = {}}; }
  static Fault stops_after(std::size_t bytes) { return {.error = 0, .moves = bytes}; }
  static Fault flips(std::size_t byte) { return {.error = 0, .moves = {}, .flips = byte}; }

  // Runs on the calling thread before the bytes move, so it may also block there.
  using Hook = std::function<Fault(const Call&)>;

  // Memory, offset and length of every call must be multiples of `io_alignment`, as for O_DIRECT.
  explicit FakeFile(std::size_t bytes, std::size_t io_alignment = 1)
      : bytes_(bytes), io_alignment_(io_alignment) {}

  // Set it while no call runs.
  void set_hook(Hook hook) { hook_ = std::move(hook); }
  // The contents. Look at them, or damage them, while no call runs.
  std::vector<std::byte>& contents() noexcept { return bytes_; }
  std::uint64_t reads() const noexcept { return reads_; }
  std::uint64_t writes() const noexcept { return writes_; }

  Result<void> read(std::span<std::byte> bytes, std::uint64_t offset) override {
    const auto copy = [&](std::size_t count) {
      std::memcpy(bytes.data(), bytes_.data() + offset, count);
      return bytes.data();
    };
    return move({Op::Read, reads_++, offset, bytes.size()}, bytes.data(), copy);
  }

  Result<void> write(std::span<const std::byte> bytes, std::uint64_t offset) override {
    const auto copy = [&](std::size_t count) {
      std::memcpy(bytes_.data() + offset, bytes.data(), count);
      return bytes_.data() + offset;
    };
    return move({Op::Write, writes_++, offset, bytes.size()}, bytes.data(), copy);
  }

  Result<void> sync() override {
    const Fault fault = hook_ ? hook_({Op::Sync, syncs_++, 0, 0}) : Fault{};
    if (fault.error == 0) return {};
    return Error{ErrorCode::OperationFailed, fault.error, 0, 0, description_};
  }
  Result<void> resize(std::uint64_t bytes) override {
    bytes_.resize(bytes);
    return {};
  }
  std::uint64_t size() const noexcept override { return bytes_.size(); }
  bool is_removed() const noexcept override { return false; }
  std::size_t io_alignment() const noexcept override { return io_alignment_; }
  int descriptor() const noexcept override { return -1; }
  const std::string& description() const noexcept override { return description_; }

 private:
  // Calls copy(count), which returns where the bytes went.
  template <class Copy>
  Result<void> move(const Call& call, const std::byte* memory, Copy copy) {
    std::uint64_t end = 0;
    if (__builtin_add_overflow(call.offset, std::uint64_t{call.bytes}, &end) || end > size()) {
      return Error{ErrorCode::OutOfBounds, 0, end, size(), description_};
    }
    Fault fault = hook_ ? hook_(call) : Fault{};
    const std::uint64_t address = reinterpret_cast<std::uintptr_t>(memory);
    if ((address | call.offset | call.bytes) % io_alignment_ != 0) fault = fails(EINVAL);
    if (fault.error != 0 || fault.moves) {
      const std::size_t moved = fault.moves.value_or(0);
      copy(moved);
      return Error{ErrorCode::OperationFailed, fault.error, call.bytes, moved, description_};
    }
    std::byte* const target = copy(call.bytes);
    if (fault.flips) target[*fault.flips] = ~target[*fault.flips];
    return {};
  }

  std::vector<std::byte> bytes_;
  std::size_t io_alignment_;
  Hook hook_;
  std::atomic<std::uint64_t> reads_ = 0;
  std::atomic<std::uint64_t> writes_ = 0;
  std::atomic<std::uint64_t> syncs_ = 0;
  std::string description_ = "a file in memory";
};

}  // namespace kvbm
