// Files of exported blocks in memory, for tests.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "store/export_file.h"

namespace kvbm::store {

// Appends to `bytes`, which must outlive it.
inline ExportWriter::Sink sink_to(std::vector<std::byte>& bytes) {
  return [&bytes](std::span<const std::byte> piece) -> Result<void> {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return {};
  };
}

// Gives at most `max_bytes` at a time. The bytes must outlive it.
inline ExportReader::Source source_of(std::span<const std::byte> bytes,
                                      std::size_t max_bytes = 1000) {
  return [bytes, max_bytes](std::span<std::byte> target) mutable -> Result<std::size_t> {
    const std::size_t count = std::min({target.size(), bytes.size(), max_bytes});
    std::copy_n(bytes.begin(), count, target.begin());
    bytes = bytes.subspan(count);
    return count;
  };
}

}  // namespace kvbm::store
