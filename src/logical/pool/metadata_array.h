// One object of a caller's metadata type per block, handled through its function table.
#pragma once

#include <cstddef>
#include <new>

#include "kvbm/metadata.h"

namespace kvbm {

class MetadataArray {
 public:
  // Without a table there is nothing to keep.
  MetadataArray(const detail::MetadataTable* table, std::size_t count)
      : table_(table), count_(table ? count : 0) {
    if (!table_) return;
    memory_ = static_cast<std::byte*>(
        ::operator new(table_->bytes * count_, std::align_val_t(table_->alignment)));
    for (std::size_t i = 0; i < count_; ++i) table_->construct(at(i));
  }
  ~MetadataArray() {
    if (!table_) return;
    for (std::size_t i = 0; i < count_; ++i) table_->destroy(at(i));
    ::operator delete(memory_, std::align_val_t(table_->alignment));
  }
  MetadataArray(const MetadataArray&) = delete;
  MetadataArray& operator=(const MetadataArray&) = delete;

  const detail::MetadataTable* table() const noexcept { return table_; }
  // Requires: table() and i < count.
  void* at(std::size_t i) const noexcept { return memory_ + i * table_->bytes; }

 private:
  const detail::MetadataTable* table_;
  std::size_t count_;
  std::byte* memory_ = nullptr;
};

}  // namespace kvbm
