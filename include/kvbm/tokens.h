// Token blocks and the hashes that name them.
//
// A prompt is cut into blocks of block_size tokens. A full block has
//   block hash    = XXH3-64 of its tokens (little-endian uint32), seeded with the salt hash
//   sequence hash = the block hash for the first block; for a later one the XXH3-64 of
//                   {parent sequence hash, block hash} (little-endian uint64 each), seeded with the
//                   chain seed.
// A block with multimodal slots hashes frames instead of tokens: see hash_block.
// These hashes are fast and public, so whoever writes prompts can make two of one name. With a
// DigestKey a block also has a digest, which nobody without the key can foresee:
//   digest = XXH3-64 under the key of {parent's digest or 0, salt hash, chain seed, number of
//   tokens
//            + 2^32 if there are frames} (little-endian uint64 each) and the bytes that the block
//            hash is of.
// Blocks of one name and of different digests are different blocks.
// Source: the hash scheme of NVIDIA Dynamo's token blocks; chain seed 1337 is what its routers use.
//
// Threads: functions and const members any; each object is otherwise not thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kvbm/result.h"
#include "kvbm/types.h"

namespace kvbm {

inline constexpr std::uint64_t DEFAULT_CHAIN_SEED = 1337;

// A secret that makes digests. Without one (the default) every digest is 0. Copies share the
// secret. Threads: const members any.
class DigestKey {
 public:
  static constexpr std::size_t kMinBytes = 16;
  static constexpr std::size_t kMaxBytes = 64;

  DigestKey() = default;
  // From secret random bytes, best 32 of them. SHA-256 in counter mode expands them to the 192
  // bytes that XXH3 takes. Errors: InvalidConfig unless there are kMinBytes .. kMaxBytes;
  // OperationFailed where OpenSSL has no SHA-256. Cost: microseconds.
  static Result<DigestKey> create(std::span<const std::byte> secret);

  bool is_empty() const noexcept { return !expanded_; }
  // Tells keys apart and may be published: a SHA-256 over the secret. 0 without a key.
  std::uint64_t fingerprint() const noexcept;
  // XXH3-64 of the bytes under the key, with 1 for 0. 0 without a key.
  std::uint64_t digest(std::span<const std::byte> bytes) const noexcept;

 private:
  struct Expanded;
  std::shared_ptr<const Expanded> expanded_;
};

// What tells the names of a sequence from those of another one with the same tokens.
struct HashSeeds {
  SaltHash salt = 0;
  std::uint64_t chain = DEFAULT_CHAIN_SEED;
  DigestKey key = {};  // of the digests; does not change the names
};

// A run of placeholders for one image, recording or video. What the prompt has as tokens there does
// not count; the object's hash does. A list of runs is valid if each is non-empty, they lie within
// the tokens, and each begins at or after the end of the one before it.
struct TokenBlockMmInfo {
  std::uint64_t mm_hash = 0;
  std::size_t offset = 0;  // tokens of the sequence before it
  std::size_t length = 0;  // tokens
};

// The indices begin .. end - 1.
struct IndexRange {
  std::size_t begin = 0;
  std::size_t end = 0;
  friend bool operator==(const IndexRange&, const IndexRange&) = default;
};

// XXH3-64 of the bytes with seed 0. No salt at all is SaltHash 0.
SaltHash hash_salt(std::span<const std::byte> salt) noexcept;

// Hash of one block's tokens alone. Cost: about 5 ns for 16 tokens.
BlockHash hash_block(std::span<const Token> tokens, SaltHash salt) noexcept;

// The same for a block that begins `offset` tokens into a sequence with multimodal runs. Without a
// run in the block the hash is the one above. Otherwise every slot is hashed as 13 bytes:
//   a token        0x00, token (uint32), 0 (uint64)
//   a placeholder  0x01, slots of its run before it (uint32), mm_hash (uint64)
// with little-endian numbers. Requires: valid runs. Cost: O(tokens + log runs).
BlockHash hash_block(std::span<const Token> tokens, std::size_t offset,
                     std::span<const TokenBlockMmInfo> runs, SaltHash salt);

// Name of a block given its parent's name; no parent makes it a first block.
SequenceHash chain_hash(std::optional<SequenceHash> parent, BlockHash block,
                        std::uint64_t chain_seed = DEFAULT_CHAIN_SEED) noexcept;

// Names of the full blocks of a prompt, first to last: all that a lookup by name needs, without the
// blocks of TokenBlockSequence::create(), which has the same errors. Cost: about 6 ns a block
// of 16.
Result<std::vector<SequenceHash>> sequence_hashes(std::span<const Token> tokens,
                                                  std::size_t block_size,
                                                  const HashSeeds& seeds = {},
                                                  std::span<const TokenBlockMmInfo> runs = {});

namespace detail {
// Where a block stands in its sequence: first, or behind a parent.
struct BlockPlace {
  std::size_t position = 0;
  SequenceHash parent = {};         // nothing at position 0
  std::uint64_t parent_digest = 0;  // 0: none
};
}  // namespace detail

// A full, immutable block of tokens with its names.
class TokenBlock {
 public:
  // The block behind `parent`, or the first one of a sequence. Its size is the number of tokens.
  // Errors: InvalidConfig unless that is 1 .. MAX_PAGE_SIZE and the parent's size.
  static Result<TokenBlock> create(std::span<const Token> tokens,
                                   const TokenBlock* parent = nullptr, const HashSeeds& seeds = {});

  // The same with a sequence hash that an engine computed by its own rules. Names of later blocks
  // build on it. The block hash is the unsalted one. The digest is the caller's, too; 0 is none.
  static Result<TokenBlock> create_external(std::span<const Token> tokens,
                                            SequenceHash sequence_hash,
                                            const TokenBlock* parent = nullptr,
                                            std::uint64_t digest = 0);

  std::span<const Token> tokens() const noexcept { return tokens_; }
  BlockHash block_hash() const noexcept { return block_hash_; }
  SequenceHash sequence_hash() const noexcept { return sequence_hash_; }
  // The name of the block before it; empty for the first block of a sequence.
  std::optional<SequenceHash> parent_sequence_hash() const noexcept {
    return position_ == 0 ? std::nullopt : std::optional(parent_);
  }
  // Of the whole prefix under the key. 0 without a key, or behind a block that has no digest.
  std::uint64_t digest() const noexcept { return digest_; }
  // Blocks before it in its sequence.
  std::size_t position() const noexcept { return position_; }

 private:
  friend class PartialTokenBlock;
  // `frames` are empty where the block has no multimodal slots.
  TokenBlock(std::vector<Token> tokens, std::span<const std::byte> frames,
             const detail::BlockPlace& place, const HashSeeds& seeds) noexcept;

  std::vector<Token> tokens_;
  BlockHash block_hash_;
  SequenceHash sequence_hash_;
  SequenceHash parent_;  // nothing at position 0
  std::size_t position_;
  std::uint64_t digest_;
};

// The block of a sequence that tokens are added to and taken from: 0 .. block_size() of them.
class PartialTokenBlock {
 public:
  // The first block of a sequence. Errors: InvalidConfig unless block_size is 1 .. MAX_PAGE_SIZE.
  static Result<PartialTokenBlock> create(std::size_t block_size, const HashSeeds& seeds = {});

  // Errors: Full.
  Result<void> push_token(Token token);
  // Takes as many tokens as fit and returns the others.
  std::span<const Token> push_tokens(std::span<const Token> tokens);

  // Removes the last token and returns it. Errors: Empty.
  Result<Token> pop_token();
  // Removes the last `count` tokens. Errors: InsufficientTokens.
  Result<void> pop_tokens(std::size_t count);

  // Names the full block and returns it; this object becomes the empty block behind it.
  // Errors: Incomplete.
  Result<TokenBlock> commit();

  std::span<const Token> tokens() const noexcept { return tokens_; }
  std::size_t len() const noexcept { return tokens_.size(); }
  std::size_t remaining() const noexcept { return block_size_ - tokens_.size(); }
  bool is_empty() const noexcept { return tokens_.empty(); }
  std::size_t block_size() const noexcept { return block_size_; }
  const HashSeeds& seeds() const noexcept { return seeds_; }
  // As of the TokenBlock that it may become.
  std::optional<SequenceHash> parent_sequence_hash() const noexcept {
    return place_.position == 0 ? std::nullopt : std::optional(place_.parent);
  }
  std::size_t position() const noexcept { return place_.position; }

 private:
  friend class TokenBlockSequence;
  PartialTokenBlock(std::size_t block_size, const HashSeeds& seeds);
  TokenBlock take();  // commit() of a full block
  void reopen(const TokenBlock& block, const TokenBlock* parent);
  void clip_runs();

  std::size_t block_size_;
  HashSeeds seeds_;
  std::vector<TokenBlockMmInfo> runs_;  // of the whole sequence
  std::vector<Token> tokens_;
  detail::BlockPlace place_;
};

// A list of tokens cut into blocks: the full ones, and the current one behind them.
struct TokenBlockParts {
  std::vector<TokenBlock> blocks;
  PartialTokenBlock current;
};

// A list of tokens that grows and shrinks at its end.
//
// A prompt's full blocks are committed at once. Later a block that fills up stays the current one,
// and can still change, until the next token arrives.
class TokenBlockSequence {
 public:
  // `runs` are the multimodal runs among the tokens. Errors: InvalidConfig unless block_size is
  // 1 .. MAX_PAGE_SIZE and the runs are valid. Cost: O(tokens).
  static Result<TokenBlockSequence> create(std::span<const Token> tokens, std::size_t block_size,
                                           const HashSeeds& seeds = {},
                                           std::span<const TokenBlockMmInfo> runs = {});

  // The blocks that create() makes, without the sequence around them.
  static Result<TokenBlockParts> split_tokens(std::span<const Token> tokens, std::size_t block_size,
                                              const HashSeeds& seeds = {},
                                              std::span<const TokenBlockMmInfo> runs = {});

  // Appends tokens. Returns the indices of the blocks that were committed, if any.
  // Requires: the tokens are not this sequence's own. Cost: O(tokens).
  std::optional<IndexRange> extend(std::span<const Token> tokens);
  // Appends one token. Returns the index of the block that was committed, if one was.
  std::optional<std::size_t> append(Token token);

  // Keeps the first `len` tokens; does nothing if there are no more. A block that loses a token
  // becomes the current one again. Multimodal runs end where the tokens end.
  // Cost: O(blocks and runs removed + block_size).
  void truncate(std::size_t len);
  // Removes the last `count` tokens. Errors: InsufficientTokens.
  Result<void> unwind(std::size_t count);
  // Removes the last token and returns it. Errors: Empty.
  Result<Token> pop();
  // Removes all tokens.
  void reset() { truncate(0); }

  // The committed blocks.
  std::span<const TokenBlock> blocks() const noexcept { return blocks_; }
  // The tokens behind them.
  const PartialTokenBlock& current_block() const noexcept { return current_; }
  TokenBlockParts into_parts() && { return {std::move(blocks_), std::move(current_)}; }

  std::size_t block_size() const noexcept { return current_.block_size(); }
  std::size_t total_tokens() const noexcept {
    return blocks_.size() * block_size() + current_.len();
  }
  SaltHash salt_hash() const noexcept { return current_.seeds().salt; }

  // A copy of the tokens with these indices. Errors: InvalidConfig if the range ends before it
  // begins, InsufficientTokens if it ends after the last token.
  Result<std::vector<Token>> tokens_at(IndexRange range) const;

  // Names of the committed blocks, first to last.
  std::vector<SequenceHash> sequence_hashes() const;

 private:
  explicit TokenBlockSequence(TokenBlockParts parts);

  std::vector<TokenBlock> blocks_;
  PartialTokenBlock current_;
};

}  // namespace kvbm
