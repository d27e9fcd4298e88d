#include "store/payload.h"

#include <new>

namespace kvbm::store {

void PayloadSum::add(std::span<const std::byte> bytes) {
  while (!bytes.empty() && sums_.size() < region_bytes_.size()) {
    const std::uint32_t region = region_bytes_[sums_.size()];
    if (added_ == 0 && bytes.size() >= region) {
      sums_.push_back(xxh3(bytes.data(), region));
      bytes = bytes.subspan(region);
      continue;
    }
    if (added_ == 0) XXH3_64bits_reset(&state_);
    const auto count =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes.size(), region - added_));
    XXH3_64bits_update(&state_, bytes.data(), count);
    bytes = bytes.subspan(count);
    added_ += count;
    if (added_ < region) return;
    sums_.push_back(XXH3_64bits_digest(&state_));
    added_ = 0;
  }
}

PayloadReader::PayloadReader(File& blocks, const StoreShape& shape)
    : blocks_(blocks),
      shape_(shape),
      block_bytes_(shape.block_bytes()),
      // An extent has room for it: no file asks for more than kExtentUnit.
      read_bytes_((block_bytes_ + blocks.io_alignment() - 1) / blocks.io_alignment() *
                  blocks.io_alignment()),
      piece_bytes_(std::min(read_bytes_, kPieceBytes)),
      piece_(static_cast<std::byte*>(std::aligned_alloc(
          kExtentUnit, (piece_bytes_ + kExtentUnit - 1) / kExtentUnit * kExtentUnit))) {
  if (!piece_) throw std::bad_alloc();
}

}  // namespace kvbm::store
