#include "kvbm/tokens.h"

#include <algorithm>

#include "base/xxh3.h"

namespace kvbm {

SaltHash hash_salt(std::span<const std::byte> salt) noexcept {
  return xxh3(salt.data(), salt.size());
}

BlockHash hash_block(std::span<const Token> tokens, SaltHash salt) noexcept {
  return xxh3(tokens.data(), tokens.size_bytes(), salt);
}

SequenceHash chain_hash(std::optional<SequenceHash> parent, BlockHash block,
                        std::uint64_t chain_seed) noexcept {
  if (!parent) return SequenceHash(block);
  const std::uint64_t link[2] = {parent->value(), block};
  return SequenceHash(xxh3(link, sizeof link, chain_seed));
}

TokenBlock::TokenBlock(std::vector<Token> tokens, SaltHash salt, const TokenBlock* parent,
                       std::uint64_t chain_seed)
    : tokens_(std::move(tokens)),
      block_hash_(hash_block(tokens_, salt)),
      parent_(parent ? std::optional(parent->sequence_hash()) : std::nullopt),
      position_(parent ? parent->position() + 1 : 0) {
  sequence_hash_ = chain_hash(parent_, block_hash_, chain_seed);
}

TokenBlockSequence::TokenBlockSequence(std::size_t block_size, SaltHash salt,
                                       std::uint64_t chain_seed)
    : block_size_(block_size), salt_(salt), chain_seed_(chain_seed) {}

Result<TokenBlockSequence> TokenBlockSequence::create(std::span<const Token> tokens,
                                                      std::size_t block_size, SaltHash salt,
                                                      std::uint64_t chain_seed) {
  if (block_size == 0 || block_size > MAX_PAGE_SIZE) {
    return Error{ErrorCode::InvalidConfig, 0, block_size, MAX_PAGE_SIZE,
                 "block_size must be 1 .. 1024 tokens"};
  }
  TokenBlockSequence sequence(block_size, salt, chain_seed);
  sequence.extend(tokens);
  return sequence;
}

void TokenBlockSequence::extend(std::span<const Token> tokens) {
  while (!tokens.empty()) {
    const std::size_t taken = std::min(block_size_ - tail_.size(), tokens.size());
    tail_.insert(tail_.end(), tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(taken));
    tokens = tokens.subspan(taken);
    if (tail_.size() < block_size_) return;

    const TokenBlock* parent = blocks_.empty() ? nullptr : &blocks_.back();
    blocks_.push_back(TokenBlock(std::move(tail_), salt_, parent, chain_seed_));
    tail_.clear();
  }
}

std::vector<SequenceHash> TokenBlockSequence::sequence_hashes() const {
  std::vector<SequenceHash> hashes;
  hashes.reserve(blocks_.size());
  for (const TokenBlock& block : blocks_) hashes.push_back(block.sequence_hash());
  return hashes;
}

}  // namespace kvbm
