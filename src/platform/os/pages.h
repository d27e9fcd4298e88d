// Anonymous memory straight from the kernel.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "kvbm/result.h"

namespace kvbm {

// One mapping, unmapped when destroyed.
class Pages {
 public:
  enum class Kind : std::uint8_t {
    Plain,   // whatever pages the kernel gives
    Pinned,  // huge pages (explicit, else transparent) and locked, each where allowed
  };
  // Zeroed, aligned to at least 4096 bytes; on `numa_node` where one is given. The kernel finds
  // each page when it is first touched: see PageFiller. Errors: AllocationFailed{requested,
  // available} with errno; also where all Pages of this process together would exceed the machine's
  // memory, since the kernel would hand them out and kill somebody later; InvalidConfig{node,
  // nodes} for a node that does not exist.
  static Result<std::unique_ptr<Pages>> map(std::size_t bytes, Kind kind,
                                            std::optional<unsigned> numa_node = std::nullopt);

  ~Pages();
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  std::byte* data() const noexcept { return data_; }
  std::size_t mapped_bytes() const noexcept { return mapped_bytes_; }
  // For people, such as "transparent huge pages, locked".
  const std::string& description() const noexcept { return description_; }

 private:
  Pages(std::byte* data, std::size_t mapped_bytes, std::string description)
      : data_(data), mapped_bytes_(mapped_bytes), description_(std::move(description)) {}

  std::byte* data_;
  std::size_t mapped_bytes_;
  std::string description_;
};

}  // namespace kvbm
