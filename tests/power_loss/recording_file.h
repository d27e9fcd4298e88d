// A file in memory that can lose its power: it remembers what was changed since its last sync.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "platform/os/file.h"

namespace kvbm::power_loss {

// How one loss of power treats what was not synced.
struct Damage {
  double kept;                // of the units that were written, how many reach the disk
  std::size_t unit;           // what is never torn, a sector or a page
  std::uint64_t random_seed;  // which ones
};

// Calls must come one after the other.
class RecordingFile final : public File {
 public:
  explicit RecordingFile(std::vector<std::byte> contents = {})
      : durable_(contents), contents_(std::move(contents)) {}
  // What another process finds that opens the file after this one was killed.
  RecordingFile(const RecordingFile& other)
      : durable_(other.durable_), contents_(other.contents_), changes_(other.changes_) {}

  // Called before every change and sync; null: nobody.
  void set_hook(std::function<void()> hook) { hook_ = std::move(hook); }
  const std::vector<std::byte>& contents() const noexcept { return contents_; }

  // What the disk has after a loss of power now: of what was written since the last sync, any
  // units; of the changes of size, the first ones.
  std::vector<std::byte> after(const Damage& damage) const {
    std::mt19937_64 random(damage.random_seed);
    std::bernoulli_distribution keeps(damage.kept);
    bool sizes_kept = true;
    std::vector<std::byte> left = durable_;
    for (const Change& change : changes_) {
      if (change.size) {
        sizes_kept = sizes_kept && keeps(random);
        if (sizes_kept) left.resize(*change.size);
        continue;
      }
      const std::uint64_t end = change.offset + change.bytes.size();
      for (std::uint64_t at = change.offset; at < end;) {
        const std::uint64_t next = std::min(end, (at / damage.unit + 1) * damage.unit);
        if (keeps(random) && next <= left.size()) {
          std::memcpy(&left[at], &change.bytes[at - change.offset], next - at);
        }
        at = next;
      }
    }
    return left;
  }

  Result<void> read(std::span<std::byte> bytes, std::uint64_t offset) override {
    KVBM_CHECK_OK(check_range(bytes.size(), offset));
    std::memcpy(bytes.data(), contents_.data() + offset, bytes.size());
    return {};
  }
  Result<void> write(std::span<const std::byte> bytes, std::uint64_t offset) override {
    KVBM_CHECK_OK(check_range(bytes.size(), offset));
    if (hook_) hook_();
    changes_.push_back({offset, {bytes.begin(), bytes.end()}, std::nullopt});
    std::memcpy(contents_.data() + offset, bytes.data(), bytes.size());
    return {};
  }
  Result<void> sync() override {
    if (hook_) hook_();
    durable_ = contents_;
    changes_.clear();
    return {};
  }
  Result<void> resize(std::uint64_t bytes) override {
    if (hook_) hook_();
    changes_.push_back({0, {}, bytes});
    contents_.resize(bytes);
    return {};
  }
  std::uint64_t size() const noexcept override { return contents_.size(); }
  bool is_removed() const noexcept override { return false; }
  std::size_t io_alignment() const noexcept override { return 1; }
  int descriptor() const noexcept override { return -1; }
  const std::string& description() const noexcept override { return description_; }

 private:
  struct Change {
    std::uint64_t offset;
    std::vector<std::byte> bytes;
    std::optional<std::uint64_t> size;  // of a change of size
  };

  Result<void> check_range(std::size_t bytes, std::uint64_t offset) const {
    if (offset + bytes <= size()) return {};
    return Error{ErrorCode::OutOfBounds, 0, offset + bytes, size(), description_};
  }

  std::vector<std::byte> durable_;   // as of the last sync
  std::vector<std::byte> contents_;  // as whoever has it open sees it
  std::vector<Change> changes_;      // since the last sync
  std::function<void()> hook_;
  std::string description_ = "a recording file";
};

}  // namespace kvbm::power_loss
