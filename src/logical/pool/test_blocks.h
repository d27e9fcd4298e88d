// Named blocks for tests of the block store.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "logical/pool/hold_ops.h"

namespace kvbm::test_blocks {

using detail::CompleteHold;
using detail::ImmutableHold;
using detail::MutableHold;

// Block `position` of conversation `conversation`.
inline SequenceHash name(std::uint64_t conversation, std::uint32_t position) {
  return SequenceHash((conversation << 32) + position + 1);
}

inline std::vector<SequenceHash> chain(std::uint64_t conversation, std::uint32_t length) {
  std::vector<SequenceHash> hashes;
  for (std::uint32_t i = 0; i < length; ++i) hashes.push_back(name(conversation, i));
  return hashes;
}

inline BlockIdentity identity(std::uint64_t conversation, std::uint32_t position) {
  return {name(conversation, position),
          position == 0 ? SequenceHash() : name(conversation, position - 1), position, 16};
}

inline MutableHold allocate_one(BlockStore& store) {
  return std::move(detail::allocate(store, 1).value().front());
}

inline ImmutableHold put(BlockStore& store, std::uint64_t conversation, std::uint32_t position) {
  std::vector<CompleteHold> blocks;
  blocks.push_back(detail::complete(allocate_one(store), identity(conversation, position)));
  return std::move(detail::register_blocks(store, std::move(blocks)).value().front());
}

inline std::vector<ImmutableHold> put_chain(BlockStore& store, std::uint64_t conversation,
                                            std::uint32_t length) {
  std::vector<ImmutableHold> holds;
  for (std::uint32_t i = 0; i < length; ++i) holds.push_back(put(store, conversation, i));
  return holds;
}

// Which of the first `length` blocks of a conversation are registered: "01-3".
inline std::string resident(const BlockStore& store, std::uint64_t conversation,
                            std::uint32_t length) {
  std::string found;
  for (std::uint32_t i = 0; i < length; ++i) {
    found += store.contains(name(conversation, i)) ? static_cast<char>('0' + i) : '-';
  }
  return found;
}

}  // namespace kvbm::test_blocks
