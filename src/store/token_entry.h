// The tokens of a block as a store keeps them: in an entry per slot, a checksum that only the
// record of their block agrees with, and the tokens.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kvbm/types.h"
#include "platform/os/file.h"
#include "store/record.h"
#include "store/superblock.h"

namespace kvbm::store {

std::uint64_t token_entry_bytes(const StoreShape& shape) noexcept;

// What is written at the beginning of the entry of the block that `record` describes.
std::vector<std::byte> encode_tokens(const SlotRecord& record, std::span<const Token> tokens);

// The tokens of the block that `record` describes; empty if none were put with it, or they cannot
// be read, or are damaged. `tokens` may be null. Cost: one read.
std::vector<Token> read_tokens(File* tokens, const StoreShape& shape, Slot slot,
                               const SlotRecord& record);

}  // namespace kvbm::store
