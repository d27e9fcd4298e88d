// Token blocks and the hashes that name them.
//
// A prompt is cut into blocks of block_size tokens. A full block has
//   block hash    = XXH3-64 of its tokens (little-endian uint32), seeded with the salt hash
//   sequence hash = the block hash for the first block; for a later one the XXH3-64 of
//                   {parent sequence hash, block hash} (little-endian uint64 each), seeded with the
//                   chain seed.
// Source: the hash scheme of NVIDIA Dynamo's token blocks; chain seed 1337 is what its routers use.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm {

inline constexpr std::uint64_t DEFAULT_CHAIN_SEED = 1337;

// XXH3-64 of the bytes with seed 0. No salt at all is SaltHash 0. Threads: any.
SaltHash hash_salt(std::span<const std::byte> salt) noexcept;

// Hash of one block's tokens alone. Cost: about 5 ns for 16 tokens. Threads: any.
BlockHash hash_block(std::span<const Token> tokens, SaltHash salt) noexcept;

// Name of a block given its parent's name; no parent makes it a first block. Threads: any.
SequenceHash chain_hash(std::optional<SequenceHash> parent, BlockHash block,
                        std::uint64_t chain_seed = DEFAULT_CHAIN_SEED) noexcept;

// A full, immutable block of tokens with its names. Made by TokenBlockSequence.
class TokenBlock {
 public:
  std::span<const Token> tokens() const noexcept { return tokens_; }
  BlockHash block_hash() const noexcept { return block_hash_; }
  SequenceHash sequence_hash() const noexcept { return sequence_hash_; }
  // The name of the block before it; empty for the first block of a sequence.
  std::optional<SequenceHash> parent_sequence_hash() const noexcept { return parent_; }
  // Blocks before it in its sequence.
  std::size_t position() const noexcept { return position_; }

 private:
  friend class TokenBlockSequence;
  TokenBlock(std::vector<Token> tokens, SaltHash salt, const TokenBlock* parent,
             std::uint64_t chain_seed);

  std::vector<Token> tokens_;
  BlockHash block_hash_;
  SequenceHash sequence_hash_;
  std::optional<SequenceHash> parent_;
  std::size_t position_;
};

// A growing list of tokens, cut into full blocks and a partial tail. Not thread-safe.
class TokenBlockSequence {
 public:
  // Errors: InvalidConfig unless block_size is 1 .. MAX_PAGE_SIZE.
  static Result<TokenBlockSequence> create(std::span<const Token> tokens, std::size_t block_size,
                                           SaltHash salt = 0,
                                           std::uint64_t chain_seed = DEFAULT_CHAIN_SEED);

  // Appends tokens; every block that fills up is named. Cost: O(tokens).
  void extend(std::span<const Token> tokens);

  std::span<const TokenBlock> blocks() const noexcept { return blocks_; }
  // Tokens after the last full block; fewer than block_size().
  std::span<const Token> tail() const noexcept { return tail_; }
  std::size_t block_size() const noexcept { return block_size_; }
  std::size_t total_tokens() const noexcept { return blocks_.size() * block_size_ + tail_.size(); }

  // Names of the full blocks, first to last.
  std::vector<SequenceHash> sequence_hashes() const;

 private:
  TokenBlockSequence(std::size_t block_size, SaltHash salt, std::uint64_t chain_seed);

  std::size_t block_size_;
  SaltHash salt_;
  std::uint64_t chain_seed_;
  std::vector<TokenBlock> blocks_;
  std::vector<Token> tail_;
};

}  // namespace kvbm
